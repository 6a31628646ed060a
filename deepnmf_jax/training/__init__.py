"""Training of the networks: loss, optimiser, steps, loop, checkpoints, records."""
