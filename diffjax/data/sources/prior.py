"""Pictures of a new thing, mixed with pictures of its class (DreamBooth, Ruiz et al. 2023)."""

from diffjax.data.record import Record, RecordSource
from diffjax.data.sources.mixture import Mixture

PRIOR = "prior"


class WithPrior(Mixture):
    """The records of both; the field `prior` says whether one is of the class.

    share: of all examples that are of the class, whatever the numbers of records.
    """

    def __init__(self, own: RecordSource, prior: RecordSource, share: float):
        super().__init__((own, prior), ((1 - share) * len(prior), share * len(own)))

    def __getitem__(self, index: int) -> Record:
        """The record at `index`, with the field `prior`."""
        return {**super().__getitem__(index), PRIOR: index >= self.first_indices[1]}
