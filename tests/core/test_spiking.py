"""Inference by spikes: one step against the EM step, many against the optimum, and the same bits everywhere."""

import os
import subprocess
import sys

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from deepnmf_jax import infer, infer_spiking, normalize_patches, normalize_weights
from deepnmf_jax.core import spiking
from deepnmf_jax.core.divergences import certificate, kl_divergence
from deepnmf_jax.core.gradients import approximate_adjoint, implicit_adjoint
from deepnmf_jax.core.spiking import draw_spikes, infer_from_spikes, spike_steps, spike_update
from deepnmf_jax.core.updates import em_step
from deepnmf_jax.data.datasets import load_dataset

KEY = jax.random.key(7)
TWO_DEVICES = """
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from deepnmf_jax import infer_spiking, normalize_patches, normalize_weights

rng = np.random.default_rng(0)
x = normalize_patches(rng.random((4, 6, 12), np.float32))
w = normalize_weights(rng.random((5, 12), np.float32))
mesh = Mesh(np.array(jax.devices()), ("batch",))
assert len(jax.devices()) == 2
split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
one, two = (infer_spiking(jax.random.key(7), a, w, num_spikes=40) for a in (x, split))
assert (np.asarray(one) == np.asarray(two)).all()
print("same")
"""


def problem(rows=(3, 4), n=12, k=5, seed=0, power=2.0, dtype=np.float64):
    """Inputs and weights whose rows sum to 1."""
    rng = np.random.default_rng(seed)
    x = normalize_patches(jnp.asarray(rng.random((*rows, n)) ** power, dtype))
    return x, normalize_weights(jnp.asarray(rng.random((k, n)), dtype))


def digits():
    """Patches of handwritten digits, 5 x 5, and random weights of eight units."""
    images = load_dataset("mnist5k").test_images[:4].astype(np.float32)
    patches = np.stack([images[:, row : row + 5, column : column + 5] for row, column in ((8, 12), (12, 10), (14, 14))])
    w = np.random.default_rng(0).random((8, 25), np.float32)
    return normalize_patches(jnp.asarray(patches.reshape(-1, 25))), normalize_weights(jnp.asarray(w))


