"""The network that tells patches of real pictures from reconstructed ones (Isola et al. 2017)."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core.types import Image
from diffjax.devices.mesh import Rules
from diffjax.models.layers.blocks import Norm

SLOPE = 0.2  # of leaky ReLU below zero
START = nn.initializers.normal(0.02)


class Discriminator(nn.Module):
    """PatchGAN: a number for each patch, high for real ones.

    `layers` convolutions with stride 2, then two with stride 1, all 4 x 4. The paper normalises
    over the batch; here each picture is normalised by itself, over groups of channels, so that the
    verdict on a picture depends neither on the others nor on the mesh. The parameters are as many.
    """

    layers: int = 3
    width: int = 64
    dtype: DTypeLike = jnp.float32
    sharding: ClassVar[Rules] = (
        (r"(.*/)?conv_\d/kernel", (None, "fsdp")),
        (r"(.*/)?(verdict/kernel|bias|scale)", (None,)),
    )

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b i j 1"]:
        """Of pictures in [-1, 1]."""
        h = x.astype(self.dtype)
        for i in range(self.layers + 1):
            width, stride = self.width * min(2**i, 8), 2 if i < self.layers else 1
            conv = nn.Conv(
                width, (4, 4), stride, padding=1, use_bias=i == 0, kernel_init=START,
                dtype=self.dtype, name=f"conv_{i}",
            )  # fmt: skip
            h = conv(h)
            if i > 0:
                h = Norm(name=f"norm_{i}")(h).astype(self.dtype)
            h = jax.nn.leaky_relu(h, SLOPE)
        exact = jnp.promote_types(self.dtype, jnp.float32)
        out = nn.Conv(1, (4, 4), 1, padding=1, kernel_init=START, dtype=exact, name="verdict")
        return out(h)
