"""What scikit-learn's protocol asks for that needs no scikit-learn: methods that are there or not, errors."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any


class DtypeError(TypeError, ValueError):
    """A start of another dtype than the data: a TypeError for scikit-learn, a ValueError as all our refusals."""


class UnavailableError(AttributeError, ValueError):
    """A method that the arguments of the constructor rule out; for `hasattr`, a method that is not there."""


class AvailableIf:
    """Decorator of a method that is there if check(model) raises no ValueError.

    As scikit-learn's `available_if`, but the error (`UnavailableError`) says why the method is not there.
    """

    def __init__(self, check: Callable[[Any], None]) -> None:
        self.check = check

    def __call__(self, method: Callable) -> Any:
        """The method, guarded."""
        self.method = method
        return update_wrapper(self, method)

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        if model is not None:
            try:
                self.check(model)
            except ValueError as error:
                raise UnavailableError(f"{type(model).__name__}.{self.method.__name__}: {error}") from None
        return self.method.__get__(model, owner)
