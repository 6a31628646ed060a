"""What the estimators share: arguments, arrays in and out, decoding, saving. The mathematics is elsewhere."""

import inspect
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.core.checks import check_choice, check_flag, check_integer, check_number, check_seed, is_concrete
from deepnmf_jax.decomposition.io import arrays, saving
from deepnmf_jax.decomposition.io.checked import Data, read_data, read_traced
from deepnmf_jax.decomposition.io.units import are_far, divided, least_unit, multiplied
from deepnmf_jax.decomposition.updates.starts import mean_of, random_factor

# Sweeps of fit and encode where nobody says how many, as in overcomplete.
FIT_LIMIT, ENCODE_LIMIT = 500, 300


class ConvergenceWarning(UserWarning):
    """The limit of iterations stopped a fit before its tolerance did."""


class NotFittedError(ValueError, AttributeError):
    """Something was asked of an estimator that needs `fit` first."""


def warn_of_the_limit(name: str, n_iter: int, tol: float, stacklevel: int) -> None:
    """ConvergenceWarning that `max_iter` ended the fit of the estimator `name`."""
    warnings.warn(
        f"{name} stopped after max_iter = {n_iter} sweeps before it reached tol = {tol:g}; "
        "raise max_iter, or tol if the objective in loss_history_ hardly falls any more",
        ConvergenceWarning,
        stacklevel=stacklevel,
    )


