import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepnmf_jax.data.sampling import epoch_order, eval_batches, random_order


@given(num_examples=st.integers(1, 200), batch_size=st.integers(1, 200), seed=st.integers(0, 2**64 - 1))
def test_an_epoch_holds_no_example_twice_and_drops_only_the_incomplete_batch(num_examples, batch_size, seed):
    batch_size = min(batch_size, num_examples)
    batches = epoch_order(seed, 3, num_examples, batch_size)
    assert batches.dtype == np.int32
    assert batches.shape == (num_examples // batch_size, batch_size)
    assert len(np.unique(batches)) == batches.size
    assert batches.min() >= 0 and batches.max() < num_examples


def test_the_order_is_this_one_on_every_machine():
    # Written down once: a run resumed with another numpy must meet the same batches.
    np.testing.assert_array_equal(epoch_order(7, 2, 11, 5), [[6, 7, 8, 4, 0], [1, 5, 10, 3, 9]])


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    reference = epoch_order(1, 2, 1000, 10)
    np.random.seed(0)
    np.testing.assert_array_equal(epoch_order(1, 2, 1000, 10), reference)
    for seed, epoch in ((2, 1), (1, 3), (0, 2)):
        # Two independent orders of 1,000 agree in one place on average.
        assert (epoch_order(seed, epoch, 1000, 10) == reference).sum() < 10


def test_every_example_is_as_likely_in_every_place():
    first = np.asarray([random_order(0, epoch, 8)[0] for epoch in range(4000)])
    counts = np.bincount(first, minlength=8)
    # 500 expected, standard deviation 21.
    assert np.all(np.abs(counts - 500) < 100), counts


def test_the_examples_left_out_change_from_epoch_to_epoch():
    left_out = [set(range(10)) - set(epoch_order(0, epoch, 10, 7).ravel().tolist()) for epoch in range(20)]
    assert set.union(*left_out) == set(range(10))


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_that_the_data_cannot_fill_is_refused(batch_size):
    with pytest.raises(ValueError, match=rf"batch_size .*at most 10.*got {batch_size}"):
        epoch_order(0, 0, 10, batch_size)


@pytest.mark.parametrize(("seed", "epoch", "named"), [(-1, 0, "seed"), (2**64, 0, "seed"), (0, -1, "epoch")])
def test_seed_and_epoch_must_fit_a_key(seed, epoch, named):
    with pytest.raises(ValueError, match=named):
        epoch_order(seed, epoch, 10, 2)


@given(num_examples=st.integers(0, 100), batch_size=st.integers(1, 30))
def test_evaluation_sees_every_example_once_in_batches_of_one_size(num_examples, batch_size):
    batches = eval_batches(num_examples, batch_size)
    assert all(i.shape == m.shape == (batch_size,) for i, m in batches)
    assert all(i.dtype == np.int32 and m.dtype == np.bool_ for i, m in batches)
    seen = [index for indices, mask in batches for index in indices[mask]]
    assert seen == list(range(num_examples))
    assert all(mask.any() for _, mask in batches)
    # What fills the last batch must be an index that exists.
    assert all((indices < num_examples).all() and (indices >= 0).all() for indices, _ in batches)


def test_evaluation_arguments():
    with pytest.raises(ValueError, match="batch_size = 0, .* at least 1"):
        eval_batches(5, 0)
    with pytest.raises(ValueError, match="num_examples = -1, .* at least 0"):
        eval_batches(-1, 5)
