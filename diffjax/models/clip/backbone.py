"""An image tower on a frozen network: only its head is trained (LiT, Zhai et al. 2022)."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from diffjax.core.types import Image, LogSnr
from diffjax.models import efficientnet_lite
from diffjax.models.clip.sizes import CLIPConfig
from diffjax.models.clip.transformer import EPS, FUNCTIONS

Vectors = Float[Array, "b d"]
# The width of the vector of each backbone.
BACKBONES: Mapping[str, int] = {"lite0": efficientnet_lite.FEATURES}


class BackboneTower(nn.Module):
    """Pictures -> the backbone's vectors -> a norm and two dense layers -> features.

    Its parameters are `backbone`, which `of_vector` does not need, and those of the head. dtype: of
    the head's products; the backbone is float32.
    """

    config: CLIPConfig
    dtype: DTypeLike

    def setup(self) -> None:
        """The layers by their names in a checkpoint."""
        self.backbone = efficientnet_lite.Lite0(classes=0)
        # without gains: it only brings the numbers of a vector to mean 0 and variance 1
        self.norm_in = nn.LayerNorm(EPS, dtype=jnp.float32, use_bias=False, use_scale=False)
        self.up = nn.Dense(self.config.image.width, dtype=self.dtype)
        self.down = nn.Dense(self.config.embed, use_bias=False, dtype=self.dtype)

    def __call__(self, image: Image, logsnr: LogSnr | None = None) -> Float[Array, "b e"]:
        """[b s s 3] in [-1, 1] -> [b e]; logsnr is not told to it."""
        return self.of_vector(self.backbone(efficientnet_lite.prepared(image))[0])

    def of_vector(
        self, vector: Vectors, kept: Bool[Array, "b d"] | None = None
    ) -> Float[Array, "b e"]:
        """[b d] -> [b e]. kept: which numbers are not dropped; their mean stays by a scale."""
        h = self.norm_in(vector)
        if kept is not None:
            h = h * kept / jnp.maximum(jnp.mean(kept, axis=-1, keepdims=True), EPS)
        h = FUNCTIONS[self.config.activation](self.up(h.astype(self.dtype)))
        return self.down(h).astype(jnp.float32)