class Estimator:
    """Dictionary learning A ~ Z D: codes Z (n, k), dictionary D (k, p). Base of NMF, SemiNMF, ConvexNMF, ...

    Attributes:
        nb_concepts: k; `n_components` is the same number.
        D: the dictionary (k, p), of the kind of array given to `fit`; None before.
        converged_: whether the tolerance ended the fit.
        n_iter_: sweeps made.
        loss_history_: objective at the start and after every tenth sweep, as numpy; of batches one entry an epoch, none
            for the start.
        reconstruction_err_: ||A - Z D||_F, for other divergences the root of twice the divergence.
    """

    solvers: tuple[str, ...] = ()
    # Arrays that a saved file holds beside the constructor's arguments and the report.
    saved_arrays: Mapping[str, saving.Kind] = {"_d": saving.Kind("kp")}
    # Arguments that are matrices, which it holds as arrays too.
    saved_arguments: tuple[str, ...] = ()

    def __init__(
        self,
        nb_concepts: int | None,
        n_components: int | None,
        *,
        solver: str,
        device: Any,
        tol: float,
        verbose: bool,
        max_iter: int | None,
        random_state: int,
        dtype: str | None,
    ) -> None:
        if (nb_concepts is None) == (n_components is None):
            raise ValueError("say nb_concepts, the number of concepts, once (n_components is another name for it)")
        self.nb_concepts = check_integer("nb_concepts", n_components if nb_concepts is None else nb_concepts, 1)
        self.solver = check_choice("solver", solver, self.solvers)
        self.device, self.tol = arrays.check_device(device), check_number("tol", tol, 0)
        self.verbose = check_flag("verbose", verbose)
        self.max_iter = None if max_iter is None else check_integer("max_iter", max_iter, 1)
        self.random_state = check_seed("random_state", random_state)
        self.dtype = check_choice("dtype", dtype, (None, *arrays.DTYPES))
        self._forget()

    def _forget(self) -> None:
        self._d: Array | None = None
        self._scale = 1.0
        self._kind, self._like = "numpy", None
        self._forget_reports()

    def _forget_reports(self) -> None:
        self.converged_: bool | None = None
        self.n_iter_: int | None = None
        self.loss_history_: np.ndarray | None = None
        self.reconstruction_err_: float | None = None

    @property
    def n_components(self) -> int:
        """Another name of `nb_concepts`."""
        return self.nb_concepts

    @property
    def fitted(self) -> bool:
        """Whether there is a dictionary."""
        return self._d is not None

    @property
    def D(self) -> Any:
        """Dictionary (k, p), of the kind of array given to `fit`; None before a fit."""
        return None if self._d is None else self._restore(self._d)

    def _dictionary(self) -> Array:
        """The dictionary, for work on it. NotFittedError (a ValueError) without one."""
        if self._d is None:
            raise NotFittedError(f"this {type(self).__name__} has no dictionary yet; call fit first")
        return self._d

    def _dictionary_unit(self, scale: float | None = None) -> float:
        """What the dictionary of data divided by `scale` is multiplied with; None: of the data of the fit."""
        return math.sqrt(self._scale if scale is None else scale)

    def _codes_unit(self, data: Data) -> float:
        """What codes of scaled data for the scaled dictionary are multiplied with.

        Raises:
            ValueError: the dtype of the dictionary does not hold codes of that size.
        """
        unit = data.scale / self._dictionary_unit()
        dtype = self._dictionary().dtype
        if not least_unit(dtype) <= unit <= 1 / least_unit(dtype):
            raise ValueError(
                f"A has entries of the size of {data.unit:.0e}, the data of the fit had {self._scale:.0e}: {dtype} "
                f"does not hold the codes; divide A by {data.unit / self._scale:.0e}"
            )
        return unit

    def _read(self, a: Any, dtype: np.dtype, **more: Any) -> Data:
        raise NotImplementedError

    def _read_near(self, a: Any, dtype: np.dtype, **more: Any) -> Data:
        """A in the unit of the fit, or in its own where that is far."""
        data = self._read(a, dtype, scale=self._scale, **more)
        return self._read(a, dtype, **more) if not data.zero and are_far(data.unit, self._scale) else data

    def _restore(self, x: Array, kind: str | None = None, like: Any = None) -> Any:
        return arrays.restore(x, kind or self._kind, self._like if like is None else like)

    def _read_traced(self, A: Any, weights: Any = None, mask: Any = None) -> tuple[Array | BCOO, Array | None, Array]:
        """`read_traced` of A (n, p) and its weights, and the dictionary, in the dtype that JAX traces in."""
        d = self._dictionary()
        dtype = jax.dtypes.canonicalize_dtype(d.dtype)
        if not least_unit(dtype) <= self._scale <= float(jnp.finfo(dtype).max):
            raise ValueError(
                f"the data of the fit has entries of the size of {self._scale:.0e}, which compiled code in {dtype} "
                f"cannot hold; divide the data by {self._scale:.0e} before the fit, or call this outside of jax.jit, "
                "grad and vmap"
            )
        # Outside the trace, as a float64 dictionary is none of its dtypes where x64 is off.
        d = jnp.asarray(np.asarray(d, dtype))
        return (*read_traced(A, dtype, d.shape[1], self._scale, weights, mask), d)

    def _begin(self, x: Any, data: Data) -> None:
        """Forget an earlier fit; from here on arrays are of the kind of x, and the unit is that of `data`."""
        self._forget()
        self._kind, self._scale = arrays.kind_of(x), data.scale
        self._like = arrays.empty_like(x) if self._kind == "torch" else None

    def _limit(self, max_iter: int | None, otherwise: int) -> int:
        if max_iter is None:
            return otherwise if self.max_iter is None else self.max_iter
        return check_integer("max_iter", max_iter, 1)

    def _tolerance(self, tol: Any) -> Any:
        if tol is None:
            return self.tol
        return check_number("tol", tol, 0) if is_concrete(tol) else tol

    def _key(self) -> Array:
        return jax.random.key(self.random_state)

    def _report(self, n_iter: int, converged: bool, history: np.ndarray, error: float, stacklevel: int = 4) -> None:
        self.n_iter_, self.converged_, self.loss_history_ = n_iter, converged, history
        self.reconstruction_err_ = error
        if not converged and self.tol > 0:
            warn_of_the_limit(type(self).__name__, n_iter, self.tol, stacklevel + 1)

    def decode(self, Z: Any) -> Any:
        """Reconstruction Z D of codes Z (n, k): (n, p), of the kind of Z.

        Raises:
            ValueError: codes of another width, or no fit before.
        """
        d = self._dictionary()
        with arrays.with_precision(d.dtype):
            codes = arrays.to_dense(self._checked_codes(Z), d.dtype)
            # Near the smallest number of the dtype neither D nor the product may be taken for 0.
            unit = self._scale if self._scale < least_unit(d.dtype) else 1.0
            root = unit / self._dictionary_unit() if unit != 1 else 1.0
            product = jnp.matmul(codes / root, cast(Array, divided(d, unit / root)), precision="highest")
            return self._restore(multiplied(product, unit), arrays.kind_of(Z), Z)

    def _checked_codes(self, z: Any) -> Any:
        shape = np.shape(z) if not hasattr(z, "shape") else tuple(z.shape)
        if len(shape) != 2 or shape[1] != self.nb_concepts:
            raise ValueError(f"Z has shape {shape}; it must be (n_samples, {self.nb_concepts}), one column a concept")
        return z

    def get_dictionary(self) -> Any:
        """The dictionary D (k, p), of the kind of array given to `fit`. ValueError before a fit."""
        return self._restore(self._dictionary())

    def sanitize_np_input(self, x: Any) -> np.ndarray:
        """x (a matrix of any kind, or an iterable of batches, put together) as a float32 numpy array (n, p)."""
        result = arrays.to_numpy(x)
        if result.ndim != 2:
            raise ValueError(f"A has shape {result.shape}; it must be a matrix (n_samples, n_features)")
        return result

    def sanitize_np_codes(self, z: Any) -> np.ndarray:
        """Codes of any kind as a float32 numpy array (n, k). ValueError for another width."""
        return self._checked_codes(arrays.to_numpy(z))

    def init_random_z(self, A: Any, key: Array | None = None) -> Any:
        """Random codes (n, k), |N(0, 1)| sqrt(mean(A) / k), of the kind and dtype of A; `random_state` seeds them."""
        return self._random_start(A, 0, key)

    def init_random_d(self, A: Any, key: Array | None = None) -> Any:
        """Random dictionary (k, p), |N(0, 1)| sqrt(mean(A) / k), of the kind and dtype of A; seeded as the codes."""
        return self._random_start(A, 1, key)

    def _random_start(self, a: Any, axis: int, key: Array | None) -> Any:
        dtype = arrays.dtype_for(a, self.dtype)
        with arrays.with_precision(dtype):
            data = read_data(a, dtype, nonnegative=False)
            array = data.a
            key = jax.random.split(self._key() if key is None else key)[axis]
            factor = math.sqrt(data.scale) * random_factor(
                key, mean_of(abs(array) if isinstance(array, Array) else array), (self.nb_concepts, array.shape[axis])
            )
            return self._restore(factor.T if axis == 0 else factor, arrays.kind_of(a), a)

    def to(self, device: Any) -> Self:
        """The same estimator, all it holds on another device ("cpu", "gpu", "cuda:1", a device of JAX or torch).

        Raises:
            ValueError: what names no device. One that is not here is refused when there is a dictionary to move, or
                else by `fit`.
        """
        device = arrays.check_device(device)
        moved: dict[str, Any] = {"device": device}
        for name, value in self._arrays().items():
            with arrays.with_precision(value.dtype):
                moved[name] = jax.device_put(value, arrays.device_of(device))
        vars(self).update(moved)
        return self

    def _arrays(self) -> dict[str, Array]:
        """The arrays of JAX, by the names of their attributes."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Array)}

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, from which the same unfitted estimator can be made."""
        names = inspect.signature(type(self)).parameters.keys() - {"n_components"}
        return {name: getattr(self, name) for name in sorted(names)}

    def __getstate__(self) -> dict[str, Any]:
        """What pickle, joblib and deepcopy keep: arrays as numpy ones, since JAX would make float32 of float64."""
        held = {name: np.asarray(value) for name, value in self._arrays().items()}
        return vars(self) | held | {"device": arrays.name_of(self.device), "_held": tuple(held)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        for name in state.pop("_held", ()):
            with arrays.with_precision(state[name].dtype):
                state[name] = jnp.asarray(state[name])
        vars(self).update(state)

    def save(self, path: str | os.PathLike) -> None:
        """Write arguments, dictionary, sums of batches, `n_iter_`, `converged_`, `loss_history_` and
        `reconstruction_err_` to one .npz file, without pickle; `load` reads it again."""
        numbers = {
            "scale": self._scale,
            "kind": self._kind,
            "converged": self.converged_,
            "n_iter": self.n_iter_,
            "reconstruction_err": self.reconstruction_err_,
        }
        held = {name: getattr(self, name) for name in self.saved_arrays}
        held["loss_history_"] = self.loss_history_
        stored = {name: np.asarray(value) for name, value in held.items() if value is not None}
        arguments = self.arguments() | {"device": arrays.name_of(self.device)}
        given = [name for name in self.saved_arguments if arguments[name] is not None]
        stored |= {name: arguments.pop(name) for name in given}
        saving.write(path, type(self).__name__, arguments, numbers, stored)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """The estimator that `save` wrote.

        Raises:
            OSError: there is no such file.
            ValueError: a file of another class, version or shape; a damaged file; values that no fit has.
        """
        arguments, numbers, stored = saving.read(path, cls.__name__)
        with saving.named_errors(path):
            arguments |= {name: stored.pop(name) for name in cls.saved_arguments if name in stored}
            model = cls(**arguments)
            kinds = {**cls.saved_arrays, "loss_history_": saving.Kind("h", finite=False)}
            saving.check_arrays(stored, kinds, {"k": model.nb_concepts})
            saving.check_report(numbers)
            for name in cls.saved_arrays.keys() & stored.keys():
                with arrays.with_precision(stored[name].dtype):
                    setattr(model, name, jnp.asarray(stored[name]))
            model._scale = check_number("scale", numbers["scale"], 0, above=True)
            model._kind = check_choice("kind", numbers["kind"], ("numpy", "jax", "torch"))
            model.converged_, model.n_iter_ = numbers["converged"], numbers["n_iter"]
            model.reconstruction_err_ = numbers["reconstruction_err"]
            model.loss_history_ = stored.get("loss_history_")
        return model
