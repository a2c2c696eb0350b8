"""The protocol of a condition, which is a further input of a network."""

import re
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import PRNGKey, PRNGKeys
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, ExampleShapes

# Columns with this prefix are what guidance moves away from, instead of from no condition.
NEGATIVE = "negative_"
# The share of a further prompt, beside its own columns.
SHARE = "share"


def also(index: int) -> str:
    """The prefix of the columns of a further prompt of a composed picture."""
    return f"also_{index}_"


def unprefixed(column: str) -> str:
    """The name of a column without the prefix of a negative or a further prompt."""
    return re.sub(rf"^({NEGATIVE}|also_\d+_)", "", column)


@runtime_checkable
class Condition(Protocol):
    """A further input of a network. Its random draws use keys with names of their own."""

    def columns(self) -> ExampleShapes:
        """The shapes of the columns of one example that it reads in training."""
        ...

    def prompts(self) -> ExampleShapes:
        """The shapes of the columns of one row that it reads when sampling."""
        ...

    def nothing(self, rows: int) -> Columns:
        """The columns of `prompts` that mean no condition; {} if there must be one."""
        ...

    def shown(self, batch: Columns) -> Columns:
        """The columns of `prompts` for a preview, from a training batch."""
        ...

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """The random draws as columns: which rows are dropped, at which level rows are noised."""
        ...

    def told(self, batch: Columns) -> Columns:
        """The network's keyword arguments in training, from a batch with its random draws."""
        ...

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The network's keyword arguments when sampling, with a key for each row."""
        ...

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """Those of guidance's other half: of no condition, or of the negative one in `columns`."""
        ...


def share_of(key: PRNGKey, name: str, batch: Columns) -> Float[Array, " b"]:
    """A uniform number for each row of a batch."""
    rows = len(next(iter(batch.values())))
    return jax.random.uniform(rng.stream(key, name), (rows,))
