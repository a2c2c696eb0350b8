"""What a condition is: one thing that a network is told beside its noisy input."""

import re
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import PRNGKey, PRNGKeys
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, ExampleShapes

# A column of this name is what guidance leads away from, in place of nothing.
NEGATIVE = "negative_"
# The share of a further prompt, beside its own columns.
SHARE = "share"


def also(index: int) -> str:
    """What the columns of a further prompt of a composed picture begin with."""
    return f"also_{index}_"


def unprefixed(column: str) -> str:
    """The column whose place this one takes: of a negative or a further prompt, or itself."""
    return re.sub(rf"^({NEGATIVE}|also_\d+_)", "", column)


@runtime_checkable
class Condition(Protocol):
    """One thing that a network is told. Its chance comes from keys of names of its own."""

    def columns(self) -> ExampleShapes:
        """What it reads of one example in training."""
        ...

    def prompts(self) -> ExampleShapes:
        """What it reads of one row when sampling."""
        ...

    def nothing(self, rows: int) -> Columns:
        """The columns of `prompts` where nothing is said; {} for what must be said."""
        ...

    def shown(self, batch: Columns) -> Columns:
        """The columns of `prompts` for a preview, of a training batch."""
        ...

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """Which rows are left out, at which level rows are noised: chance as columns."""
        ...

    def told(self, batch: Columns) -> Columns:
        """What the network is told in training, of a batch with its chance."""
        ...

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """What the network is told when sampling, from a key for each row."""
        ...

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """What the other half of guidance is told: nothing, or the negative in `columns`."""
        ...


def share_of(key: PRNGKey, name: str, batch: Columns) -> Float[Array, " b"]:
    """A uniform number for each row of a batch."""
    rows = len(next(iter(batch.values())))
    return jax.random.uniform(rng.stream(key, name), (rows,))
