"""scikit-learn's handwritten digits: 1,797 grey pictures of 8 x 8 pixels with their class.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998; here
the test part, as scikit-learn ships it.
"""

import numpy as np
from jaxtyping import Int, UInt8

from diffjax.data import transforms
from diffjax.data.record import Record

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LEVELS = 16  # a pixel is 0 (paper) to 16 (ink)


class Digits:
    """Records with `image`, `label` and a caption; a pure function of the index."""

    def __init__(self):
        self._images, self._labels = load()

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; white ink on black as three equal channels."""
        label = int(self._labels[index])
        return {
            "image": transforms.encode_png(np.repeat(self._images[index][..., None], 3, axis=-1)),
            "captions": (f"the digit {NAMES[label]}",),
            "label": label,
            "name": f"digit_{index}",
        }

    def __repr__(self) -> str:
        """As messages name it."""
        return f"digits ({len(self)} records)"

    def fingerprint(self) -> str:
        """The data never change."""
        return f"scikit-learn digits, {len(self)} records"


def load() -> tuple[UInt8[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
    """All pictures as bytes, and their classes.

    Raises:
      ValueError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError("digits come with scikit-learn: pip install scikit-learn") from None
    found = load_digits()
    images = np.rint(found.images * (255 / LEVELS)).astype(np.uint8)
    return images, found.target.astype(np.int64)
