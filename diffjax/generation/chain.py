"""Trained stages that fit each other, one after the other: text -> 64 -> 256 -> 1024."""

import dataclasses
from collections.abc import Sequence

from diffjax.encoders.t5 import TextEncoder
from diffjax.generation.recipe import Origin
from diffjax.tasks.sampling import SampleSettings, TrainedStage


@dataclasses.dataclass(frozen=True)
class Cascade:
    """Stages that fit each other, smallest first, where they come from, and their encoder."""

    stages: tuple[TrainedStage, ...]
    origins: tuple[Origin, ...]
    encoder: TextEncoder

    def with_settings(self, settings: Sequence[SampleSettings]) -> "Cascade":
        """The same stages, sampled in another way: one for each."""
        stages = zip(self.stages, settings, strict=True)
        return dataclasses.replace(
            self, stages=tuple(dataclasses.replace(s, settings=new) for s, new in stages)
        )
