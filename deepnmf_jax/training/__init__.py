"""Training of the networks: loss, optimiser, steps, loop, checkpoints, records."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepnmf_jax.training.prediction import load_trained

__all__ = ["load_trained"]


def __getattr__(name: str) -> Any:
    # Every module of this folder is imported through here, and most need no prediction.
    if name == "load_trained":
        from deepnmf_jax.training.prediction import load_trained

        return load_trained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
