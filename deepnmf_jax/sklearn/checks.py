"""What scikit-learn's protocol checks, its warnings, and where they point."""

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils.validation import check_non_negative, validate_data

from deepnmf_jax import decomposition
from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.decomposition.io.arrays import dtype_for
from deepnmf_jax.decomposition.io.reading import entries_of, has_hidden, is_sparse
from deepnmf_jax.decomposition.protocol import DtypeError
from deepnmf_jax.decomposition.updates.beta_divergence import beta_of

FLOATS = [np.float64, np.float32]


def validated(estimator: Any, X: Any, reset: bool) -> Any:
    """X as scikit-learn checks it, non-negative; dense or sparse. ValueError also for zeros that it rules out."""
    X = validate_data(estimator, readable(X), accept_sparse=("csr", "csc"), dtype=FLOATS, reset=reset)
    check_non_negative(X, f"{type(estimator).__name__} (input X)")
    beta = beta_of(getattr(estimator, "beta_loss", 2.0))
    if beta <= 0 and (not np.all(X.data) or X.nnz < math.prod(X.shape) if issparse(X) else not np.all(X)):
        raise ValueError(
            "When beta_loss <= 0 and X contains zeros, the solver may diverge. Add a small number to a dense X, or use "
            "a beta_loss above 0."
        )
    # All its entries are stored then.
    return X.toarray() if beta <= 0 and issparse(X) else X


def takes_zeros(estimator: Any) -> bool:
    """Whether its beta_loss is finite where X is 0, as it is nearly everywhere in a sparse X."""
    try:
        return beta_of(estimator.beta_loss) > 0
    except ValueError:  # told by `fit`
        return True


def readable(X: Any, name: str = "X") -> Any:
    """X in a form that scikit-learn's checks can read: sparse matrices of JAX and torch as scipy's, all else itself.

    Raises:
        ValueError: a masked array, whose hidden numbers would be taken for data; a sparse array that is no matrix.
    """
    if has_hidden(X):
        raise ValueError(
            f"{name} is a masked array, and scikit-learn's protocol has no masks; fill it ({name}.filled(0)), or for "
            "data use deepnmf_jax.NMF, whose fit takes mask="
        )
    if is_sparse(X) and not issparse(X):
        # Added-up entries are float64, and scipy has no bfloat16.
        return entries_of(X).on_scipy(dtype_for(X))
    return X


def check_init(init: Any, k: int, shape: tuple[int, int]) -> None:
    """ValueError for a start by singular vectors with more components than there are."""
    if init in ("nndsvd", "nndsvda", "nndsvdar") and k > min(shape):
        raise ValueError(
            f"init = '{init}' can only be used when n_components <= min(n_samples, n_features), but there are {k} "
            f"components and X has shape {shape}; use init=None or 'random'"
        )


def width_of(model: Any, otherwise: int) -> int:
    """The number of components that an estimator is told, or `otherwise`."""
    if model.n_components in (None, "auto"):
        return otherwise
    check_integer("n_components (unless None or 'auto')", model.n_components, 1)
    return int(model.n_components)


def read_start(model: Any, X: Any, W: Any, H: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """W and H to start an estimator from, checked as scikit-learn does; None without init="custom"."""
    if model.init != "custom":
        if W is not None or H is not None:
            warnings.warn(
                "When init!='custom', provided W or H are ignored. Set init='custom' to start from them.",
                RuntimeWarning,
                stacklevel=level_of_caller(),
            )
        return None
    missing = " and ".join(name for name, given in (("W", W), ("H", H)) if given is None)
    if missing:
        raise ValueError(f"init='custom' starts from W and H, but {missing} is missing; give both to fit")
    n, p = X.shape
    k = None if model.n_components == "auto" else width_of(model, p)
    H = read_factor("H", H, (k, p), X.dtype)
    return read_factor("W", W, (n, len(H)), X.dtype), H


def read_factor(name: str, given: Any, shape: tuple[int | None, int], dtype: np.dtype) -> np.ndarray:
    """W or H to start from, of that shape (None: any) and dtype. Raises and says what scikit-learn's NMF does."""
    factor = check_array(readable(given, name), input_name=name)
    for which, wanted, got in zip(("first", "second"), shape, factor.shape, strict=True):
        if wanted not in (None, got):
            raise ValueError(
                f"Array with wrong {which} dimension passed to NMF (input {name}). Expected {wanted}, but got {got}."
            )
    check_non_negative(factor, f"NMF (input {name})")
    if not factor.any():
        raise ValueError(f"Array passed to NMF (input {name}) is full of zeros.")
    # Lists and tables have no dtype of their own.
    if hasattr(given, "dtype") and factor.dtype.newbyteorder("=") != dtype:
        raise DtypeError(
            f"H and W should have the same dtype as X, {dtype}, but {name} has {factor.dtype}; convert it: "
            f"{name}.astype('{dtype}')"
        )
    return factor.astype(dtype, copy=False)


@contextmanager
def their_warnings() -> Iterator[None]:
    """Our ConvergenceWarning as scikit-learn's."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    for warning in seen:
        ours = issubclass(warning.category, decomposition.ConvergenceWarning)
        warnings.warn(
            str(warning.message), ConvergenceWarning if ours else warning.category, stacklevel=level_of_caller()
        )


def level_of_caller() -> int:
    """The `stacklevel` of a warning that points at the user's line, beyond this package and scikit-learn's wrappers."""
    level, frame = 1, sys._getframe(1)
    inner = {"deepnmf_jax", "sklearn", "contextlib"}
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in inner:
        level, frame = level + 1, frame.f_back
    return level
