"""What Karlo's decoder is told, as one vector and as tokens: all of it by CLIP's towers.

Karlo follows Ramesh et al. 2022, sec. 2.1, where GLIDE's text transformer is replaced by the text
tower of CLIP: its states of the tokens, and its vector of the text.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from diffjax.core.types import LogSnr, Text, TextMask
from diffjax.models.layers.embedding import VECTOR_TOKENS, NoiseLevelEmbedding, Steps


class ClipConditioning(nn.Module):
    """Noise level, CLIP's vector of the picture, its text's vector and states.

    Nothing is normalised but the projected states. Zeros for the vector of the picture mean none,
    for which there is a learned one. features, steps: see `NoiseLevelEmbedding`.
    """

    width: int
    token_width: int
    dtype: DTypeLike = jnp.float32
    features: int = 0
    steps: Steps | None = None

    @nn.compact
    def __call__(
        self,
        logsnr_t: LogSnr,
        text: Text,
        text_mask: TextMask,
        text_vector: Float[Array, "b v"],
        vector: Float[Array, "b v"],
    ) -> tuple[Float[Array, "b e"], Float[Array, "b k t"], Bool[Array, "b k"]]:
        """(embedding [b width], tokens [b 4 + l token_width], which of them are seen)."""
        dense = lambda width, name: nn.Dense(width, dtype=jnp.float32, name=name)  # noqa: E731
        nothing = self.param("no_vector", nn.initializers.zeros, vector.shape[-1:])
        there = jnp.any(vector != 0, axis=-1, keepdims=True)
        vector = jnp.where(there, vector, nothing)
        emb = NoiseLevelEmbedding(self.width, self.features, self.steps, name="noise")(logsnr_t)
        emb = emb + dense(self.width, "vector")(vector)
        emb = emb + dense(self.width, "text_vector")(text_vector)
        more = dense(VECTOR_TOKENS * self.token_width, "vector_tokens")(vector)
        # the numbers of a token lie apart, as in Karlo's weights
        more = jnp.swapaxes(more.reshape(len(vector), self.token_width, VECTOR_TOKENS), 1, 2)
        states = dense(self.token_width, "text_in")(text)
        states = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name="text_norm")(states)
        tokens = jnp.concatenate([more, states], axis=1)
        seen = jnp.pad(text_mask, ((0, 0), (VECTOR_TOKENS, 0)), constant_values=True)
        return nn.silu(emb), tokens.astype(self.dtype), seen
