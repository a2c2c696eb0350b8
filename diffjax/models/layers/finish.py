"""What is done at single pixels after a network that works on patches."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core.types import Image, Resized
from diffjax.models.layers.blocks import mark_product
from diffjax.models.layers.convolve import Convolution


class Finish(nn.Module):
    """Three convolutions of pixels add a difference to the answer of a network on patches.

    A network on patches of p x p pixels answers each pixel of a patch by weights of its own, and
    all that it knows of the noisy picture went through its narrow first layer. So areas of one
    colour are dotted, and the picture is not even kept where there is hardly any noise. These
    layers see the noisy picture itself, and treat all pixels alike. The last one starts at zero. In
    no paper.

    width: their channels.
    """

    width: int
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, answer: Image, inputs: Sequence[Resized], emb: Float[Array, "b e"]
    ) -> Resized:
        """Its answer [b h w c], what it was given [b h w _], its conditions -> [b h w c]."""

        def conv(h, width, name, dtype=self.dtype, **options):
            made = nn.Conv(
                width, (3, 3), conv_general_dilated=self.convolution, dtype=dtype, name=name,
                **options,
            )  # fmt: skip
            return mark_product(made(h))

        scale_shift = nn.Dense(2 * self.width, dtype=jnp.float32, name="scale_shift")(emb)
        scale, shift = jnp.split(scale_shift.astype(self.dtype)[:, None, None, :], 2, axis=-1)
        h = conv(
            jnp.concatenate([answer, *inputs], axis=-1).astype(self.dtype), self.width, "conv_0"
        )
        h = conv(nn.silu(h * (1 + scale) + shift), self.width, "conv_1")
        zeros = nn.initializers.zeros
        return answer + conv(nn.silu(h), answer.shape[-1], "conv_2", jnp.float32, kernel_init=zeros)
