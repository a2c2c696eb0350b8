"""A CLIP's image tower as an extractor, for CMMD and for a Frechet distance, FD-CLIP."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from diffjax.core.errors import InputError
from diffjax.core.trees import Params
from diffjax.encoders.clip import encoder
from diffjax.encoders.clip.encoder import Clip
from diffjax.encoders.foreign import DIGITS
from diffjax.evaluation.extractors.extractor import Apply, Extractor
from diffjax.images import pixels
from diffjax.models.clip.clip import CLIP
from diffjax.models.clip.sizes import CLIPConfig


def load(where: str) -> Extractor:
    """The extractor of a folder, a file or a name on the hub, as `encoders.clip` reads them.

    Raises:
      InputError: there is none, or it is not a CLIP with a ViT.
    """
    try:
        return of(encoder.load(where))
    except ValueError as error:
        raise InputError(str(error)) from None


def of(clip: Clip) -> Extractor:
    """The extractor of a CLIP that is already open. Its features have CLIP's length, not 1.

    CMMD and the CLIP score take their directions by themselves.
    """
    config = clip.config
    return Extractor(
        name=f"clip {clip.name} image tower, weights {clip.fingerprint[:DIGITS]}",
        resize=f"bicubic {config.size_px} px",
        width=config.embed,
        label="fd_clip",
        params=clip.params,
        apply=_tower(config, clip.dtype),
    )


@functools.lru_cache(maxsize=8)
def _tower(config: CLIPConfig, dtype: np.dtype) -> Apply:
    """The function of all CLIPs of a size."""
    model = CLIP(config, dtype=dtype)

    def apply(params: Params, pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b e"]:
        image = pixels.resize(pixels.from_uint8(pictures), config.size_px, config.size_px)
        image = jnp.clip(image, -1, 1)
        made = model.apply({"params": params}, image, method="of_image")
        return jnp.asarray(made, jnp.float32)

    return apply
