"""The types of arrays that several modules use, with one letter for each kind of axis.

b batch, h w pixels, c channels, l text length, d text width, e embedding width, n rungs. If only
the batch matters, *shape stands for the axes of one example: [d], [n 3], [t c] or [h w c].
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from jaxtyping import Array, Bool, Float, Int, Key

# What diffusion models make: vectors [b d], coordinates [b n 3], sequences [b t c], pictures
# [b h w c].
Data: TypeAlias = Float[Array, "b *shape"]
# Data of the same batch with another shape than the other arguments.
Reshaped: TypeAlias = Float[Array, "b ..."]
Image: TypeAlias = Float[Array, "b h w c"]
# Images of the same batch with another size or other channels than the arguments.
Resized: TypeAlias = Float[Array, "b _ _ _"]
LogSnr: TypeAlias = Float[Array, " b"]
PerExample: TypeAlias = Float[Array, " b"]
# A number per example, followed by axes of length 1, so that it multiplies data [b *shape].
Factor: TypeAlias = Float[Array, "b ..."]
Scalar: TypeAlias = Float[Array, ""]
Text: TypeAlias = Float[Array, "b l d"]
TextMask: TypeAlias = Bool[Array, "b l"]
# The ids of a text, -1 where there is no token.
TokenIds: TypeAlias = Int[Array, "b l"]
PRNGKey: TypeAlias = Key[Array, ""]
PRNGKeys: TypeAlias = Key[Array, " b"]

# u in [0, 1] -> logsnr, decreasing: u = 0 is clean, u = 1 is noise.
Schedule: TypeAlias = Callable[[Float[Array, "..."]], Float[Array, "..."]]
# (x_t, logsnr_t) -> eps, v or x_0: the trained net bound to its params and conditioning.
Network: TypeAlias = Callable[[Data, LogSnr], Data]


class Guess(NamedTuple):
    """What a denoiser with a learned variance returns.

    fraction: the place of the log variance of a step between the smallest and the largest one;
    samplers that need no variance ignore it.
    """

    x_0: Data
    fraction: Data


Denoised: TypeAlias = Data | Guess
# (x_t, logsnr_t) -> x_0_hat: what samplers and guidance use.
Denoiser: TypeAlias = Callable[[Data, LogSnr], Denoised]
