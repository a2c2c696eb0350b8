"""The text tower of a CLIP without its projection, as a text encoder of other networks."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.models.clip.sizes import Activation, Tower
from diffjax.models.clip.transformer import Transformer, norm


class TextStates(nn.Module):
    """Token ids -> the residual stream after its last norm, by the layers of `clip.TextTower`.

    skip: so many of the last blocks are not run; with 1 the states are the penultimate ones.
    """

    tower: Tower
    vocabulary: int
    length: int
    activation: Activation = "quick_gelu"
    skip: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        """[b l] -> [b l d] in float32; l is at most the length."""
        normal, width = nn.initializers.normal, self.tower.width
        embedded = self.param("tokens", normal(0.02), (self.vocabulary, width))
        positions = self.param("positions", normal(0.01), (self.length, width))
        h = jnp.take(embedded, tokens, axis=0) + positions[: tokens.shape[1]]
        run = dataclasses.replace(self.tower, layers=self.tower.layers - self.skip)
        blocks = Transformer(run, True, self.activation, dtype=self.dtype, name="blocks")
        return norm("norm_out")(blocks(h.astype(jnp.float32)))
