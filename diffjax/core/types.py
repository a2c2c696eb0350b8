"""The shapes that travel between modules, in one alphabet.

b batch, h w pixels, c channels, l text length, d text width, e embedding width, n rungs.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from jaxtyping import Array, Bool, Float, Key

Image: TypeAlias = Float[Array, "b h w c"]
# An image of the same batch whose size or channels are not those of the arguments.
Resized: TypeAlias = Float[Array, "b _ _ _"]
LogSnr: TypeAlias = Float[Array, " b"]
# A number per image, shaped so that it never meets the width axis by accident.
PerImage: TypeAlias = Float[Array, "b 1 1 1"]
Scalar: TypeAlias = Float[Array, ""]
Text: TypeAlias = Float[Array, "b l d"]
TextMask: TypeAlias = Bool[Array, "b l"]
PRNGKey: TypeAlias = Key[Array, ""]
PRNGKeys: TypeAlias = Key[Array, " b"]

# u in [0, 1] -> logsnr, decreasing: u = 0 is clean, u = 1 is noise.
Schedule: TypeAlias = Callable[[Float[Array, "..."]], Float[Array, "..."]]
# (x_t, logsnr_t) -> eps, v or x_0: the trained net bound to its params and conditioning.
Network: TypeAlias = Callable[[Image, LogSnr], Image]


class Guess(NamedTuple):
    """What a denoiser with a learned variance says; samplers that need no variance ignore it.

    fraction: how far, in logs, the step's variance lies from the small to the large one.
    """

    x_0: Image
    fraction: Image


Denoised: TypeAlias = Image | Guess
# (x_t, logsnr_t) -> x_0_hat: what samplers and guidance speak.
Denoiser: TypeAlias = Callable[[Image, LogSnr], Denoised]
