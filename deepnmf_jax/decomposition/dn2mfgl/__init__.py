"""Dn2MFGL: deep NMF with global and local structure, for clustering. `estimator.py` is where to begin."""

from deepnmf_jax.decomposition.dn2mfgl.estimator import Dn2MFGL

__all__ = ["Dn2MFGL"]
