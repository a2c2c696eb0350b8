"""The network of a diffusion prior: a causal transformer from a text to a CLIP vector."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core.types import LogSnr, Text, TextMask
from diffjax.devices.mesh import Rules
from diffjax.models.layers import causal
from diffjax.models.layers.causal import CausalBlock, into
from diffjax.models.layers.embedding import NoiseLevelEmbedding, Steps
from diffjax.models.layers.level import Remat, Unpack, wrapped

# The places after the text: its vector, the noise level, the noised vector and the query.
PLACES_AFTER = 4

SHARDING: Rules = (
    (r"(.*/)?(text_in|text_vector_in|x_in)/kernel", (None, "fsdp")),
    (r"(.*/)?noise/dense_[01]/kernel", (None, "fsdp")),
    (r"(.*/)?(positions|query)", (None,)),
    (r"(.*/)?out/kernel", ("fsdp", None)),
    *causal.SHARDING,
)


class Prior(nn.Module):
    """(Noised vector, noise level, text) -> vector  (Ramesh et al. 2022, sec. 2.2).

    The sequence is the tokens of the text, its CLIP vector, the noise level, the noised vector, and
    a learned query, at whose place the answer is read. length: the tokens of a text, with padding,
    which no place sees. steps: as in `NoiseLevelEmbedding`. remat, unpack: see `DenoisingNetwork`.
    """

    width: int = 2048
    num_blocks: int = 24
    num_heads: int = 32
    length: int = 256
    steps: Steps | None = None
    remat: Remat = "none"
    unpack: Unpack | None = None
    dtype: DTypeLike = jnp.float32
    sharding: ClassVar[Rules] = SHARDING

    @nn.compact
    def __call__(
        self,
        x_t: Float[Array, "b e"],
        logsnr_t: LogSnr,
        text: Text,
        text_mask: TextMask,
        text_vector: Float[Array, "b v"],
    ) -> Float[Array, "b e"]:
        """-> z_0 or another kind of prediction, as the network was trained."""
        normal, width = nn.initializers.normal, self.width
        level = NoiseLevelEmbedding(width, steps=self.steps, name="noise")(logsnr_t)
        vector = into(width, self.dtype, "text_vector_in")(text_vector)
        x = into(width, self.dtype, "x_in")(x_t)
        query = self.param("query", normal(0.02), (width,))
        one = jnp.stack([vector, level, x, jnp.broadcast_to(query, x.shape)], axis=1)
        h = jnp.concatenate([into(width, self.dtype, "text_in")(text), one], axis=1)
        h = h + self.param("positions", normal(0.01), (self.length + PLACES_AFTER, width))
        seen = jnp.pad(text_mask, ((0, 0), (0, PLACES_AFTER)), constant_values=True)
        block = wrapped(CausalBlock, self.remat, unpack=self.unpack)
        for i in range(self.num_blocks):
            own = block(width, self.num_heads, self.num_blocks, self.dtype, name=f"block_{i}")
            h = own(h, seen)
        h = nn.LayerNorm(epsilon=causal.EPS, dtype=jnp.float32, name="norm_out")(h[:, -1])
        return nn.Dense(x_t.shape[-1], dtype=jnp.float32, name="out")(h)
