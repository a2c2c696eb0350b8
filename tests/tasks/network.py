"""Stand-ins for networks, for tests of what is around one."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp


class Network:
    """`says(x_t, logsnr_t, **told)` is its answer; `init` makes {"params": ...} from a key."""

    sharding = ()

    def __init__(self, says, init=None):
        self.apply = lambda variables, x_t, logsnr_t, **told: says(x_t, logsnr_t, **told)
        self.init = init


class Mixing(nn.Module):
    """Dense layers among pixels and words, which compile at once."""

    sharding: ClassVar = ((".*", ()),)

    @nn.compact
    def __call__(self, x_t, logsnr_t, text, text_mask):
        words = nn.Dense(8, name="words")(jnp.sum(text * text_mask[..., None], axis=1))
        h = nn.Dense(8, name="stem")(x_t) + words[:, None, None] + logsnr_t[:, None, None, None]
        attended = nn.Dense(8, name="attention")(jnp.tanh(h))
        return nn.Dense(3, name="head")(jnp.tanh(h + attended))
