"""Towers on frozen networks: only their heads are trained (LiT, Zhai et al. 2022)."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from diffjax.core.types import Image, LogSnr
from diffjax.models import efficientnet_lite
from diffjax.models.clip.sizes import Activation, CLIPConfig
from diffjax.models.clip.transformer import EPS, FUNCTIONS

Vectors = Float[Array, "b d"]
Kept = Bool[Array, "b d"]
# The width of the vector of each backbone.
BACKBONES: Mapping[str, int] = {"lite0": efficientnet_lite.FEATURES}


class States(NamedTuple):
    """What a frozen text encoder says: a state of each token, and which tokens there are."""

    text: Float[Array, "b l d"]
    mask: Bool[Array, "b l"]


class Head(nn.Module):
    """The vectors of a frozen network -> a norm and two dense layers -> features.

    width: of the layer between. embed: of the features. dtype: of products.
    """

    width: int
    embed: int
    activation: Activation
    dtype: DTypeLike

    def setup(self) -> None:
        """The layers by their names in a checkpoint."""
        # without gains: it only brings the numbers of a vector to mean 0 and variance 1
        self.norm_in = nn.LayerNorm(EPS, dtype=jnp.float32, use_bias=False, use_scale=False)
        self.up = nn.Dense(self.width, dtype=self.dtype)
        self.down = nn.Dense(self.embed, use_bias=False, dtype=self.dtype)

    def of_vector(self, vector: Vectors, kept: Kept | None = None) -> Float[Array, "b e"]:
        """[b d] -> [b e]. kept: which numbers are not dropped; their mean stays by a scale."""
        h = self.norm_in(vector)
        if kept is not None:
            h = h * kept / jnp.maximum(jnp.mean(kept, axis=-1, keepdims=True), EPS)
        h = FUNCTIONS[self.activation](self.up(h.astype(self.dtype)))
        return self.down(h).astype(jnp.float32)


class BackboneTower(Head):
    """Pictures -> the vectors of a backbone -> features.

    Its parameters are `backbone`, which `of_vector` does not need, and those of the head. The
    backbone is float32.
    """

    def setup(self) -> None:
        """The layers by their names in a checkpoint."""
        super().setup()
        self.backbone = efficientnet_lite.Lite0(classes=0)

    def __call__(self, image: Image, logsnr: LogSnr | None = None) -> Float[Array, "b e"]:
        """[b s s 3] in [-1, 1] -> [b e]; logsnr is not told to it."""
        return self.of_vector(self.backbone(efficientnet_lite.prepared(image))[0])


class ToldTower(Head):
    """The mean of the states of a text's tokens -> features."""

    def __call__(self, told: States, kept: Kept | None = None) -> Float[Array, "b e"]:
        """[b l d] -> [b e]; a text without tokens has the mean 0."""
        there = told.mask[..., None].astype(jnp.float32)
        total = jnp.sum(told.text.astype(jnp.float32) * there, axis=1)
        return self.of_vector(total / jnp.maximum(jnp.sum(there, axis=1), 1.0), kept)


def image_head(config: CLIPConfig, dtype: DTypeLike) -> BackboneTower:
    """The image tower of a CLIP on a backbone."""
    return BackboneTower(config.image.width, config.embed, config.activation, dtype)


def text_head(config: CLIPConfig, dtype: DTypeLike) -> ToldTower:
    """The text tower of a CLIP that is told states."""
    return ToldTower(config.text.width, config.embed, config.activation, dtype)
