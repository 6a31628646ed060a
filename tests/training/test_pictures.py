"""Pictures: what is drawn is what was measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from deepnmf_jax.training import pictures

RECORDS: list[dict[str, Any]] = [
    {"step": 10, "epoch": 1, "train_loss": 3.0, "train_accuracy": 0.5, "validation_accuracy": 0.4},
    {"step": 20, "epoch": 2, "train_loss": 2.0, "train_accuracy": 0.75, "validation_accuracy": None},
    {"step": 30, "epoch": 3, "train_loss": 1.0, "train_accuracy": 0.8, "test_accuracy": 0.7},
]


def lines_of(figure: Figure) -> list[dict[str, tuple[list[float], list[float]]]]:
    return [
        {str(line.get_label()): tuple(np.asarray(line.get_xydata()).T.tolist()) for line in axes.lines}
        for axes in figure.axes
    ]


class TestLearningCurves:
    def test_lines_are_the_records(self) -> None:
        figure = pictures.draw_learning_curves(RECORDS)
        assert lines_of(figure) == [
            {"train": ([1, 2, 3], [3.0, 2.0, 1.0])},
            {"train": ([1, 2, 3], [50.0, 75.0, 80.0]), "validation": ([1], [40.0]), "test": ([3], [70.0])},
        ]
        assert [(axes.get_ylabel(), axes.get_xlabel()) for axes in figure.axes] == [
            ("loss, nats", "epoch"),
            ("accuracy, %", "epoch"),
        ]
        (legend,) = figure.legends  # below the axes, over no data
        assert [text.get_text() for text in legend.get_texts()] == ["train", "validation", "test"]
        assert all(axes.get_legend() is None for axes in figure.axes)

    def test_seeds_trained_together_have_a_band(self) -> None:
        spread = {"train_loss_by_seed": [1.0, 2.5, 4.0], "train_accuracy_by_seed": [0.5, 0.6, 0.7]}
        figure = pictures.draw_learning_curves([{**record, **spread} for record in RECORDS[:2]])
        for axes, (low, high) in zip(figure.axes, ((1, 4), (50, 70)), strict=True):
            (band,) = axes.collections
            heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
            assert (heights.min(), heights.max()) == pytest.approx((low, high))
        assert "3 seeds" in figure.get_suptitle()

    def test_steps_where_there_are_no_epochs(self) -> None:
        figure = pictures.draw_learning_curves([{"step": 7, "train_loss": 1.5}])
        assert lines_of(figure) == [{"train": ([7], [1.5])}, {}]
        assert figure.axes[0].get_xlabel() == "step"
        assert figure.axes[0].lines[0].get_marker() == "o"

    def test_no_records(self) -> None:
        with pytest.raises(ValueError, match="at least one metrics record"):
            pictures.draw_learning_curves([])


class TestFirstLayerParts:
    def images(self, w: np.ndarray, patch_shape: tuple[int, int, int]) -> list[np.ndarray]:
        figure = pictures.draw_first_layer_parts(w, patch_shape)
        return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]

    def test_colour(self) -> None:
        w = np.random.default_rng(0).random((7, 2 * 3 * 3), np.float32)
        w[4] = 0
        images = self.images(w, (2, 3, 3))
        assert len(images) == 7
        for row, image in zip(w, images, strict=True):
            np.testing.assert_allclose(image, row.reshape(2, 3, 3) / (row.max() or 1), rtol=1e-6)

    @pytest.mark.parametrize("channels", [1, 2, 4])
    def test_grey(self, channels: int) -> None:
        w = np.random.default_rng(0).random((3, 4 * channels), np.float32)
        for row, image in zip(w, self.images(w, (2, 2, channels)), strict=True):
            mean = row.reshape(2, 2, channels).mean(-1)
            np.testing.assert_allclose(image, mean / mean.max(), rtol=1e-6)

    def test_raw_weights_show_their_absolute_values(self) -> None:
        (image,) = self.images(np.asarray([[-2.0, 1.0, 0.0, 0.5]]), (2, 2, 1))
        np.testing.assert_allclose(image, [[1, 0.5], [0, 0.25]])

    @pytest.mark.parametrize("k", [1, 2, 7, 32])
    def test_each_row_has_one_place(self, k: int) -> None:
        figure = pictures.draw_first_layer_parts(np.ones((k, 4)), (2, 2, 1))
        shown = [len(axes.images) for axes in figure.axes]
        assert shown == [1] * k + [0] * (len(shown) - k)
        assert len(shown) - k < np.ceil(np.sqrt(1.6 * k))

    @pytest.mark.parametrize("shape", [(3, 13), (12,), (0, 12)])
    def test_wrong_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"w must be \(k, height \* width \* channels\)"):
            pictures.draw_first_layer_parts(np.ones(shape), (2, 2, 3))


class TestConfusionMatrix:
    labels = np.asarray([0, 0, 0, 0, 1, 1, 2], np.int32)
    predictions = np.asarray([0, 0, 0, 1, 1, 1, 0])

    def test_content(self) -> None:
        axes = pictures.draw_confusion_matrix(self.labels, self.predictions, ["a", "bird", "c", "d"]).axes[0]
        percent = np.asarray([[75, 25, 0, 0], [0, 100, 0, 0], [100, 0, 0, 0], [0, 0, 0, 0]])
        np.testing.assert_allclose(100 * np.asarray(axes.images[0].get_array()) ** 2, percent, atol=1e-9)
        written = {text.get_position(): text.get_text() for text in axes.texts}
        assert written == {(0, 0): "75", (1, 0): "25", (1, 1): "100", (0, 2): "100"}
        assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "bird", "c", "d"]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "bird", "c", "d"]
        assert axes.get_title() == "accuracy 71.43 % of 7 images"
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")

    @pytest.mark.parametrize(("classes", "names"), [(100, 100), (300, 100)])
    def test_names_of_many_classes_stay_apart(self, classes: int, names: int) -> None:
        labels = np.arange(classes)
        figure = pictures.draw_confusion_matrix(labels, labels, [f"class {i}" for i in labels])
        axes = figure.axes[0]
        assert len(axes.texts) == 0
        ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        assert [text.get_text() for _, text in ticks] == [f"class {i}" for i in axes.get_xticks()]
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert len(boxes) == names
        heights = -np.diff([(box.y0 + box.y1) / 2 for box in boxes])
        # Letters take about seven tenths of their box.
        assert heights.min() > 0.7 * boxes[0].height and boxes[0].height > 6

    def test_more_classes_than_squares(self) -> None:
        """Neighbours share a square, and the accuracy is still that of single classes."""
        classes = 100_000
        labels = np.asarray([0, 1, 5, classes - 1])
        names = [str(i) for i in range(classes)]
        axes = pictures.draw_confusion_matrix(labels, np.asarray([0, 0, 500, classes - 1]), names).axes[0]
        shares = np.asarray(axes.images[0].get_array()) ** 2
        assert shares.shape == (1000, 1000)
        np.testing.assert_allclose([shares[0, 0], shares[0, 5], shares[-1, -1]], [2 / 3, 1 / 3, 1])
        assert axes.get_title() == "accuracy 50.00 % of 4 images"
        assert axes.get_ylabel() == "true class, 100 in a row"
        assert axes.get_yticklabels()[-1].get_text() == "99000"

    def test_names_are_no_formulas_and_not_endless(self, tmp_path: Path) -> None:
        names = ["$100 and $x^", "a$\\b{", "x" * 60]
        path = pictures.confusion_matrix([0, 1, 2], [0, 1, 2], names, tmp_path / "confusion.png")
        assert imread(path)[..., :3].std() > 0.05
        axes = pictures.draw_confusion_matrix([0, 1, 2], [0, 1, 2], names).axes[0]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            assert [label.get_text() for label in labels] == [*names[:2], "x" * 23 + "…"]
            assert not any(label.get_parse_math() for label in labels)

    @pytest.mark.parametrize(
        ("labels", "predictions", "message"),
        [
            ([0, 1], [0], r"two \(N,\) arrays, N >= 1, got \(2,\) and \(1,\)"),
            ([], [], r"N >= 1, got \(0,\)"),
            ([0, 2], [0, 1], r"labels must be integers in \[0, 2\), got int64 from 0 to 2"),
            ([0, 1], [-1, 1], r"predictions must be integers in \[0, 2\), got int64 from -1 to 1"),
            ([0.0, 1.0], [0, 1], r"labels must be integers .* got float64"),
        ],
    )
    def test_bad_arguments(self, labels: list[int], predictions: list[int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            pictures.draw_confusion_matrix(np.asarray(labels), np.asarray(predictions), ["a", "b"])


def test_saved_pictures_are_whole(tmp_path: Path) -> None:
    paths = [
        pictures.learning_curves(RECORDS, tmp_path / "new" / "curves.png"),
        pictures.first_layer_parts(np.random.default_rng(0).random((32, 75)), (5, 5, 3), tmp_path / "parts.png"),
        pictures.confusion_matrix([0, 1, 1], [0, 1, 0], ["a", "b"], tmp_path / "confusion.png"),
    ]
    assert paths == [tmp_path / "new" / "curves.png", tmp_path / "parts.png", tmp_path / "confusion.png"]
    for path in paths:
        image = imread(path)
        assert image[..., :3].std() > 0.05
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["confusion.png", "curves.png", "parts.png"]
