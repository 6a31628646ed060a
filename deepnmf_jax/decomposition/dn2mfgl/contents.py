"""What a saved `Dn2MFGL` holds: out of a fitted estimator, and checked into a new one."""

from typing import Any

import numpy as np

from deepnmf_jax.core.checks import check_choice
from deepnmf_jax.decomposition.dn2mfgl.arguments import check_arguments
from deepnmf_jax.decomposition.dn2mfgl.boundedness import STATUSES, Boundedness
from deepnmf_jax.decomposition.dn2mfgl.strengths import Choice
from deepnmf_jax.decomposition.io.saving import Kind, check_arrays, check_report

# Arrays beside the dictionaries: m features, n samples, r codes, c clusters, h looks at the objective, s seeds.
KINDS = {
    "components_": Kind("rm", nonnegative=True),
    "embedding_": Kind("nr", nonnegative=True),
    "labels_": Kind("n", nonnegative=True, whole=True),
    "cluster_centers_": Kind("cr", nonnegative=True),
    "loss_history_": Kind("h", finite=False),
    "losses_": Kind("s", finite=False),
    "_feature_weights": Kind("m", nonnegative=True),
}
OF_CLUSTERS = ("labels_", "cluster_centers_")


def contents_of(model: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Arguments, numbers and arrays of a fitted estimator, as `io.saving.write` takes them.

    Raises:
        ValueError: an argument outside what it allows, or one that lengths of the arrays follow from and that is not
            that of the fit any more: `fill` would take the file for a damaged one.
    """
    arguments = check_arguments(model.get_params())
    fitted: dict[str, Any] = {"layer_sizes": tuple(h.shape[1] for h in model.dictionaries_)}
    if arguments["n_clusters"] is not None:
        fitted["n_clusters"] = len(model.cluster_centers_) if hasattr(model, "cluster_centers_") else None
    for name, value in fitted.items():
        if arguments[name] != value:
            raise ValueError(
                f"{name} = {arguments[name]} was set after the fit, which had {value}; call fit again, or "
                f"set_params({name}={value})"
            )
    numbers = {
        "choice": list(model.choice_),
        "certificate": [model.certificate_.status, model.certificate_.reason, model.certificate_.value],
        "n_iter": model.n_iter_,
        "converged": model.converged_,
    }
    stored = {f"H{i}": h for i, h in enumerate(model.dictionaries_)}
    stored |= {name: np.asarray(getattr(model, name)) for name in KINDS if hasattr(model, name)}
    return arguments | {"layer_weights": model.layer_weights}, numbers, stored


def fill(model: Any, numbers: dict[str, Any], stored: dict[str, np.ndarray]) -> None:
    """Give a new estimator what `contents_of` took out of a fitted one.

    Raises:
        ValueError: arguments, numbers or arrays that no fit has. KeyError, TypeError: some are missing.
    """
    given = check_arguments(model.get_params())
    sizes, clusters = given["layer_sizes"], given["n_clusters"]
    # The axes of H_1 are "m0", of H_2 "01", ...
    dictionaries = {f"H{i}": Kind(f"{'m' if i == 0 else i - 1}{i}", nonnegative=True) for i in range(len(sizes))}
    lengths = {str(i): size for i, size in enumerate(sizes)} | {"r": sizes[-1]}
    check_arrays(stored, dictionaries | KINDS, lengths if clusters is None else lengths | {"c": clusters})
    check_report(numbers)
    model.dictionaries_ = [stored[name] for name in dictionaries]
    for name in KINDS:
        if clusters is not None or name not in OF_CLUSTERS:
            setattr(model, name, stored[name])
    model.choice_ = Choice(*numbers["choice"])
    status, reason, value = numbers["certificate"]
    check_choice("status", status, STATUSES)
    model.certificate_, model.boundedness_ = Boundedness(status, reason, None, value), status
    model.n_iter_, model.converged_ = numbers["n_iter"], numbers["converged"]
    model.n_features_in_ = model.components_.shape[1]
