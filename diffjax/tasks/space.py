"""The space of latents: pictures as an autoencoder shortens them, scaled for diffusion.

Rombach et al. 2022, sec. 3 and app. G. A task that learns latents has a `Space`, and the weights of
the autoencoder among its frozen ones.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Image, Resized
from diffjax.diffusion.sampling.tiles import joined
from diffjax.models.autoencoder.network import Autoencoder
from diffjax.tasks.autoencoding import drawn_latent
from diffjax.tasks.task import Columns, Params

# The column of a latent's moments, and the name of the autoencoder among a task's frozen weights.
LATENT, WEIGHTS = "latent", "space"
# Tiles of a large picture overlap by a quarter of their side.
OVERLAP = 4


@dataclass(frozen=True)
class Space:
    """z = (raw - shift) scale, where raw is a latent of the autoencoder.

    scale, shift: one number for all channels, or one for each. cached: training reads moments that
    were computed before, and not pictures. tile_px: pictures with a longer side are decoded in
    tiles of this side; 0: none are.
    """

    model: Autoencoder
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    cached: bool = False
    tile_px: int = 0

    @property
    def factor(self) -> int:
        """How many times longer the picture's side is than the latent's."""
        return self.model.sizes.factor

    @property
    def channels(self) -> int:
        """The channels of a latent."""
        return self.model.sizes.latent

    @property
    def drawn(self) -> bool:
        """Whether a latent is drawn from a Gaussian; with a codebook it is a point."""
        return not self.model.sizes.codes

    @property
    def num_moments(self) -> int:
        """The channels of moments: means and log variances, or those of a point."""
        return self.channels * (2 if self.drawn else 1)

    def moments(self, params: Params, image: Image) -> Resized:
        """The moments [b h/f w/f m] of pictures in [-1, 1], before scale and shift.

        With a codebook they are the vectors before they become codes.
        """
        found: Array = self.model.apply({"params": params}, image, method="encode")  # type: ignore[assignment]
        return found

    def draw(self, moments: Float[Array, "b h w m"], eps: Float[Array, "b h w z"]) -> Resized:
        """z = (mean + deviation eps - shift) scale; with a codebook eps is not used."""
        raw = drawn_latent(moments, eps)[0] if self.drawn else moments
        return self._scaled(raw)

    def mean(self, moments: Float[Array, "b h w m"]) -> Resized:
        """The middle of the latents, scaled."""
        return self._scaled(moments[..., : self.channels])

    def encode(self, params: Params, image: Image) -> Resized:
        """The middle of the latents of pictures in [-1, 1], scaled."""
        return self.mean(self.moments(params, image))

    def decode(self, params: Params, z: Float[Array, "b h w z"]) -> Resized:
        """The pictures [b h*f w*f 3] of scaled latents, mostly in [-1, 1].

        With a codebook each place becomes its nearest code first. A picture larger than `tile_px`
        is decoded tile by tile, in the memory of one; its norms and its attention then see a tile.
        """
        raw = z / jnp.asarray(self.scale) + jnp.asarray(self.shift)
        tile = self.tile_px // self.factor
        decode = lambda part: self._decoded(params, part)  # noqa: E731
        if not tile or max(raw.shape[1:3]) <= tile:
            return decode(raw)
        return joined(decode, raw, tile=tile, overlap=tile // OVERLAP, factor=self.factor)

    def told(self, params: Params, told: Columns) -> Columns:
        """The network's inputs, where a picture with a hole is a latent, and its hole is as large.

        A place of the latent belongs to the hole if a pixel of it does.
        """
        if "masked" not in told:
            return told
        mask = enlarged_hole(told["mask"], self.factor)
        return {**told, "masked": self.encode(params, told["masked"]), "mask": mask}

    def _scaled(self, raw: Float[Array, "b h w z"]) -> Resized:
        return (raw - jnp.asarray(self.shift)) * jnp.asarray(self.scale)

    def _decoded(self, params: Params, raw: Float[Array, "b h w z"]) -> Resized:
        if not self.drawn:
            found = self.model.apply({"params": params}, raw, method="quantise")
            raw = found.vector  # type: ignore[union-attr]
        made: Array = self.model.apply({"params": params}, raw, method="decode")  # type: ignore[assignment]
        return made


def enlarged_hole(hole: Float[Array, "b h w 1"], factor: int) -> Resized:
    """The hole at 1 / factor of its size: 1 at each place of which a pixel is in the hole."""
    b, h, w, _ = hole.shape
    return jnp.max(hole.reshape(b, h // factor, factor, w // factor, factor, 1), axis=(2, 4))
