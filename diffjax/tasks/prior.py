"""The diffusion prior: from a text to the CLIP vector of a picture (Ramesh et al. 2022, sec. 2.2).

It is the task of denoising whose data are vectors; what it adds is their scale, and the choice
among several samples.
"""

from dataclasses import dataclass

from diffjax.core.types import Data, PRNGKeys, Reshaped
from diffjax.models.clip.clip import unit
from diffjax.tasks import sampling
from diffjax.tasks.conditions import told_by
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, Params, register
from diffjax.tasks.vectors import TEXT_VECTOR, Vectors, nearest_of, preview_of

# Frozen weights of a prior of others: of each number of a vector.
MEAN, STD = "mean", "std"


@register
@dataclass(frozen=True)
class DiffusionPrior(Denoising):
    """Learns z_0 = scale z, where z is the column `of`: a unit vector, unless `normalised` is off.

    A prior whose frozen weights have `mean` and `std` [e] learns (z - mean) / std instead. best_of:
    so many vectors are made of a text, and the one with the largest z . z_t is kept.
    """

    scale: float = 1.0
    best_of: int = 1
    normalised: bool = True

    @property
    def clipped(self) -> bool:
        """No: its data are not those of pictures."""
        return False

    @property
    def size_px(self) -> int:
        """It makes no pictures."""
        return 0

    def seen(self, batch: Columns) -> tuple[Data, Columns]:
        """(z_0, what the network is told) of a batch that `draw` made."""
        return self.clean(batch), told_by(self.conditions, batch)

    def clean(self, batch: Columns) -> Data:
        """z_0 of a batch."""
        return self.learned(batch[self.of])

    def learned(self, picture: Data) -> Reshaped:
        """Vectors as the network learns them."""
        if MEAN in self.frozen:
            return (picture - self.frozen[MEAN]) / self.frozen[STD]
        return self.scale * picture

    def pictured(self, x_0: Data) -> Reshaped:
        """What the network made, as vectors of the CLIP; not yet normalised."""
        if MEAN in self.frozen:
            return x_0 * self.frozen[STD] + self.frozen[MEAN]
        return x_0 / self.scale

    def vectors(
        self, params: Params, columns: Columns, keys: PRNGKeys, settings: SampleSettings
    ) -> Vectors:
        """The vectors for the texts in `columns`: unit ones, if the prior learned those."""
        made = raw(params, columns, keys, task=self, settings=settings)
        return unit(made) if self.normalised else made

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """`made_vector`, and `made`: the picture of the batch that is nearest to it."""
        made = self.vectors(params, self.prompted(batch), keys, self.settings)
        return preview_of(made, batch)


def raw(
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    *,
    task: DiffusionPrior,
    settings: SampleSettings,
) -> Vectors:
    """argmax of z . z_t over `task.best_of` samples z of each row, not yet normalised."""

    def one(keys: PRNGKeys) -> Vectors:
        return sampling.sample(params, columns, keys, task=task, settings=settings)

    return nearest_of(one, keys, task.best_of, columns[TEXT_VECTOR])
