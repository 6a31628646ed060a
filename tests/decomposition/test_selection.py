"""The choice of k by held-out entries."""

import warnings

import numpy as np
import pytest

from deepnmf_jax.decomposition import ConvergenceWarning, choose_k
from deepnmf_jax.decomposition.selection import held_out, one_standard_error


@pytest.mark.slow
def test_the_true_number_is_found() -> None:
    rng = np.random.default_rng(0)
    z = rng.random((60, 3)) * (rng.random((60, 3)) > 0.3)
    a = z @ (rng.random((3, 20)) * (rng.random((3, 20)) > 0.3)) + 0.02 * rng.random((60, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        selection = choose_k(a, [2, 3, 5], max_iter=200)
    assert selection.best == 3
    assert selection.errors.shape == (3, 3) and selection.errors[:, 1].max() < selection.errors[:, 0].min()


def test_masks_and_rule() -> None:
    masks = held_out(0, (50, 40), 0.2, 3)
    assert masks.shape == (3, 50, 40) and abs(masks.mean() - 0.2) < 0.03
    assert (masks[0] != masks[1]).any()
    np.testing.assert_array_equal(masks, held_out(0, (50, 40), 0.2, 3))
    errors = np.array([[9.0, 1.1, 1.0, 1.05], [9.0, 1.3, 1.4, 1.3]])
    assert one_standard_error(errors) == 1


def test_bad_arguments() -> None:
    a = np.ones((4, 4))
    for arguments in ({"ks": []}, {"ks": [3, 2]}, {"ks": [2], "fraction": 0}, {"ks": [0]}, {"ks": [2], "repeats": 0}):
        with pytest.raises(ValueError):
            choose_k(a, **arguments)
    with pytest.raises(ValueError, match="negative"):
        choose_k(-a, [2])
