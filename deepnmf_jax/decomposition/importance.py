"""Which concept matters: how a score of a network, as the logit of a class, depends on each code.

A network is cut where its activations are factorized, A ~ Z D: `head(Z)` decodes codes and goes on to the scores, as in
`lambda z: rest_of_network(z @ D)`. Codes are (n, k), one row a sample, or (n, ..., k), one a position of a map; a
concept is then present or not at all positions together. All importances are (n, k), of each sample. What matters for a
class is their mean over its samples, of Sobol indices the mean weighted by the variance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.core.checks import check_choice, check_integer, check_seed

Head = Callable[[Any], Any]
KINDS = ("gradient", "gradient_times_code", "integrated")
# Rows of codes that a head is given at once.
BATCH = 4096


class SobolIndices(NamedTuple):
    """Shares of the variance of a score (n, k): `total`, of a concept with all its interactions; `first`, of it alone.

    They are estimates: noise makes small ones negative or larger than 1. 0 where the score does not vary. `variance`
    (n,) is that of the score. The importance for many samples is the mean with it as weights, the share of the variance
    of all their scores (Lamboni et al. 2011): np.average(total, axis=0, weights=variance). Where a score is saturated
    and hardly varies, the indices of that sample are mostly noise.
    """

    total: np.ndarray
    first: np.ndarray
    variance: np.ndarray


def gradient_importance(
    head: Head, codes: Any, classes: Any = None, kind: str = "gradient_times_code", steps: int = 32
) -> np.ndarray:
    """Importance of each concept for the score of each sample, by gradients through the codes.

    The derivative must be that of the score: of a network with NMF layers take `gradient="unrolled"`, since the
    approximate gradients that it is trained with are none (`cut_network` does).

    Kinds, with s the score, z the codes, and sums over positions:

    - "gradient_times_code": sum z ds/dz, the change of the score with the strength of a concept, relative to it. For a
      head that is linear it is what the concept adds to the score.
    - "gradient": sum ds/dz.
    - "integrated": sum z times the mean of ds/dz along the way from 0 to z (Sundararajan et al. 2017). The importances
      of a sample add up to s(z) - s(0), the better the more steps.

    Args:
        head: codes (m, ..., k) to scores (m,) or (m, classes), in JAX; each sample for itself.
        codes: Z (n, ..., k).
        classes: whose score counts, for all samples or for each (n,); None: the head has one score a sample.
        kind: one of the three.
        steps: points of the way for "integrated", by the midpoint rule.

    Returns:
        Importances (n, k).

    Raises:
        ValueError: codes, scores or classes of another shape, another kind.
    """
    kind, steps = check_choice("kind", kind, KINDS), check_integer("steps", steps, 1)
    z = jnp.asarray(_checked(codes))
    score = _score_of(head, _checked_classes(classes, len(z)))
    # Each score depends on its own sample alone, so the gradient of the sum holds the gradients of all.
    gradient = jax.grad(lambda z: jnp.sum(score(z, slice(None))))
    if kind == "integrated":
        points = (jnp.arange(steps, dtype=z.dtype) + 0.5) / steps
        mean = jax.lax.fori_loop(0, steps, lambda i, sum_: sum_ + gradient(points[i] * z) / steps, jnp.zeros_like(z))
    else:
        mean = gradient(z)
    found = mean if kind == "gradient" else mean * z
    return np.asarray(found.sum(axis=tuple(range(1, z.ndim - 1))))


def sobol_importance(
    head: Head, codes: Any, classes: Any = None, designs: int = 32, random_state: int = 0, batch: int = BATCH
) -> SobolIndices:
    """Importance of each concept for the score of each sample, by Sobol indices of masks of the codes.

    Each concept of a sample is multiplied with a number in [0, 1], uniform and for itself: the index is the share of
    the variance of the score that this number causes. Jansen's estimators (1999) on a scrambled Sobol sequence; CRAFT
    (Fel et al. 2023) takes the total ones. It costs designs (k + 2) scores a sample and needs no gradient.

    Args:
        head: codes (m, ..., k) to scores (m,) or (m, classes), of any library that takes numpy arrays.
        codes: Z (n, ..., k).
        classes: as in `gradient_importance`.
        designs: points of the design, a power of 2, at least 2. The error falls about as 1 / designs.
        random_state: seed of the scrambling.
        batch: rows of codes that the head is given at once, at most.

    Raises:
        ValueError: designs that are no power of 2; codes, scores or classes of another shape.
    """
    designs, batch = check_integer("designs", designs, 2), check_integer("batch", batch, 1)
    if designs & (designs - 1):
        raise ValueError(f"designs = {designs}; a Sobol sequence has a power of 2 of points, such as 32")
    z, seed = _checked(codes), check_seed("random_state", random_state)
    score = _score_of(head, _checked_classes(classes, len(z)))
    masks = sobol_masks(z.shape[-1], designs, seed).astype(z.dtype)
    shape = (len(masks), *(1,) * (z.ndim - 2), z.shape[-1])
    scores = np.empty((len(z), len(masks)))
    for sample in range(len(z)):
        for first in range(0, len(masks), batch):
            part = slice(first, first + batch)
            scores[sample, part] = score(z[sample] * masks.reshape(shape)[part], sample)
    return jansen(scores, designs)


def sobol_masks(k: int, designs: int, random_state: int) -> np.ndarray:
    """Design of masks (designs (k + 2), k): the points a, b, then for each concept a with its column from b."""
    # A third of a second of imports that only this needs.
    from scipy.stats import qmc

    points = qmc.Sobol(2 * k, scramble=True, seed=random_state).random(designs)
    a, b = points[:, :k], points[:, k:]
    mixed = np.repeat(a[None], k, axis=0)
    mixed[np.arange(k), :, np.arange(k)] = b.T
    return np.concatenate([a, b, mixed.reshape(-1, k)])


def jansen(scores: np.ndarray, designs: int) -> SobolIndices:
    """Sobol indices (n, k) of scores (n, designs (k + 2)) at the points of `sobol_masks`, by Jansen's estimators.

    total = mean (s_a - s_ab)^2 / 2 V and first = 1 - mean (s_b - s_ab)^2 / 2 V. V is the variance over all
    points, which have the same distribution; that over a and b alone misses a score that seldom changes.
    """
    scores = scores.reshape(len(scores), -1, designs)
    a, b, mixed = scores[:, :1], scores[:, 1:2], scores[:, 2:]
    variance = scores.var(axis=(1, 2))
    varies = variance[:, None] > 0
    divisor = 2 * np.where(varies, variance[:, None], 1)
    total = ((a - mixed) ** 2).mean(axis=2) / divisor
    first = 1 - ((b - mixed) ** 2).mean(axis=2) / divisor
    return SobolIndices(np.where(varies, total, 0), np.where(varies, first, 0), variance)


def _checked(codes: Any) -> np.ndarray:
    codes = np.asarray(codes)
    if codes.dtype.kind in "bui":
        codes = codes.astype(np.float32)
    if codes.ndim < 2 or not codes.size or codes.dtype.kind != "f":
        raise ValueError(f"codes have shape {codes.shape} and dtype {codes.dtype}; they must be real, (n, ..., k)")
    return codes


def _checked_classes(classes: Any, n: int) -> np.ndarray | None:
    if classes is None:
        return None
    found = np.asarray(classes)
    if found.dtype.kind not in "ui" or found.shape not in ((), (n,)):
        raise ValueError(
            f"classes are {found.dtype} of shape {found.shape}; give one whole number, or {n}, one a sample"
        )
    return np.broadcast_to(found, (n,))


def _score_of(head: Head, classes: np.ndarray | None) -> Callable[[Any, Any], Any]:
    """The score (m,) of codes (m, ..., k), all of one sample or of the samples of a slice."""

    def score(z: Any, samples: Any) -> Any:
        scores = head(z)
        scores = scores if isinstance(scores, Array) else np.asarray(scores)
        wanted = "(n,)" if classes is None else "(n, classes)"
        if scores.ndim != (1 if classes is None else 2) or len(scores) != len(z):
            raise ValueError(
                f"head gives scores of shape {scores.shape} for codes of shape {z.shape}; it must be {wanted}"
                + (", or say which class counts" if classes is None else "")
            )
        if classes is None:
            return scores
        if not (classes.min() >= 0 and classes.max() < scores.shape[1]):
            raise ValueError(f"classes are {classes.min()} to {classes.max()}; head has 0 to {scores.shape[1] - 1}")
        return scores[np.arange(len(z)), classes[samples]]

    return score
