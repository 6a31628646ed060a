"""Pictures of concepts: the right images in the right places."""

import numpy as np
import pytest

from deepnmf_jax.decomposition import NMF, Consensus, Replicates, Stability, pictures
from deepnmf_jax.decomposition.metrics import cosines

CODES = np.array([[0.0, 3.0], [2.0, 1.0], [1.0, 2.0], [5.0, 0.0]])


def test_the_most_active_come_first() -> None:
    np.testing.assert_array_equal(pictures.most_active(CODES, 3), [[3, 1, 2], [0, 2, 1]])
    for codes, count in ((CODES[0], 1), (CODES, 5), (CODES, 0)):
        with pytest.raises(ValueError, match="codes must be"):
            pictures.most_active(codes, count)


def test_places_and_patches_are_those_of_the_largest_code() -> None:
    rng = np.random.default_rng(0)
    codes, images = rng.random((5, 3, 4, 2)), rng.random((5, 12, 14, 3))
    largest, places = pictures.strongest_places(codes)
    patches = pictures.patches_at(images[:, None].repeat(2, axis=1), places, 6, 2)
    assert patches.shape == (5, 2, 6, 6, 3)
    for i in range(5):
        for j in range(2):
            row, column = places[i, j]
            assert codes[i, row, column, j] == largest[i, j] == codes[i, :, :, j].max()
            window = images[i, 2 * row : 2 * row + 6, 2 * column : 2 * column + 6]
            np.testing.assert_array_equal(patches[i, j], window)
    with pytest.raises(ValueError, match="codes must be"):
        pictures.strongest_places(CODES)


def shown(figure: object) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]  # type: ignore[attr-defined]


def test_concepts_are_drawn_in_their_order_each_to_its_own_maximum() -> None:
    concepts = np.random.default_rng(0).random((5, 6))
    concepts[3] = 0
    drawn = shown(pictures.draw_concepts(concepts, (2, 3)))
    assert len(drawn) == 5
    for image, concept in zip(drawn, concepts, strict=True):
        np.testing.assert_allclose(image, concept.reshape(2, 3) / (concept.max() or 1))
    with pytest.raises(ValueError, match="concepts must be"):
        pictures.draw_concepts(concepts, (2, 4))


def test_users_are_drawn_beside_their_concept() -> None:
    rng = np.random.default_rng(1)
    images, concepts = rng.random((3, 4, 5, 5, 1)), rng.random((3, 25))
    figure = pictures.draw_users(images, concepts, (5, 5), names=[4, 8, 9])
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["4", "8", "9"]
    drawn = shown(figure)
    assert len(drawn) == 3 * 5
    np.testing.assert_allclose(drawn[5], concepts[1].reshape(5, 5) / concepts[1].max())
    np.testing.assert_allclose(drawn[7], images[1, 1, ..., 0] / images[1, 1].max())
    assert len(shown(pictures.draw_users(images[..., 0]))) == 12
    with pytest.raises(ValueError, match="images must be"):
        pictures.draw_users(images[0, 0])


def test_heat_lies_where_the_concept_is() -> None:
    rng = np.random.default_rng(2)
    images, maps = rng.random((4, 12, 12, 1)), rng.random((4, 3, 3, 5))
    figure = pictures.draw_heatmaps(images, maps, [[3, 1], [0, 2]], concepts=[4, 1], size=6, stride=3)
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["4", "1"]
    axes = figure.axes[1]
    image, heat = axes.images
    np.testing.assert_allclose(image.get_array(), images[1, ..., 0] / images[1].max())
    row = maps[[3, 1], :, :, 4]
    np.testing.assert_allclose(np.asarray(heat.get_array())[..., 3], 0.75 * row[1] / row.max())
    # The windows of 6 pixels begin at 0, 3 and 6, so their middles are at 3, 6 and 9.
    assert list(heat.get_extent()) == [1.5, 10.5, 10.5, 1.5] and axes.get_xlim() == (0, 12)
    whole = pictures.draw_heatmaps(images[..., 0], maps, [[0]])
    assert list(whole.axes[0].images[1].get_extent()) == [0, 12, 12, 0]
    for broken in ((images, maps[:2], [[0]]), (images, maps[0], [[0]]), (images, maps, [0])):
        with pytest.raises(ValueError, match=r"images are|users are"):
            pictures.draw_heatmaps(*broken)
    with pytest.raises(ValueError, match="of 5"):
        pictures.draw_heatmaps(images, maps, [[0]], [5])


def made(error: float, silhouettes: list[float], *, keep: bool = True) -> Consensus:
    rng = np.random.default_rng(0)
    k = len(silhouettes)
    kept = np.ones((3, k), bool)
    kept[0, 0] = False
    density = rng.random((3, k))
    density[0, 0] = np.inf
    labels = np.tile(np.arange(k), (3, 1))
    replicates = Replicates(rng.random((3, 4, k)), rng.random((3, k, 6))) if keep else None
    numbers = error, np.array(silhouettes), float(np.mean(silhouettes)), 0.9, labels, kept, density
    return Consensus(None, None, NMF(k), *numbers, np.full(3, error), np.ones(3, bool), replicates)


def test_stability_is_drawn_against_the_number_of_components() -> None:
    stability = Stability(3, np.array([2, 3]), (made(5.0, [0.8, 0.6]), made(2.0, [0.9, 0.7, 0.5])))
    left, right = pictures.draw_stability(stability).axes
    mean, least, cophenetic, line = left.lines
    np.testing.assert_allclose(mean.get_ydata(), [0.7, 0.7])
    np.testing.assert_allclose(least.get_ydata(), [0.6, 0.5])
    np.testing.assert_allclose(cophenetic.get_ydata(), [0.9, 0.9])
    assert list(line.get_xdata()) == [3, 3] and list(right.lines[0].get_ydata()) == [5, 2]


def test_components_are_drawn_by_cluster_the_dropped_ones_last() -> None:
    found = made(1.0, [0.9, 0.8])
    axes = pictures.draw_agreement(found).axes
    drawn = np.asarray(axes[0].images[0].get_array())
    assert found.replicates is not None
    rows = found.replicates.dictionaries.reshape(6, 6)[[2, 4, 1, 3, 5, 0]]
    np.testing.assert_allclose(drawn, cosines(rows, rows))
    assert len(np.asarray(pictures.draw_agreement(found, most=3).axes[0].images[0].get_array())) == 3
    with pytest.raises(ValueError, match="keep=True"):
        pictures.draw_agreement(made(1.0, [0.9], keep=False))
