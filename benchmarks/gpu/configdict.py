"""What configs/ and the training use of `ml_collections.ConfigDict`, for machines that do not have that package."""

import sys
import types
from collections.abc import Mapping
from typing import Any


class ConfigDict(dict):
    """Nested settings, read and changed as attributes or as items; new names are refused after the start."""

    def __init__(self, settings: Mapping[str, Any]):
        super().__init__({k: ConfigDict(v) if isinstance(v, Mapping) else v for k, v in settings.items()})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"there is no setting {name!r}; there are {', '.join(self)}") from error

    def __setattr__(self, name: str, value: Any) -> None:
        getattr(self, name)
        self[name] = value

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries."""
        return {k: v.to_dict() if isinstance(v, ConfigDict) else v for k, v in self.items()}


def stand_in() -> None:
    """Makes `from ml_collections import ConfigDict` work where ml_collections is not installed."""
    try:
        import ml_collections  # noqa: F401
    except ImportError:
        module: Any = types.ModuleType("ml_collections")
        module.ConfigDict = ConfigDict
        sys.modules["ml_collections"] = module
