"""The vectors of a CLIP: their columns, and the condition of a prior on that of the text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import PRNGKey, PRNGKeys
from diffjax.images import pixels
from diffjax.tasks.condition import NEGATIVE
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, ExampleShapes, Params

# The column of each picture's vector, and that of the caption of which the text of a row is.
IMAGE_VECTOR, TEXT_VECTOR = "image_vector", "text_vector"
# The column of what a prior made, in its previews.
MADE_VECTOR = "made_vector"

Vectors: TypeAlias = Float[Array, "b e"]


@dataclass(frozen=True)
class TextVector:
    """The vector of the caption; a row without its text (`conditions.Text`) trains without it too.

    The network gets the vector, or zeros if it is dropped or absent.
    """

    width: int

    def columns(self) -> ExampleShapes:
        """The vector [d]."""
        return {TEXT_VECTOR: jax.ShapeDtypeStruct((self.width,), jnp.float32)}

    def prompts(self) -> ExampleShapes:
        """The vector [d]."""
        return self.columns()

    def nothing(self, rows: int) -> Columns:
        """Zeros."""
        return {TEXT_VECTOR: jnp.zeros((rows, self.width))}

    def shown(self, batch: Columns) -> Columns:
        """The vector of each row."""
        return {TEXT_VECTOR: batch[TEXT_VECTOR]}

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """Nothing: the text draws which rows are dropped."""
        return {}

    def told(self, batch: Columns) -> Columns:
        """The vector, or zeros if the text is dropped."""
        keep = batch["keep_text"][:, None]
        return {TEXT_VECTOR: jnp.where(keep, batch[TEXT_VECTOR].astype(jnp.float32), 0.0)}

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The vector itself."""
        return {TEXT_VECTOR: columns[TEXT_VECTOR]}

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """Zeros, or the vector of the negative prompt."""
        nothing = jnp.zeros_like(given[TEXT_VECTOR])
        return {TEXT_VECTOR: columns.get(f"{NEGATIVE}{TEXT_VECTOR}", nothing)}


@runtime_checkable
class MakesVectors(Protocol):
    """What a prior has beside `Task`: it makes the vectors of pictures from texts."""

    def vectors(
        self, params: Params, columns: Columns, keys: PRNGKeys, settings: SampleSettings
    ) -> Vectors:
        """The vectors for the texts in `columns`, from one key per row."""
        ...


def image_vector(
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    *,
    task: MakesVectors,
    settings: SampleSettings,
) -> Vectors:
    """The column `image_vector` for the columns `text`, `text_mask` and `text_vector`.

    Row i depends on row i of the columns and on key i alone.
    """
    return task.vectors(params, columns, keys, settings)


def dots(one: Float[Array, "*n b e"], other: Vectors) -> Float[Array, "*n b"]:
    """The scalar products of rows, in full precision."""
    return jnp.sum(one * other, axis=-1)


def nearest_of(
    make: Callable[[PRNGKeys], Vectors], keys: PRNGKeys, count: int, text: Vectors
) -> Vectors:
    """argmax of z . z_t over `count` vectors z that `make` makes of each row, from keys of its own.

    text: the vectors z_t. Ramesh et al. 2022, sec. 2.2.
    """
    if count == 1:
        return make(keys)
    each = jnp.stack([rng.stream(keys, f"candidate_{i}") for i in range(count)])
    made = jax.lax.map(make, each)  # [n b e]
    best = jnp.argmax(dots(made, text), axis=0)
    return jnp.take_along_axis(made, best[None, :, None], axis=0)[0]


def preview_of(made: Vectors, batch: Columns) -> Columns:
    """The vectors that a prior made, and for each of them the picture of the batch nearest to it.

    Without pictures in the batch there are the vectors alone.
    """
    found = {MADE_VECTOR: made}
    if "image" not in batch:
        return found
    nearest = jnp.argmax(made @ batch[IMAGE_VECTOR].T, axis=-1)
    return {"made": pixels.from_uint8(batch["image"])[nearest], **found}
