"""DINOv2 (Oquab et al. 2024): a ViT with layer scale, read at its class token; for inference."""

import math
from dataclasses import dataclass

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPSILON = 1e-6  # of LayerNorm
SHARPNESS = -0.75  # of PyTorch's bicubic interpolation

Tokens = Float[Array, "b l d"]


@dataclass(frozen=True)
class Dinov2Config:
    """The sizes of a network.

    positions: the side, in patches, of the grid that it was trained on. offset: is added to the
    number of patches on a side when the positions are interpolated. The authors add 0.1, and their
    features are those of published distances; transformers adds nothing.
    """

    width: int = 1024
    layers: int = 24
    heads: int = 16
    hidden: int = 4096
    patch: int = 14
    positions: int = 37
    offset: float = 0.1


L14 = Dinov2Config()


class Dinov2(nn.Module):
    """Pictures, scaled by the mean and deviation of ImageNet's -> the state of the class token."""

    config: Dinov2Config = L14

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        """[b s s 3] -> [b d]; s is a multiple of the side of a patch."""
        config, square = self.config, (self.config.patch, self.config.patch)
        normal = nn.initializers.normal(0.02)
        h = nn.Conv(config.width, square, square, "VALID", name="patch")(x)
        first = self.param("class_token", normal, (config.width,))
        places = self.param("positions", normal, (config.positions**2 + 1, config.width))
        grid = einops.rearrange(places[1:], "(h w) d -> h w d", h=config.positions)
        h = h + interpolated(grid, h.shape[1], config.offset)
        h = einops.rearrange(h, "b h w d -> b (h w) d")
        first = jnp.broadcast_to(first + places[0], (len(h), 1, config.width))
        h = jnp.concatenate([first, h], axis=1)
        for i in range(config.layers):
            h = Block(config, name=f"block_{i}")(h)
        return norm("norm")(h[:, 0])


class Block(nn.Module):
    """h + scale * attention(norm(h)), then h + scale * feed_forward(norm(h))."""

    config: Dinov2Config

    @nn.compact
    def __call__(self, h: Tokens) -> Tokens:
        """[b l d] -> [b l d]."""
        width = self.config.width

        def scale(name: str) -> Array:
            return jnp.asarray(self.param(name, nn.initializers.ones, (width,)))

        qkv = nn.Dense(3 * width, name="qkv")(norm("attention_norm")(h))
        heads = einops.rearrange(qkv, "b l (n h k) -> n b l h k", n=3, h=self.config.heads)
        seen = einops.rearrange(jax.nn.dot_product_attention(*heads), "b l h k -> b l (h k)")
        h = h + scale("attention_scale") * nn.Dense(width, name="attention_out")(seen)

        r = nn.Dense(self.config.hidden, name="up")(norm("feed_forward_norm")(h))
        r = nn.Dense(width, name="down")(jax.nn.gelu(r, approximate=False))
        return h + scale("feed_forward_scale") * r


def norm(name: str) -> nn.LayerNorm:
    """A LayerNorm of DINOv2."""
    return nn.LayerNorm(epsilon=EPSILON, name=name)


def interpolated(grid: Float[Array, "i j d"], side: int, offset: float) -> Float[Array, "s s d"]:
    """The grid of positions for `side` patches a side, bicubically; itself if it has as many."""
    if len(grid) == side:
        return grid
    matrix = bicubic(len(grid), side, offset)
    return jnp.einsum("si,tj,ijd->std", matrix, matrix, grid)


def bicubic(count: int, side: int, offset: float) -> Float[np.ndarray, "s i"]:
    """PyTorch's bicubic interpolation without antialiasing, as a matrix (Keys 1981, a = -0.75).

    Point i of the result is at (i + 1/2) count / (side + offset) - 1/2; points outside of the grid
    are those of its border.
    """
    matrix = np.zeros((side, count))
    for i in range(side):
        place = (i + 0.5) * count / (side + offset) - 0.5
        first = math.floor(place) - 1
        for point in range(first, first + 4):
            matrix[i, min(max(point, 0), count - 1)] += _cubic(abs(place - point))
    return matrix.astype(np.float32)


def _cubic(x: float) -> float:
    """The weight of a point at the distance x, less than 2."""
    a = SHARPNESS
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4)
