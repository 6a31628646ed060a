"""Single update steps: what one iteration does to the activities.

Letters as in the paper: x input (..., n), w weights (k, n), h activities (..., k), R = h w the reconstruction.
"""

import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.normalization import row_sums

# The authors' constant in every denominator R (paper's code, forward and backward).
TINY = 1e-20


def reconstruct(w: Array, h: Array) -> Array:
    """Reconstruction R = h w of the input. h (..., k), w (k, n) -> (..., n)."""
    return jnp.matmul(h, w)


def product(a: Array, b: Array, products: str = "full") -> Array:
    """a b for a (..., m), b (m, l) -> (..., l), summed in the dtype of a whatever JAX's default precision is.

    "tf32" and "bfloat16" round the operands.
    """
    if products == "bfloat16":
        return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=a.dtype)
    if products == "tf32":
        # HIGH is TF32 on a GPU that has it and float32 elsewhere; of rounded operands both make the same products.
        return jnp.matmul(round_to_tf32(a), round_to_tf32(b), precision=jax.lax.Precision.HIGH)
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def right_operand(b: Array, products: str = "full") -> Array:
    """b (m, l) as the second operand of the products of a loop: in bfloat16, rounded and laid out once, before it.

    XLA's CPU backend multiplies bfloat16 numbers only if the second operand is stored by rows. Without the barrier it
    takes a transposition into the loop, folds it into the product, and multiplies float32 numbers.
    """
    return jax.lax.optimization_barrier(b.astype(jnp.bfloat16)) if products == "bfloat16" else b


def round_to_tf32(a: Array) -> Array:
    """The nearest TF32 numbers (8 bits of exponent, 10 of mantissa), in the dtype of a."""
    return jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=10)


def explained(x: Array, w: Array) -> Array:
    """Sums of x (..., n) over the inputs that some row of w (k, n) has, all that any h w can explain -> (..., 1)."""
    return jnp.sum(jnp.where(jnp.any(w > 0, axis=0), x, 0), axis=-1, keepdims=True)


def denominator(x: Array, r: Array) -> Array:
    """R + 1e-20, kept where it may be squared: no smaller than the root of the smallest normal number.

    XLA rewrites (x / R) / R as x / (R R) and autodiff forms 1 / R^2; in float32 the square of 1e-20 is 0. Where R
    is below that floor, an input of 0 is divided by 1 (the quotient is 0 either way), another one by the floor.
    In float64 the floor is 1e-154, so that nothing but R + 1e-20 is ever seen.
    """
    r = r + jnp.asarray(TINY, r.dtype)
    floor = jnp.sqrt(jnp.finfo(r.dtype).tiny)
    return jnp.where(r > floor, r, jnp.where(x > 0, floor, 1).astype(r.dtype))


@jax.custom_jvp
def ratio(x: Array, r: Array) -> Array:
    """x / (R + 1e-20), with a derivative that stays finite where R underflows (see `denominator`)."""
    return x / (r + jnp.asarray(TINY, r.dtype))


@ratio.defjvp
def _ratio_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, r), (dx, dr) = primals, tangents
    safe = denominator(x, r)
    return ratio(x, r), (dx - x / safe * dr) / safe


def em_factor(x: Array, w: Array, h: Array, products: str = "full", transposed: Array | None = None) -> Array:
    """Multiplicative factor q_i = sum_s w_is x_s / R_s of Lee and Seung's rule for the KL divergence (paper, eq. 3).

    x (..., n), w (k, n), h (..., k) -> q (..., k). At the optimum q_i = 1 where h_i > 0 and q_i <= 1 elsewhere;
    where w leaves out inputs, the sum of the others (`explained`) stands in place of 1.
    `transposed` is w^T (n, k) where a loop keeps it laid out (`right_operand`).
    """
    return product(ratio(x, product(h, w, products)), w.T if transposed is None else transposed, products)


def em_step(x: Array, w: Array, h: Array, epsilon: float = 1.0, products: str = "full") -> Array:
    """One iteration of eq. 6, h_i <- h_i + epsilon h_i (q_i - 1), normalised to sum 1 as in the authors' code.

    `epsilon` is the paper's, in (0, 1]; the authors' code calls epsilon / (1 - epsilon) by that name.
    """
    return em_update(h, em_factor(x, w, h, products), epsilon)


def em_update(h: Array, q: Array, epsilon: float = 1.0) -> Array:
    """The new activities of `em_step`, where the factor q at h is known. h, q (..., k) -> (..., k), summing to 1."""
    h = h * q if epsilon == 1.0 else h * ((1.0 - epsilon) + epsilon * q)
    return h / row_sums(h)
