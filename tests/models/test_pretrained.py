"""Networks kept as files: what is written is read, what is damaged is refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deepnmf_jax import load_pretrained, models, pretrained_names
from deepnmf_jax.data.augmentation import center_crop
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
    assert found.class_names == ("0", "1", "2", "3")


LEVELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def test_images_are_prepared_as_evaluation_does():
    found = load_pretrained("cnmf")
    middle = np.asarray(center_crop(jnp.asarray(LEVELS), 28))
    for images in (LEVELS, LEVELS / 255, (LEVELS / 255).astype(np.float32)):
        prepared = found.prepare(images)
        assert prepared.dtype == np.float32
        np.testing.assert_allclose(prepared, middle, rtol=1e-6)
        np.testing.assert_array_equal(found.prepare(images[0]), prepared[:1])
    np.testing.assert_array_equal(found.prepare(middle), middle)
    np.testing.assert_array_equal(found.prepare(Image.fromarray(LEVELS[0])), found.prepare(LEVELS[:1]))
    assert found.prepare(LEVELS[:0]).shape == (0, 28, 28, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            LEVELS[..., 0],
            r"shape \(2, 32, 32\); the network takes \(batch, 28, 28, 3\).*images\[..., None\], 3, axis=-1",
        ),
        (LEVELS[0, :, :, 0], r"shape \(32, 32\).*grey images repeat"),
        (LEVELS[..., :1], r"shape \(2, 32, 32, 1\).*np.repeat\(images, 3, axis=-1\)"),
        (np.moveaxis(LEVELS, -1, 1), r"shape \(2, 3, 32, 32\).*channels first: np.moveaxis\(images, -3, -1\)"),
        (np.moveaxis(LEVELS[0], -1, 0), r"shape \(3, 32, 32\).*channels first"),
        (np.zeros((32, 32, 4), np.uint8), r"shape \(32, 32, 4\).*transparency: images\[..., :3\]"),
        (np.zeros((1, 1, 32, 32, 3), np.uint8), r"shape \(1, 1, 32, 32, 3\)"),
        (np.zeros(3), r"shape \(3,\); the network takes"),
        (np.zeros((480, 640, 3), np.uint8), "480 x 640 pixels; the network takes 28 x 28, .* resize them, to 32 x 32"),
        (np.zeros((20, 28, 3)), "20 x 28 pixels"),
        (LEVELS.astype(np.float32), "range from 0 to 255; give floats in .*divide by 255"),
        (LEVELS / 127.5 - 1, "range from -1 to 1"),
        (np.full((28, 28, 3), np.nan), "range from nan to nan"),
        (LEVELS.astype(np.int32), "dtype int32; give 8-bit images"),
        (LEVELS > 3, "dtype bool"),
        ("frog.jpg", "images are text, 'frog.jpg'; open a file first"),
    ],
)
def test_other_images_are_refused_with_what_to_do(images, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained("cnmf").prepare(images)


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
    assert {f.name for f in folder.iterdir()} == {"network.json", "variables.npz", "results.json"}
    assert sum(f.stat().st_size for f in folder.iterdir()) < 2e6
    assert sum(a.size for a in jax.tree.leaves(found.variables["params"])) == found.results["parameters"]
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found.variables))
    logits = jax.eval_shape(found.model.apply, found.variables, jnp.zeros((2, *found.image_shape)))
    assert logits.shape == (2, found.model.num_classes)
    assert len(set(found.class_names)) == found.model.num_classes
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
