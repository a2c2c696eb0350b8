"""The works on which our programs and those of others are timed. Needs only Python.

W1   base: text to 64 px, attention at 16 and 8 px
W2   super-resolution: text and 64 px to 256 px, attention at the lowest level
W3   DDPM's CIFAR network (Ho et al. 2020): 32 px, no text, attention at 16 px

train: draws of times and noise, loss, gradients, Adam. denoise: one clipped DDIM step, with
guidance (on twice the batch) if there is text. A work fixes the size of the picture, the batch, and
the widths, blocks and attention of the network; everything else is its author's choice.
"""

from typing import NamedTuple

MODES = ("train", "denoise")


class Work(NamedTuple):
    """side in pixels; width of the first level, its multiples and blocks by level.

    attends: whether a level attends to itself or to the text. text: (length, width) or None.
    """

    side: int
    width: int
    mults: tuple[int, ...]
    blocks: tuple[int, ...]
    attends: tuple[bool, ...]
    batch: int
    text: tuple[int, int] | None
    low_res: bool = False

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of each level."""
        return tuple(self.width * mult for mult in self.mults)

    def rows(self, mode: str) -> int:
        """Pictures that pass through the network in one step: twice the batch with guidance."""
        return self.batch * (2 if mode == "denoise" and self.text else 1)


WORKS = {
    "W1": Work(64, 64, (1, 2, 3, 4), (2,) * 4, (False, False, True, True), 4, (64, 512)),
    "W2": Work(
        256, 32, (1, 2, 4, 8), (2, 4, 8, 8), (False, False, False, True), 1, (64, 512), low_res=True
    ),
    "W3": Work(32, 128, (1, 2, 2, 2), (2,) * 4, (False, True, False, False), 8, None),
}
