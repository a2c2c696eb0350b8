"""The pre-LayerNorm transformer of both towers."""

import functools
from collections.abc import Callable

import einops
import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.models.clip.sizes import Activation, Tower
from diffjax.models.layers.blocks import mark_product
from diffjax.models.layers.dense import Dense
from diffjax.models.layers.heads import attend
from diffjax.models.layers.level import KEPT, Remat

Tokens = Float[Array, "b l d"]
EPS = 1e-5


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x), an approximation of GELU (Hendrycks & Gimpel 2016)."""
    return x * nn.sigmoid(1.702 * x)


FUNCTIONS: dict[Activation, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": functools.partial(nn.gelu, approximate=False),
}


def norm(name: str | None = None) -> nn.LayerNorm:
    """A LayerNorm in float32."""
    return nn.LayerNorm(epsilon=EPS, dtype=jnp.float32, name=name)


class Transformer(nn.Module):
    """Blocks one after the other. causal: a position sees itself and those before it.

    heads_first: the order of the outputs of `qkv`, see `layers.attention.Attention`.

    Products are in `dtype`; the residual stream, norms and softmax are float32. remat: what the
    backward pass computes again (`layers.level.KEPT`).

    Initial weights are normal, with the standard deviations of the paper's text tower: d^-1/2 for
    queries, keys and values, (2d)^-1/2 into a feed-forward, and (2 d L)^-1/2 for what is added to
    the residual stream of L layers. The paper gives none for the image tower; it gets the same.
    """

    tower: Tower
    causal: bool = False
    activation: Activation = "quick_gelu"
    remat: Remat = "none"
    dtype: DTypeLike = jnp.float32
    heads_first: bool = False

    @nn.compact
    def __call__(self, h: Tokens) -> Tokens:
        """[b l d] -> [b l d]."""
        block = Block if self.remat == "none" else nn.remat(Block, policy=KEPT[self.remat])
        for i in range(self.tower.layers):
            fields = (self.tower, self.causal, self.activation, self.dtype, self.heads_first)
            h = block(*fields, name=f"block_{i}")(h)
        return h


class Block(nn.Module):
    """h + attention(norm(h)), then h + feed_forward(norm(h))."""

    tower: Tower
    causal: bool
    activation: Activation
    dtype: DTypeLike
    heads_first: bool = False

    @nn.compact
    def __call__(self, h: Tokens) -> Tokens:
        """[b l d] -> [b l d]."""
        width, added = self.tower.width, (2 * self.tower.layers * self.tower.width) ** -0.5

        def dense(features: int, std: float, name: str) -> Callable[[Array], Array]:
            init = nn.initializers.normal(std)
            layer = Dense(features, dtype=self.dtype, kernel_init=init, name=name)
            return lambda x: mark_product(layer(x))

        r = norm("attention_norm")(h).astype(self.dtype)
        qkv = dense(3 * width, width**-0.5, "qkv")(r)
        outputs = "(h n k)" if self.heads_first else "(n h k)"
        heads = einops.rearrange(qkv, f"b l {outputs} -> n b l h k", n=3, h=self.tower.heads)
        seen = attend(*heads, causal=self.causal)
        seen = einops.rearrange(seen, "b l h k -> b l (h k)")
        h = h + dense(width, added, "attention_out")(seen).astype(jnp.float32)

        r = norm("feed_forward_norm")(h).astype(self.dtype)
        r = FUNCTIONS[self.activation](dense(self.tower.hidden, (2 * width) ** -0.5, "up")(r))
        return h + dense(width, added, "down")(r).astype(jnp.float32)
