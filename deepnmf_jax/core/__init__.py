"""Pure functions of arrays: NMF inference, its gradients, and what surrounds them. Imports jax and numpy only."""
