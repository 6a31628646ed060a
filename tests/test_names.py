"""What somebody finds who explores the package in a prompt: names, completion, help, hints."""

import inspect
import pydoc
import rlcompleter
import subprocess
import sys

import pytest

import deepnmf_jax
from deepnmf_jax import models


def test_dir_lists_all_public_names_before_they_are_loaded() -> None:
    script = """
import sys
import deepnmf_jax
assert set(deepnmf_jax.__all__) <= set(dir(deepnmf_jax)), dir(deepnmf_jax)
assert "deepnmf_jax.decomposition" not in sys.modules and "deepnmf_jax.nnx" not in sys.modules
from deepnmf_jax import *
assert NMF.__name__ == "NMF" and Dn2MFGL.__name__ == "Dn2MFGL"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_prompt_completes_the_estimators() -> None:
    completer = rlcompleter.Completer({"deepnmf_jax": deepnmf_jax})
    completer.attr_matches("deepnmf_jax.")
    for start, name in (("Semi", "SemiNMF"), ("NM", "NMF"), ("load_p", "load_pretrained")):
        found = completer.attr_matches(f"deepnmf_jax.{start}")
        assert any(match.startswith(f"deepnmf_jax.{name}") for match in found)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("NFM", "'NMF'"),
        ("nmf", "'NMF'"),
        ("NMFconv", "'NMFConv'"),
        ("SemiNfm", "'SemiNMF'"),
        ("load_pretrain", "'load_pretrained'"),
        ("Archetypal", "'ArchetypalAnalysis'"),
        ("sklearn_", None),
        ("training", "it is a module: import deepnmf_jax.training"),
        ("xyzzy", None),
    ],
)
def test_a_misspelt_name_is_answered_by_the_near_one(
    written: str, meant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(deepnmf_jax, written, raising=False)  # a module that another test has imported
    with pytest.raises(AttributeError, match=f"module 'deepnmf_jax' has no attribute '{written}'") as raised:
        getattr(deepnmf_jax, written)
    said = str(raised.value)
    assert (meant in said) if meant else not said.endswith("?")
    assert not hasattr(deepnmf_jax, "__wrapped__")


@pytest.mark.parametrize("name", ["CNN", "CNMF", "CNN1x1", "CNMF1x1"])
def test_help_is_that_of_the_network(name: str) -> None:
    network = getattr(models, name)
    assert inspect.isclass(network) and issubclass(network, models.Network)
    text = pydoc.plain(pydoc.render_doc(network))
    assert f"class {name}(" in text and "num_classes" in text and "functools.partial" not in text
    assert inspect.getdoc(network).split()[0] in text
