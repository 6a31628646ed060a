"""The loss against the authors' formula, written out."""

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.training.losses import cross_entropy_and_mse, training_loss


def test_loss_is_the_authors_formula():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 10)), np.array([0, 3, 9, 3, 1])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    eq21 = [
        -np.log(p[b, y]) + 0.5 * sum((float(c == y) - p[b, c]) ** 2 for c in range(10)) for b, y in enumerate(labels)
    ]
    np.testing.assert_allclose(cross_entropy_and_mse(logits, labels), eq21, rtol=1e-12)
    np.testing.assert_allclose(training_loss(logits, labels), sum(eq21) / 15, rtol=1e-12)


def test_loss_of_a_batch_is_the_sum_of_its_parts():
    rng = np.random.default_rng(1)
    logits, labels = jnp.asarray(rng.normal(size=(8, 4))), jnp.arange(8) % 4
    whole, parts = jax.grad(training_loss), jax.vmap(jax.grad(training_loss))
    np.testing.assert_allclose(
        whole(logits, labels), parts(logits.reshape(2, 4, 4), labels.reshape(2, 4)).reshape(8, 4), rtol=1e-12
    )


def test_confident_wrong_answers_stay_finite_in_float32():
    logits = jnp.asarray([[200.0, -200.0, 0.0]], jnp.float32)
    loss, gradient = jax.value_and_grad(training_loss)(logits, jnp.asarray([1]))
    assert np.isfinite(loss) and np.isfinite(gradient).all() and float(gradient[0, 1]) < 0


def test_the_weight_of_the_squared_error():
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(6, 5)), np.array([0, 3, 4, 3, 1, 2])
    p, y = np.exp(logits) / np.exp(logits).sum(1, keepdims=True), np.eye(5)[labels]
    expected = -(y * np.log(p)).sum(1) + 0.2 * ((y - p) ** 2).sum(1)
    np.testing.assert_allclose(cross_entropy_and_mse(logits, labels, mse_weight=0.2), expected, rtol=1e-12)
    total = training_loss(logits, labels, mse_weight=0.2)
    np.testing.assert_allclose(total, expected.sum() / (1.2 * 5), rtol=1e-12)
