"""Networks kept as files: what is written is read, what is damaged is refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import load_pretrained, models, pretrained_names
from deepnmf_jax.models import pretrained
from deepnmf_jax.models.retired import drop_retired

SETTINGS = {"layer": "nmf", "mixing": True, "features": [6, 5, 8], "groups": [1], "num_iters": 2}
SHAPE = (12, 12, 3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written")
    model = models.Network(num_classes=4, **{k: tuple(v) if isinstance(v, list) else v for k, v in SETTINGS.items()})
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    pretrained.write_network(path, SETTINGS, 4, SHAPE, variables)
    (path / "results.json").write_text(json.dumps({"test_accuracy": 0.5}))
    return path


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "net")


@pytest.mark.slow
def test_what_is_written_is_read(folder):
    found = pretrained.read_network(folder)
    images = jax.random.uniform(jax.random.key(1), (2, *SHAPE))
    variables = jax.jit(found.model.init)(jax.random.key(0), images)
    for a, b in zip(jax.tree.leaves(found.variables), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(a, b)
    logits = jax.jit(found.model.apply)
    np.testing.assert_array_equal(logits(found.variables, images), logits(variables, images))
    assert found.image_shape == SHAPE and found.results == {"test_accuracy": 0.5}
    assert hash(found.model) is not None


def test_writing_twice_gives_the_same_bytes(folder, tmp_path):
    found = pretrained.read_network(folder)
    pretrained.write_network(tmp_path / "again", SETTINGS, 4, SHAPE, found.variables)
    for name in (pretrained.ARRAYS, pretrained.DESCRIPTION):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("name", [pretrained.ARRAYS, pretrained.DESCRIPTION, "results.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"cannot be read.*{name}"):
        pretrained.read_network(folder)


def test_one_changed_byte_is_noticed(folder):
    content = bytearray((folder / pretrained.ARRAYS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / pretrained.ARRAYS).write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256 .* expected"):
        pretrained.read_network(folder)


@pytest.mark.parametrize("text", ["[1, 2]", '{"model": []}', "[" * 100_000, '{"sha256": 1}', "\x00"])
def test_a_damaged_description_is_one_sentence(folder, text):
    (folder / pretrained.DESCRIPTION).write_text(text)
    with pytest.raises(ValueError, match="cannot be read"):
        pretrained.read_network(folder)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no pretrained network 'resnet'"):
        load_pretrained("resnet")


@pytest.mark.parametrize("name", pretrained_names())
def test_the_networks_of_the_package(name):
    """Each is small, complete, without pickle, finite, and has its recorded settings and number of parameters."""
    found = load_pretrained(name)
    folder = Path(pretrained.__file__).parents[1] / "pretrained" / name
    assert {f.name for f in folder.iterdir()} == {"network.json", "variables.npz", "results.json", "metrics.jsonl"}
    assert sum(f.stat().st_size for f in folder.iterdir()) < 2e6
    assert sum(a.size for a in jax.tree.leaves(found.variables["params"])) == found.results["parameters"]
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found.variables))
    logits = jax.eval_shape(found.model.apply, found.variables, jnp.zeros((2, *found.image_shape)))
    assert logits.shape == (2, found.model.num_classes)
    for field, value in drop_retired(found.results["config"])["model"].items():
        ours = getattr(found.model, field)
        assert (list(ours) if isinstance(ours, tuple) else ours) == value


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained_names())
def test_their_logits_are_finite_and_tell_images_apart(name):
    found = load_pretrained(name)
    images = jax.random.uniform(jax.random.key(0), (2, *found.image_shape))
    logits = jax.jit(found.model.apply)(found.variables, images)
    assert bool(jnp.isfinite(logits).all()) and float(jnp.abs(logits[0] - logits[1]).max()) > 0.1