class TestOneSpike:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**31), step=st.floats(1e-3, 10), zeros=st.floats(0, 0.7))
    def test_its_mean_over_the_inputs_is_an_em_step(self, seed, step, zeros):
        rng = np.random.default_rng(seed)
        n, k = 9, 4
        x = rng.random(n) * (rng.random(n) >= zeros) + 1e-9
        w = rng.random((k, n)) * (rng.random((k, n)) >= zeros / 2) + 1e-9
        h = rng.random(k) + 1e-3
        x, w, h = (jnp.asarray(a / a.sum(-1, keepdims=True)) for a in (x, w, h))
        after = spike_update(jnp.broadcast_to(h, (n, k)), w, jnp.arange(n), step)
        assert jnp.abs(x @ after - em_step(x, w, h, epsilon=step / (1 + step))).max() < 1e-12
        assert jnp.abs(after.sum(-1) - 1).max() < 1e-12

    @pytest.mark.slow
    def test_the_mean_of_many_draws_is_that_step_within_its_error(self):
        x, w = problem(rows=(1,), dtype=np.float32)
        draws = 100_000
        spikes = draw_spikes(KEY, jnp.broadcast_to(x, (draws, x.shape[-1])), 1)[0]
        start = jnp.full((draws, w.shape[0]), 1 / w.shape[0])
        after = np.asarray(spike_update(start, w, spikes, 1.0), np.float64)
        error = after.std(axis=0) / np.sqrt(draws)
        assert (np.abs(after.mean(axis=0) - em_step(x[0], w, start[0], epsilon=0.5)) < 4 * error + 1e-6).all()

    def test_a_spike_that_no_unit_has_changes_nothing(self):
        h, w = jnp.asarray([0.25, 0.75]), jnp.asarray([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
        assert (spike_update(h, w, jnp.int32(2), 1.0) == h).all()

    @pytest.mark.parametrize("number", [12, -1, -12])
    def test_a_number_that_is_no_input_gives_nan(self, number):
        _, w = problem(rows=(1,))
        assert jnp.isnan(spike_update(jnp.full((5,), 0.2), w, jnp.int8(number), 1.0)).all()
        assert jnp.isnan(infer_from_spikes(jnp.asarray([3, number]), w)).all()

    def test_numbers_of_8_bits_name_any_input_that_they_hold(self):
        _, w = problem(rows=(1,), n=300)
        h = jnp.full((5,), 0.2)
        np.testing.assert_array_equal(*(spike_update(h, w, jnp.asarray(7, d), 1.0) for d in ("int8", "int32")))


class TestDraws:
    def test_frequencies_are_those_of_the_input_and_zeros_never_spike(self):
        x, _ = problem(rows=(2,), n=70)
        x = normalize_patches(x * (jnp.arange(70) % 3 > 0))
        spikes = np.asarray(draw_spikes(KEY, x, 20_000))
        for row in range(2):
            counts = np.bincount(spikes[:, row], minlength=70)
            assert (counts[np.asarray(x[row]) == 0] == 0).all()
            deviation = np.sqrt(20_000 * np.asarray(x[row] * (1 - x[row])))
            assert (np.abs(counts - 20_000 * np.asarray(x[row])) <= 5 * deviation).all()

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [1, 2, 3, 16, 17, 800])
    def test_one_entry_is_always_drawn(self, n):
        x = jax.nn.one_hot(jnp.arange(n), n)
        assert (draw_spikes(KEY, x, 5) == jnp.arange(n)).all()

    def test_rows_of_zeros_have_zeros(self):
        x = problem(rows=(2,))[0].at[0].set(0)
        assert (draw_spikes(KEY, x, 5)[:, 0] == 0).all()

    def test_more_spikes_begin_with_the_same_ones(self):
        x, _ = problem()
        assert (draw_spikes(KEY, x, 70)[:40] == draw_spikes(KEY, x, 40)).all()


class TestManySpikes:
    @pytest.mark.slow
    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.75])
    def test_as_a_plain_loop_over_the_same_spikes(self, decay):
        x, w = problem()
        spikes = np.asarray(draw_spikes(KEY, x, 75))
        h = np.full((3, 4, 5), 0.2)
        for t, spike in enumerate(spikes, start=1):
            step = 0.7 * t**-decay
            v = h * np.asarray(w)[:, spike].transpose(1, 2, 0)
            h = (h + step * v / v.sum(axis=-1, keepdims=True)) / (1 + step)
        ours = infer_spiking(KEY, x, w, num_spikes=75, epsilon=0.7, decay=decay)
        assert np.abs(ours - h).max() < 1e-12
        assert np.abs(infer_from_spikes(jnp.asarray(spikes), w, epsilon=0.7, decay=decay) - h).max() < 1e-12

    def test_the_sum_stays_1_without_a_division(self):
        x, w = problem(dtype=np.float32)
        h = infer_spiking(KEY, x, w, num_spikes=5000)
        assert jnp.abs(h.sum(-1) - 1).max() < 1e-4

    def test_a_row_of_zeros_gives_zeros_and_leaves_the_other_rows_as_they_are(self):
        x, w = problem()
        with_zero = infer_spiking(KEY, x.at[1, 2].set(0), w, num_spikes=40)
        assert (with_zero[1, 2] == 0).all()
        without = infer_spiking(KEY, x, w, num_spikes=40)
        assert (jnp.delete(with_zero.reshape(12, 5), 6, 0) == jnp.delete(without.reshape(12, 5), 6, 0)).all()

    def test_weights_and_inputs_with_zeros_stay_finite(self):
        x, w = problem(dtype=np.float32)
        w = normalize_weights(w.at[:, ::2].set(0).at[0].set(0))
        h = infer_spiking(KEY, normalize_patches(x.at[..., :4].set(0)), w, num_spikes=300, decay=0.0)
        assert jnp.isfinite(h).all() and jnp.abs(h.sum(-1) - 1).max() < 1e-5

    @pytest.mark.slow
    @pytest.mark.parametrize("inputs", ["random", "patches of digits"])
    def test_decaying_steps_go_to_the_optimum_and_constant_ones_level_out(self, inputs):
        x, w = problem(rows=(4, 4), n=20, k=6, dtype=np.float32) if inputs == "random" else digits()
        least = kl_divergence(x, w, infer(x, w, num_iters=3000))

        def gaps(num_spikes, **steps):
            h = infer_spiking(KEY, x, w, num_spikes=num_spikes, **steps)
            return float(certificate(x, w, h).mean()), float((kl_divergence(x, w, h) - least).mean())

        decaying = [gaps(spikes, decay=0.75)[0] for spikes in (200, 2000, 20_000)]
        assert decaying[0] > 2 * decaying[1] > 4 * decaying[2]
        assert decaying[2] < 0.01
        (coarse, above), (fine, less) = (gaps(20_000, epsilon=epsilon, decay=0.0) for epsilon in (0.2, 0.05))
        assert coarse > 5 * decaying[2]
        # The divergence is quadratic about its minimum, the certificate linear: like e, and like its root.
        assert 2.5 < (above / less) < 6
        assert 1.5 < (coarse / fine) < 3.5


