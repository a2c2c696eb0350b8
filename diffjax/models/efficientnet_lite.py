"""EfficientNet-lite0 (Tan & Le 2019, without squeeze-and-excitation and with ReLU6), for inference.

Names of layers are those of the conversion in encoders/lite0.py. Padding is
TensorFlow's SAME.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Image
from diffjax.images import pixels

EPSILON = 1e-3  # of TensorFlow's batch norm
STEM, FEATURES, CLASSES = 32, 1280, 1000
SIDE_PX = 224


class Stage(NamedTuple):
    """Equal blocks; the first has the stride, and changes the width."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Lite0(nn.Module):
    """Pictures in [-1, 1] -> (features before the last layer, logits of ImageNet's classes).

    The features are the means over all places of the last convolution, at least 0 and at most 6.
    classes: 0 leaves the last layer out; there are no logits then.
    """

    stages: tuple[Stage, ...] = STAGES
    features: int = FEATURES
    classes: int = CLASSES

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
        """Weights are trained at 224 px; other sizes are allowed."""
        h = Convolution(STEM, 3, 2, name="stem")(x)
        names = iter(range(sum(stage.blocks for stage in self.stages)))
        for stage in self.stages:
            for i in range(stage.blocks):
                repeated = stage._replace(stride=stage.stride if i == 0 else 1)
                h = Block(repeated, name=f"block_{next(names)}")(h)
        h = Convolution(self.features, 1, 1, name="head")(h).mean(axis=(1, 2))
        return h, nn.Dense(self.classes, name="classes")(h) if self.classes else h[:, :0]


def prepared(image: Image) -> Float[Array, "b s s c"]:
    """Pictures in [-1, 1] as (x - 127) / 128 at 224 px, x from 0 to 255, as weights are trained.

    Pictures are resized as a whole, by bicubic interpolation with antialiasing.
    """
    resized = pixels.resize(image, SIDE_PX, SIDE_PX)
    return (jnp.clip(resized, -1, 1) * 127.5 + 0.5) / 128


class Block(nn.Module):
    """Expands, filters each channel, projects; adds its input where shapes allow."""

    stage: Stage

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:  # noqa: D102
        stage, h = self.stage, x
        if stage.expand > 1:
            h = Convolution(stage.expand * x.shape[-1], 1, 1, name="expand")(h)
        h = Depthwise(stage.kernel, stage.stride, name="depthwise")(h)
        h = Convolution(stage.width, 1, 1, relu=False, name="project")(h)
        return x + h if stage.stride == 1 and x.shape[-1] == stage.width else h


class Convolution(nn.Module):
    """A convolution without bias, batch norm, and ReLU6 unless `relu` is False."""

    width: int
    kernel: int
    stride: int
    relu: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:  # noqa: D102
        kernel = (self.kernel, self.kernel)
        h = nn.Conv(self.width, kernel, self.stride, use_bias=False, name="conv")(x)
        h = Norm(name="norm")(h)
        return jax.nn.relu6(h) if self.relu else h


class Depthwise(nn.Module):
    """A filter for each channel, batch norm and ReLU6."""

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:  # noqa: D102
        h = Shifted(self.kernel, self.stride, name="conv")(x)
        return jax.nn.relu6(Norm(name="norm")(h))


class Shifted(nn.Module):
    """The filter of each channel as a sum of shifted pictures.

    On CPUs XLA has no fast convolution of that many groups: the whole network is four times faster
    so, and its gradient too.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:  # noqa: D102
        size, stride, sides = self.kernel, self.stride, x.shape[1:3]
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (size, size, 1, x.shape[-1]))
        rows, columns = (-(-side // stride) for side in sides)
        ends = ((rows - 1) * stride + 1, (columns - 1) * stride + 1)
        missing = (max(end - 1 + size - side, 0) for end, side in zip(ends, sides, strict=True))
        around = [(lack // 2, lack - lack // 2) for lack in missing]
        wide = jnp.pad(x, ((0, 0), *around, (0, 0)))
        parts = [
            wide[:, i : i + ends[0] : stride, j : j + ends[1] : stride] * kernel[i, j, 0]
            for i in range(size)
            for j in range(size)
        ]
        return sum(parts[1:], start=parts[0])


class Norm(nn.Module):
    """Batch norm with the statistics of training."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:  # noqa: D102
        def of(name: str, init: nn.initializers.Initializer) -> Array:
            return jnp.asarray(self.param(name, init, x.shape[-1:]))

        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        gain = of("scale", ones) * jax.lax.rsqrt(of("var", ones) + EPSILON)
        return x * gain + (of("bias", zeros) - of("mean", zeros) * gain)
