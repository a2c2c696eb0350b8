"""The blocks of a causal transformer, which may run over a sequence at once or place by place."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.devices.mesh import SPLIT_INPUTS, SPLIT_OUTPUTS, Rules
from diffjax.models.layers.blocks import mark_product
from diffjax.models.layers.dense import Dense
from diffjax.models.layers.heads import attend

Stream: TypeAlias = Float[Array, "b l c"]
Heads: TypeAlias = Float[Array, "b _ n d"]
Seen: TypeAlias = Bool[Array, "b k"]  # which places are seen
EPS = 1e-5  # of all norms

SHARDING: Rules = (
    (r"(.*/)?(qkv|up)/kernel", SPLIT_OUTPUTS),
    (r"(.*/)?(attention_out|down)/kernel", SPLIT_INPUTS),
    (r"(.*/)?(bias|scale)", (None,)),  # a vector per layer: not worth a gather
)


class Kept(NamedTuple):
    """The keys and values [b k n d] of the places so far; zeros at places to come."""

    key: Heads
    value: Heads


def norm() -> nn.LayerNorm:
    """A LayerNorm in float32."""
    return nn.LayerNorm(epsilon=EPS, dtype=jnp.float32)


class CausalBlock(nn.Module):
    """h + attention(norm(h)), then h + feed_forward(norm(h)), where a place sees none after it.

    Products are in `dtype`; the residual stream, norms and softmax are float32. depth: the blocks
    of the whole network. Initial weights are those of CLIP's text tower (Radford et al. 2021): of
    deviation d^-1/2, (2d)^-1/2 into a feed-forward, and (2 d depth)^-1/2 where something is added.
    """

    width: int
    num_heads: int
    depth: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The layers by their names in a checkpoint."""
        width, added = self.width, (2 * self.depth * self.width) ** -0.5

        def dense(features: int, std: float) -> nn.Dense:
            return Dense(features, dtype=self.dtype, kernel_init=nn.initializers.normal(std))

        self.attention_norm, self.feed_forward_norm = norm(), norm()
        self.qkv, self.attention_out = dense(3 * width, width**-0.5), dense(width, added)
        self.up, self.down = dense(4 * width, (2 * width) ** -0.5), dense(width, added)

    def __call__(self, h: Stream, seen: Seen | None = None) -> Stream:
        """[b l c] -> [b l c]. seen: False at places that none sees, such as padding."""
        return self._with(h, *self._asked(h), seen)

    def begin(self, h: Stream, seen: Seen, length: int) -> tuple[Stream, Kept]:
        """As a call, of the first l of `length` places; also their keys and values."""
        query, key, value = self._asked(h)
        to_come = ((0, 0), (0, length - h.shape[1]), (0, 0), (0, 0))
        kept = Kept(jnp.pad(key, to_come), jnp.pad(value, to_come))
        return self._with(h, query, key, value, seen), kept

    def go_on(
        self, h: Float[Array, "b 1 c"], seen: Seen, kept: Kept, place: Int[Array, ""]
    ) -> tuple[Float[Array, "b 1 c"], Kept]:
        """The stream at one more place. seen: of all places so far, this one included."""
        query, key, value = self._asked(h)
        put = jax.lax.dynamic_update_slice_in_dim
        kept = Kept(put(kept.key, key, place, axis=1), put(kept.value, value, place, axis=1))
        return self._added(h, attend(query, *kept, mask=seen[:, None, None])), kept

    def _asked(self, h: Stream) -> tuple[Heads, Heads, Heads]:
        made = mark_product(self.qkv(self.attention_norm(h).astype(self.dtype)))
        heads = einops.rearrange(made, "b l (n k d) -> n b l k d", n=3, k=self.num_heads)
        return heads[0], heads[1], heads[2]

    def _with(self, h: Stream, query: Heads, key: Heads, value: Heads, seen: Seen | None) -> Stream:
        mask = None if seen is None else seen[:, None, None]
        return self._added(h, attend(query, key, value, mask=mask, causal=True))

    def _added(self, h: Stream, attended: Heads) -> Stream:
        flat = einops.rearrange(attended, "b l k d -> b l (k d)")
        h = h + mark_product(self.attention_out(flat)).astype(jnp.float32)
        r = mark_product(self.up(self.feed_forward_norm(h).astype(self.dtype)))
        r = mark_product(self.down(nn.gelu(r, approximate=False)))
        return h + r.astype(jnp.float32)


def into(width: int, dtype: DTypeLike, name: str) -> Callable[[Array], Array]:
    """A dense layer into a stream of `width`: products in `dtype`, their sums in float32."""
    layer = Dense(width, dtype=dtype, name=name)
    return lambda x: mark_product(layer(x.astype(dtype))).astype(jnp.float32)
