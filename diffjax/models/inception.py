"""The Inception-v3 of 2015 whose features make an FID (Szegedy et al. 2016), for inference.

This is the graph that Heusel et al. (2017) took from TensorFlow, with its oddities: average pools
do not count the padding, the last block takes a maximum where the others take an average, and
there are 1,008 classes. Layers have the names of torch-fidelity's and pytorch-fid's files. Batch
norms are part of the kernels and biases (`folded` in evaluation/extractors/inception.py).
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SIDE_PX = 299
FEATURES, CLASSES = 2048, 1008
EPSILON = 1e-3  # of the batch norms

Map: TypeAlias = Float[Array, "b h w c"]
Smaller: TypeAlias = Float[Array, "b i j d"]
Mean: TypeAlias = Float[Array, "b _"]


class Means(NamedTuple):
    """The means over all places of four layers, by their widths. An FID takes the last."""

    of_64: Mean
    of_192: Mean
    of_768: Mean
    of_2048: Mean


class Inception(nn.Module):
    """Pictures as (x - 128) / 128 of their bytes -> (means of layers, logits without biases)."""

    @nn.compact
    def __call__(self, x: Map) -> tuple[Means, Float[Array, "b k"]]:
        """Weights are trained at 299 px; other sides from 75 px up are allowed."""
        h = Convolution(32, (3, 3), 2, padded=False, name="Conv2d_1a_3x3")(x)
        h = Convolution(32, (3, 3), padded=False, name="Conv2d_2a_3x3")(h)
        h = Convolution(64, (3, 3), name="Conv2d_2b_3x3")(h)
        first = h = shrunk(h)
        h = Convolution(80, name="Conv2d_3b_1x1")(h)
        h = Convolution(192, (3, 3), padded=False, name="Conv2d_4a_3x3")(h)
        second = h = shrunk(h)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            h = BlockA(pooled, name=name)(h)
        h = BlockB(name="Mixed_6a")(h)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160),
                            ("Mixed_6e", 192)):  # fmt: skip
            h = BlockC(inner, name=name)(h)
        third, h = h, BlockD(name="Mixed_7a")(h)
        h = BlockE(averages=True, name="Mixed_7b")(h)
        h = BlockE(averages=False, name="Mixed_7c")(h)
        means = Means(*(layer.mean(axis=(1, 2)) for layer in (first, second, third, h)))
        return means, nn.Dense(CLASSES, use_bias=False, name="fc")(means.of_2048)


class Convolution(nn.Module):
    """A convolution with its batch norm in it, and ReLU.

    padded: whether the result has a place for each of x, where pixels around it are 0; otherwise
    only places whose pixels are all in x. averaged: takes the mean over 3 x 3 places before the
    bias is added. That is the convolution, of 1 x 1, of the mean, and costs less.
    """

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True
    averaged: bool = False

    @nn.compact
    def __call__(self, x: Map) -> Smaller:  # noqa: D102
        shape = (*self.kernel, x.shape[-1], self.width)
        kernel = jnp.asarray(self.param("kernel", nn.initializers.lecun_normal(), shape))
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, (self.width,)))
        if self.kernel == (1, 1):
            h = x @ kernel[0, 0]  # on CPUs faster than as a convolution
        elif self.padded:
            h = convolved(x, kernel, 1, "SAME")
        elif self.stride == 1:
            # XLA's convolutions on CPUs take up to five times as long without padding
            h = convolved(x, kernel, 1, "SAME")[:, 1:-1, 1:-1]
        else:
            rows, columns = ((size - 3) // 2 + 1 for size in x.shape[1:3])
            h = convolved(x, kernel, 2, ((0, 1), (0, 1)))[:, :rows, :columns]
        return jax.nn.relu((averaged(h) if self.averaged else h) + bias)


def convolved(
    x: Map, kernel: Float[Array, "m n c d"], stride: int, padding: str | Sequence[tuple[int, int]]
) -> Smaller:
    """The sum over kernel[i, j] of shifted pixels."""
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=axes
    )


def averaged(x: Map) -> Map:
    """The mean over 3 x 3 places, of those that are in the picture."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def highest(x: Map) -> Map:
    """The maximum over 3 x 3 places."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def shrunk(x: Map) -> Smaller:
    """The maximum over 3 x 3 places, of every second row and column."""
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


def chain(x: Map, name: str, steps: Sequence[tuple[int, tuple[int, int]]]) -> Smaller:
    """Convolutions (width, kernel) after each other, called NAME_1, NAME_2 and so on."""
    for number, (width, kernel) in enumerate(steps, start=1):
        x = Convolution(width, kernel, name=f"{name}_{number}")(x)
    return x


class BlockA(nn.Module):
    """At 35 x 35 places. pooled: the width of what is averaged."""

    pooled: int

    @nn.compact
    def __call__(self, x: Map) -> Smaller:  # noqa: D102
        return jnp.concatenate(
            [
                Convolution(64, name="branch1x1")(x),
                chain(x, "branch5x5", [(48, (1, 1)), (64, (5, 5))]),
                chain(x, "branch3x3dbl", [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))]),
                Convolution(self.pooled, averaged=True, name="branch_pool")(x),
            ],
            axis=-1,
        )


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17 places."""

    @nn.compact
    def __call__(self, x: Map) -> Smaller:  # noqa: D102
        h = chain(x, "branch3x3dbl", [(64, (1, 1)), (96, (3, 3))])
        return jnp.concatenate(
            [
                Convolution(384, (3, 3), 2, padded=False, name="branch3x3")(x),
                Convolution(96, (3, 3), 2, padded=False, name="branch3x3dbl_3")(h),
                shrunk(x),
            ],
            axis=-1,
        )