class TestSameBits:
    def test_whatever_else_is_in_the_batch_and_how_it_is_tiled(self, monkeypatch):
        x, w = problem(rows=(5, 9), dtype=np.float32)
        h = infer_spiking(KEY, x, w, num_spikes=70)
        assert (infer_spiking(KEY, x[:2], w, num_spikes=70) == h[:2]).all()
        jax.clear_caches()
        monkeypatch.setattr(spiking, "TILE", 64)
        tiled = infer_spiking(KEY, x, w, num_spikes=70)
        jax.clear_caches()
        assert (tiled == h).all()

    def test_under_jit_and_for_old_style_keys(self):
        x, w = problem(dtype=np.float32)
        h = infer_spiking(jax.random.key(3), x, w, num_spikes=10)
        assert (jax.jit(lambda k: infer_spiking(k, x, w, num_spikes=10))(jax.random.PRNGKey(3)) == h).all()

    @pytest.mark.slow
    def test_split_over_devices(self):
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, "-c", TWO_DEVICES], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == "same", done.stderr[-2000:]


class TestGradient:
    @pytest.mark.parametrize("gradient", ["approximate", "implicit", "scaled"])
    def test_is_that_of_infer_at_the_last_activities(self, gradient):
        x, w = problem()
        g = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 5)))
        h, pull = jax.vjp(lambda x, w: infer_spiking(KEY, x, w, num_spikes=20, gradient=gradient), x, w)
        steps = spike_steps(20, dtype=jnp.float64)
        expected = (
            implicit_adjoint(x, w, h, g, cg_steps=4)
            if gradient == "implicit"
            else approximate_adjoint(x, w, h, g * ((steps / (1 + steps)).sum() if gradient == "scaled" else 1))
        )
        for ours, theirs in zip(pull(g), expected, strict=True):
            assert jnp.abs(ours - theirs).max() < 1e-12

    def test_bfloat16_in_and_out(self):
        x, w = problem(dtype=np.float32)
        narrow = infer_spiking(KEY, x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), num_spikes=50)
        assert narrow.dtype == jnp.bfloat16
        assert jnp.abs(narrow.astype(jnp.float32).sum(-1) - 1).max() < 0.02

    def test_maps_over_keys(self):
        x, w = problem(dtype=np.float32)
        keys = jax.random.split(KEY, 3)
        mapped = jax.vmap(lambda key: infer_spiking(key, x, w, num_spikes=10))(keys)
        assert (mapped[1] == infer_spiking(keys[1], x, w, num_spikes=10)).all()
        assert (mapped[0] != mapped[1]).any()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_spikes": 0}, "num_spikes"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"decay": -1.0}, "decay"),
        ({"gradient": "unrolled"}, "gradient"),
        ({"implementation": "pallas"}, "implementation"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    x, w = problem()
    with pytest.raises(ValueError, match=named):
        infer_spiking(KEY, x, w, **settings)


def test_settings_may_be_arrays_without_axes():
    x, w = problem()
    given = {"num_spikes": jnp.int32(5), "epsilon": jnp.float32(0.5), "cg_steps": np.int64(2), "gradient": "implicit"}
    plainly = {"num_spikes": 5, "epsilon": 0.5, "cg_steps": 2, "gradient": "implicit"}
    np.testing.assert_array_equal(infer_spiking(KEY, x, w, **given), infer_spiking(KEY, x, w, **plainly))


def test_spikes_of_ones_own_are_checked():
    _, w = problem()
    with pytest.raises(ValueError, match="integers"):
        infer_from_spikes(jnp.ones((3, 2)), w)
    with pytest.raises(ValueError, match="start"):
        infer_from_spikes(jnp.ones((3, 2), jnp.int32), w, start=jnp.ones(5))
