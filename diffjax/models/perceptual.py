"""How unlike two pictures are to a network that has seen many (Zhang et al. 2018, "LPIPS")."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.trees import Params
from diffjax.core.types import Image, PerExample
from diffjax.models.efficientnet_lite import Lite0

# Added to the length that activations are divided by, as `lpips` does.
OFFSET = 1e-10


@runtime_checkable
class Perceptual(Protocol):
    """A distance between pictures in [-1, 1] of equal sizes."""

    def distance(self, params: Params, a: Image, b: Image) -> PerExample:
        """Of each pair, at least 0."""
        ...


@dataclass(frozen=True)
class ByLite0:
    """The distance of EfficientNet-lite0's activations before each halving of the picture.

    Those of a place are divided by their length, and the squares of the differences are summed over
    channels, averaged over places and summed over layers: eq. 1 of Zhang et al. with all weights 1.
    """

    layers: Sequence[str] = ("block_0", "block_2", "block_4", "block_10", "block_15")

    def distance(self, params: Params, a: Image, b: Image) -> PerExample:
        """Of each pair."""
        both = self.activations(params, jnp.concatenate([a, b]))
        return sum_of(jnp.mean(_squares(h), axis=(1, 2, 3)) * h.shape[-1] for h in both)

    def activations(self, params: Params, x: Image) -> list[Float[Array, "b i j d"]]:
        """Of the layers, for pictures in [-1, 1] of any size."""
        seen = (x * 127.5 + 0.5) / 128.0  # as its weights were trained: (byte - 127) / 128
        keep = lambda module, method: module.name in self.layers  # noqa: E731
        _, kept = Lite0().apply(
            {"params": params}, seen, capture_intermediates=keep, mutable=["intermediates"]
        )
        return [kept["intermediates"][name]["__call__"][0] for name in self.layers]


# Widths of VGG16's convolutions by block; a maximum over 2 x 2 pixels stands between blocks.
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Mean and deviation of ImageNet's channels, for pictures in [-1, 1], as `lpips` has them.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Vgg16(nn.Module):
    """The convolutions of VGG16; returns the activations at the end of each block."""

    @nn.compact
    def __call__(self, x: Image) -> list[Float[Array, "b i j d"]]:
        """Of pictures in [-1, 1]."""
        h = (x - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
        found: list[Float[Array, "b i j d"]] = []
        for block, widths in enumerate(VGG16):
            if block > 0:
                h = nn.max_pool(h, (2, 2), (2, 2))
            for i, width in enumerate(widths):
                h = nn.relu(nn.Conv(width, (3, 3), padding=1, name=f"conv_{block}_{i}")(h))
            found.append(h)
        return found


@dataclass(frozen=True)
class Lpips:
    """LPIPS, version 0.1, with VGG16.

    Parameters: `network`, those of `Vgg16`, and `weights`, a vector per block.
    """

    def distance(self, params: Params, a: Image, b: Image) -> PerExample:
        """Of each pair."""
        both = Vgg16().apply({"params": params["network"]}, jnp.concatenate([a, b]))
        weights: Mapping[str, Array] = params["weights"]
        return sum_of(
            jnp.mean(_squares(h) @ weights[f"block_{i}"], axis=(1, 2)) for i, h in enumerate(both)
        )


def sum_of(parts: Iterable[PerExample]) -> PerExample:
    """The sum over layers."""
    return jnp.sum(jnp.stack(list(parts)), axis=0)


def _squares(both: Float[Array, "b2 i j d"]) -> Float[Array, "b i j d"]:
    """The squared differences of two halves of a batch, each place divided by its length.

    Places without any activation stay zero, and have no gradient.
    """
    square = jnp.sum(jnp.square(both), axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(square > 0, square, 1.0)) + OFFSET
    a, b = jnp.split(both / length, 2)
    return jnp.square(a - b)
