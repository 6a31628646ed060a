"""`non_negative_factorization`, the function."""

import warnings
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_non_negative

from deepnmf_jax.sklearn.checks import FLOATS, level_of_caller, read_factor, readable, their_warnings
from deepnmf_jax.sklearn.nmf import NMF


def non_negative_factorization(
    X: Any,
    W: Any = None,
    H: Any = None,
    n_components: int | str | None = "auto",
    *,
    update_H: bool = True,
    **arguments: Any,
) -> tuple[np.ndarray, np.ndarray, int]:
    """X ~ W H in one call: W (n, k), H (k, p), sweeps.

    Args:
        X: (n, p), non-negative, dense or sparse, as in `NMF.fit`.
        W: with init="custom" the start (n, k).
        H: with init="custom" the start (k, p); with update_H=False what stays as it is.
        n_components: k; "auto": that of a given H, else p.
        update_H: False: only W is found, for the H given.
        **arguments: of `NMF`.

    Raises:
        ValueError: as `NMF.fit_transform`; no H with update_H=False.
        TypeError: (a ValueError too) W or H of another dtype than X.
    """
    model = NMF(n_components, **arguments)
    if update_H:
        codes = model.fit_transform(X, W=W, H=H)
        return codes, model.components_, model.n_iter_
    if H is None:
        raise ValueError("update_H=False finds W for a given H, but H is missing; give H, or update_H=True")
    if W is not None:
        warnings.warn(
            "When update_H=False, the provided initial W is not used.", RuntimeWarning, stacklevel=level_of_caller()
        )
    X = check_array(readable(X), accept_sparse=("csr", "csc"), dtype=FLOATS)
    check_non_negative(X, "NMF (input X)")
    H = read_factor("H", H, (_rows(n_components), X.shape[1]), X.dtype)
    core = model._make_core(len(H)).with_dictionary(H, X)
    with their_warnings():
        return core.encode(X), H, core.max_iter or 1


def _rows(n_components: int | str | None) -> int | None:
    """Of the H that is given; None: any number."""
    return n_components if isinstance(n_components, int) else None
