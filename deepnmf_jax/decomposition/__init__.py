"""Matrix factorization into parts: A ~ Z D, as functions of arrays and as estimators over them."""

from deepnmf_jax.decomposition.archetypal import ArchetypalAnalysis
from deepnmf_jax.decomposition.consensus import Consensus, Replicates, Stability, consensus, consensus_of_each
from deepnmf_jax.decomposition.convex_nmf import ConvexNMF
from deepnmf_jax.decomposition.dn2mfgl.boundedness import UnboundedWarning
from deepnmf_jax.decomposition.dn2mfgl.estimator import Dn2MFGL
from deepnmf_jax.decomposition.estimator import ConvergenceWarning, NotFittedError
from deepnmf_jax.decomposition.nmf import NMF
from deepnmf_jax.decomposition.selection import Selection, choose_k
from deepnmf_jax.decomposition.semi_nmf import SemiNMF
from deepnmf_jax.decomposition.symmetric_nmf import SymmetricNMF

__all__ = [
    "NMF",
    "ArchetypalAnalysis",
    "Consensus",
    "ConvergenceWarning",
    "ConvexNMF",
    "Dn2MFGL",
    "NotFittedError",
    "Replicates",
    "Selection",
    "SemiNMF",
    "Stability",
    "SymmetricNMF",
    "UnboundedWarning",
    "choose_k",
    "consensus",
    "consensus_of_each",
]