class BlockC(nn.Module):
    """At 17 x 17 places; filters of 7 x 7 are two of 1 x 7 and 7 x 1. inner: their width."""

    inner: int

    @nn.compact
    def __call__(self, x: Map) -> Smaller:  # noqa: D102
        n, wide, tall = self.inner, (1, 7), (7, 1)
        twice = [(n, (1, 1)), (n, tall), (n, wide), (n, tall), (192, wide)]
        return jnp.concatenate(
            [
                Convolution(192, name="branch1x1")(x),
                chain(x, "branch7x7", [(n, (1, 1)), (n, wide), (192, tall)]),
                chain(x, "branch7x7dbl", twice),
                Convolution(192, averaged=True, name="branch_pool")(x),
            ],
            axis=-1,
        )


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8 places."""

    @nn.compact
    def __call__(self, x: Map) -> Smaller:  # noqa: D102
        short = chain(x, "branch3x3", [(192, (1, 1))])
        long = chain(x, "branch7x7x3", [(192, (1, 1)), (192, (1, 7)), (192, (7, 1))])
        return jnp.concatenate(
            [
                Convolution(320, (3, 3), 2, padded=False, name="branch3x3_2")(short),
                Convolution(192, (3, 3), 2, padded=False, name="branch7x7x3_4")(long),
                shrunk(x),
            ],
            axis=-1,
        )


class BlockE(nn.Module):
    """At 8 x 8 places. averages: whether it averages; the last block takes the maximum."""

    averages: bool

    @nn.compact
    def __call__(self, x: Map) -> Smaller:  # noqa: D102
        def forked(h: Map, name: str) -> list[Smaller]:
            return [
                Convolution(384, kernel, name=f"{name}{letter}")(h)
                for letter, kernel in (("a", (1, 3)), ("b", (3, 1)))
            ]

        short = chain(x, "branch3x3", [(384, (1, 1))])
        long = chain(x, "branch3x3dbl", [(448, (1, 1)), (384, (3, 3))])
        pooled = x if self.averages else highest(x)
        return jnp.concatenate(
            [
                Convolution(320, name="branch1x1")(x),
                *forked(short, "branch3x3_2"),
                *forked(long, "branch3x3dbl_3"),
                Convolution(192, averaged=self.averages, name="branch_pool")(pooled),
            ],
            axis=-1,
        )
