"""Pictures of concepts: the right images in the right places."""

import numpy as np
import pytest

from deepnmf_jax.decomposition import pictures

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
