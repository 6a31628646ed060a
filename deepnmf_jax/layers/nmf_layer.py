"""What the Linen layers of NMF share: the parameter and the key of the spikes."""

import flax.linen as nn
import jax
from jax import Array

from deepnmf_jax.layers.fields import NMFFields


def spike_key(module: nn.Module, field: str) -> Array:
    """A key of the module's rng stream "spikes"; any key at initialisation, which keeps no outputs.

    Raises:
        ValueError: there is no such stream. `field` is the one that asks for spikes.
    """
    if module.has_rng("spikes"):
        return module.make_rng("spikes")
    if module.is_initializing():
        return jax.random.key(0)
    raise ValueError(
        f"{field} = {getattr(module, field)}, but there is no key for the spikes; pass "
        'rngs={"spikes": jax.random.key(0)} to apply'
    )


class NMFLayer(NMFFields, nn.Module, kw_only=True):
    """A layer whose outputs are NMF codes. Its fields: see `NMFFields` and `InferenceFields`."""

    def activity(self, patches: Array, features: int) -> Array:
        """NMF code of non-negative patches (..., groups, n): each group on its own -> (..., features), summing to 1.

        Raises:
            ValueError: settings outside what they allow, or `features` that the groups do not divide.
        """
        groups, n = patches.shape[-2:]
        features = self.check_fields(features, groups)
        u = self.param("u", self.u_init, (features, n), self.param_dtype)
        return self.codes(patches, u, spike_key(self, "num_spikes") if self.num_spikes else None)

    def _infer(self, x: Array, w: Array, key: Array | None) -> Array:
        # Flax shows `flax.linen.intercept_methods` the methods of its modules alone. Experiments read there what the
        # layers see, or put other activities in place of these.
        return super()._infer(x, w, key)
