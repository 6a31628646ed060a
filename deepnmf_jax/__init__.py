"""Deep non-negative matrix factorization networks in JAX and Flax.

The public names are those of `__all__`; the rest of the package may change from version to version.
"""

from typing import TYPE_CHECKING, Any

from deepnmf_jax import models
from deepnmf_jax.compiled import enable_compilation_cache
from deepnmf_jax.core.divergences import certificate, kl_divergence, residual
from deepnmf_jax.core.gradients import approximate_adjoint, implicit_adjoint, local_gradient, with_local_gradient
from deepnmf_jax.core.inference import infer, infer_checked
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.core.patches import extract_patches
from deepnmf_jax.core.spiking import draw_spikes, infer_from_spikes, infer_spiking, spike_update
from deepnmf_jax.layers import LocalMixing, NMFConv, NMFDense, NMFPool, NormalizedConv, PatchWhitening
from deepnmf_jax.models import load_pretrained, pretrained_names

if TYPE_CHECKING:
    from deepnmf_jax.decomposition import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF, SymmetricNMF

__version__ = "0.1.0"

__all__ = [
    "NMF",
    "ArchetypalAnalysis",
    "ConvexNMF",
    "Dn2MFGL",
    "LocalMixing",
    "NMFConv",
    "NMFDense",
    "NMFPool",
    "NormalizedConv",
    "PatchWhitening",
    "SemiNMF",
    "SymmetricNMF",
    "__version__",
    "approximate_adjoint",
    "certificate",
    "draw_spikes",
    "enable_compilation_cache",
    "extract_patches",
    "implicit_adjoint",
    "infer",
    "infer_checked",
    "infer_from_spikes",
    "infer_spiking",
    "kl_divergence",
    "load_pretrained",
    "local_gradient",
    "models",
    "normalize_patches",
    "normalize_weights",
    "pretrained_names",
    "residual",
    "spike_update",
    "with_local_gradient",
]

_ESTIMATORS = ("NMF", "ArchetypalAnalysis", "ConvexNMF", "Dn2MFGL", "SemiNMF", "SymmetricNMF")


def __getattr__(name: str) -> Any:
    # The networks need none of the estimators: they are loaded when first asked for.
    if name in _ESTIMATORS:
        from deepnmf_jax import decomposition

        return getattr(decomposition, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_hint(name)}")


def __dir__() -> list[str]:
    # Completion and help look here, where names that are not loaded yet would be missing.
    return sorted({*globals(), *__all__})


def _hint(name: str) -> str:
    """What somebody who wrote an unknown name may have meant; empty where nothing is near."""
    if name.startswith("_"):  # asked for by Python's own tools
        return ""
    import difflib
    from importlib.util import find_spec

    if find_spec(f"{__name__}.{name}"):
        return f"; it is a module: import {__name__}.{name}"
    near = {known.lower(): known for known in __all__}
    found = difflib.get_close_matches(name.lower(), near, n=1)
    return f"; did you mean {near[found[0]]!r}?" if found else ""
