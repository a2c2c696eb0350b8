"""Fixed embeddings of positions in a grid, for transformers."""

import numpy as np
from jaxtyping import Float

LONGEST = 10_000.0


def sincos(height: int, width: int, channels: int) -> Float[np.ndarray, "l c"]:
    """Sines and cosines of the places of a grid, row by row: [height * width, channels] in float32.

    The first half of the channels says the column and the second the row, each with the sines and
    then the cosines of channels / 4 frequencies 10,000^(-4 i / channels) (He et al. 2022, MAE;
    Peebles & Xie 2023). The first row and column have the number 0 at every size.

    Raises:
      ValueError: channels are not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"width {channels} of positions: it must be a multiple of 4")
    frequencies = LONGEST ** (-np.arange(channels // 4) / (channels // 4))
    row, column = np.divmod(np.arange(height * width), width)
    angles = [place[:, None] * frequencies for place in (column, row)]
    waves = [wave(a) for a in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)
