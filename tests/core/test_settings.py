"""The settings of the inference are written out in four places, for those who read there: all say the same."""

import inspect
import typing

import pytest

from configs import base
from deepnmf_jax import NMFConv, NMFDense, NMFPool, infer
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.layers.fields import InferenceFields
from deepnmf_jax.models import Network

NAMES, DEFAULTS, TYPES = list(Settings._fields), Settings._field_defaults, typing.get_type_hints(Settings)


def test_arguments_of_infer():
    arguments = inspect.signature(infer).parameters
    assert list(arguments) == ["x", "w", *NAMES]
    assert {name: arguments[name].default for name in NAMES} == DEFAULTS
    assert {name: arguments[name].annotation for name in NAMES} == TYPES


def test_fields_of_modules():
    assert {k: v for k, v in InferenceFields.__annotations__.items() if k in NAMES} == TYPES
    assert [name for name in InferenceFields.__annotations__ if name in NAMES] == NAMES
    assert InferenceFields().inference == Settings()
    changed = {"num_iters": 3, "gradient": "scaled", "products": "tf32", "acceleration": "multistep", "exponent": 2.0}
    assert InferenceFields(**changed).inference == Settings(**changed)


@pytest.mark.parametrize("module", [NMFConv, NMFDense, NMFPool, Network])
def test_no_module_has_defaults_of_its_own(module):
    fields = inspect.signature(module).parameters
    assert {name: fields[name].default for name in NAMES} == DEFAULTS


def test_keys_of_the_configs():
    model = base.get_config().model.to_dict()
    places = [inspect.getsource(base).index(f'"{name}": ') for name in NAMES]
    assert places == sorted(places)
    assert {name: model[name] for name in NAMES} == DEFAULTS


@pytest.mark.parametrize("name", NAMES)
def test_each_is_explained(name):
    # Python 3.13 takes the indentation away, earlier ones keep it.
    for docstring in (infer.__doc__, InferenceFields.__doc__):
        assert f"\n    {name}: " in inspect.cleandoc(docstring)
