"""Makes batches of records with Grain: shuffled, repeated, shared by processes, resumed exactly."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import grain
from absl import flags

from diffjax.core.pools import end_with_parent
from diffjax.data import order
from diffjax.data.broken import Broken
from diffjax.data.chance import Chance
from diffjax.data.examples import (
    Examples,
    Part,
    Parts,
    collate,
    example_of,
    fetch,
    no_chance,
)
from diffjax.data.readers import Reader
from diffjax.data.record import Batch, RecordSource

# The position of an iterator: {"next_example": the number of examples of all processes before it}.
Position: TypeAlias = dict[str, int]
Read = TypeVar("Read", covariant=True)
Place = TypeVar("Place")
OnDevices = TypeVar("OnDevices")


def train_iterator(
    source: RecordSource,
    readers: Sequence[Reader],
    *,
    batch_size: int,
    seed: int,
    rows: Sequence[int] | None = None,
    max_bad_fraction: float = 0.0,
    broken: Broken | None = None,
    threads: int = 2,
    prefetch_batches: int = 2,
    worker_count: int = 0,
) -> "Batches":
    """Endless batches of `batch_size` examples, or only the `rows` of them that a process needs.

    A batch has the columns of all `readers`, with a row per example. Every epoch has a new order.
    `get_state()` returns a position, at which `set_state()` resumes exactly, also with other
    `rows`, another `batch_size` or `worker_count`. For the record of an example and its random
    draws depend only on the seed and on the number of examples before it.

    In the place of a record whose picture is broken comes the next one of the source that is whole.
    More of them than the share `max_bad_fraction` of all records (rounded up, counted by each
    process, or by `broken`) end the iteration with a BadData; so does the first record that cannot
    be read for another reason.

    Raises:
      ValueError: a number is not allowed.
      BadData: (while iterating) too many records are broken, or one is wrong in another way.
    """
    _check(source, batch_size)
    rows = tuple(range(batch_size)) if rows is None else tuple(rows)
    if not rows or not all(0 <= row < batch_size for row in rows):
        raise ValueError(f"rows={rows} must be some of 0 to {batch_size - 1}")
    broken = broken or Broken(len(source), max_bad_fraction)
    examples = Examples(
        source,
        tuple(readers),
        order.endless(source, seed),
        Chance(order.seed_of_draws(source, seed)),
        broken.limit,
    )

    def start_at(example: int) -> grain.DatasetIterator[Part]:
        parts = Parts(examples, example, batch_size, rows)
        # A worker decodes one batch after the other; more workers do more.
        iterable = grain.MapDataset.source(parts).to_iter_dataset(
            grain.ReadOptions(0 if worker_count else threads, prefetch_batches)
        )
        if worker_count:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags even if absl does not run
            iterable = iterable.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=worker_count, per_worker_buffer_size=2),
                end_with_parent,
            )
        return iter(iterable)

    return Batches(start_at, batch_size, broken)


class Batches:
    """An iterator over batches whose position is a number of examples of all processes together.

    start_at: a position -> Grain's iterator from there on. broken: counts the skipped records. They
    are counted here, in order, so that reading ahead does not change the batch at which there are
    too many.
    """

    def __init__(
        self,
        start_at: Callable[[int], grain.DatasetIterator[Part]],
        batch_size: int,
        broken: Broken,
    ):
        self._start_at, self._batch_size, self._broken = start_at, batch_size, broken
        self._next_example = 0
        self._iterator: grain.DatasetIterator[Part] | None = None

    def __iter__(self) -> "Batches":  # noqa: D105
        return self

    def __next__(self) -> Batch:  # noqa: D105
        if self._iterator is None:
            self._iterator = self._start_at(self._next_example)
        try:
            part = next(self._iterator)
            _count(part, self._broken)
        except Exception:
            self.close()  # so that a caller who tries again gets this batch and not the next
            raise
        self._next_example += self._batch_size
        return part.columns

    def get_state(self) -> Position:
        """The position after the batch that was returned last."""
        return {"next_example": self._next_example}

    def set_state(self, state: Position) -> None:
        """Continues from a position; older ones, {"next_index": n}, count batches of this size."""
        self.close()
        if "next_index" in state:
            self._next_example = int(state["next_index"]) * self._batch_size
        else:
            self._next_example = int(state["next_example"])

    def close(self) -> None:
        """Ends worker processes and drops what was read ahead; the position stays."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None


@runtime_checkable
class Resumable(Protocol[Read, Place]):
    """An iterator with a position from which it can be resumed, such as `Batches`."""

    def __next__(self) -> Read: ...  # noqa: D105

    def get_state(self) -> Place: ...  # noqa: D102

    def set_state(self, state: Place) -> None: ...  # noqa: D102


class Ahead(Generic[Read, Place, OnDevices]):
    """An iterator that sends `depth` batches to the devices ahead of time.

    put: starts to send a batch to the devices. `get_state()` returns the position after the batch
    that was returned last, however many have been read ahead. If one cannot be read, `failure` is
    the error from then on, and it is raised once the batches before it have been returned.
    """

    def __init__(
        self,
        batches: Resumable[Read, Place],
        put: Callable[[Read], OnDevices],
        depth: int = 2,
    ):
        self._batches, self._put, self._depth = batches, put, depth
        self._waiting: deque[tuple[OnDevices, Place]] = deque()
        self._state = batches.get_state()
        self.failure: Exception | None = None

    def __iter__(self) -> "Ahead[Read, Place, OnDevices]":  # noqa: D105
        return self

    def __next__(self) -> OnDevices:  # noqa: D105
        while len(self._waiting) <= self._depth and self.failure is None:
            try:
                batch = self._put(next(self._batches))
            except Exception as error:
                self.failure = error
            else:
                self._waiting.append((batch, self._batches.get_state()))
        if not self._waiting and self.failure is not None:
            raise self.failure
        batch, self._state = self._waiting.popleft()
        return batch

    def get_state(self) -> Place:
        """The position after the batch that was returned last."""
        return self._state

    def set_state(self, state: Place) -> None:
        """Continues from a position; batches that were read ahead are dropped."""
        self._batches.set_state(state)
        self._state, self.failure = state, None
        self._waiting.clear()


def eval_batches(
    source: RecordSource,
    readers: Sequence[Reader],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    max_bad_fraction: float = 0.0,
) -> Iterator[Batch]:
    """One pass over the records, in order and without random draws; the last batch may be smaller.

    Columns, and what happens to broken pictures, are as in `train_iterator`. With n processes,
    process i has the records i, i + n, ...; the last processes may have a record less.
    """
    _check(source, batch_size)
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index} must be 0 to {process_count - 1}")
    broken = Broken(len(source), max_bad_fraction)
    indices = range(process_index, len(source), process_count)
    for start in range(0, len(indices), batch_size):
        part = collate(
            [
                example_of(
                    index,
                    fetch(source, index),
                    no_chance,
                    source=source,
                    readers=readers,
                    limit=broken.limit,
                )
                for index in indices[start : start + batch_size]
            ]
        )
        _count(part, broken)
        yield part.columns


def steps_per_epoch(source: RecordSource, batch_size: int, process_count: int = 1) -> int:
    """The number of steps until every record has been seen once; at least 1."""
    return math.ceil(len(source) / (batch_size * process_count))


def _count(part: Part, broken: Broken) -> None:
    for skipped in part.skipped:
        broken.add(skipped)


def _check(source: RecordSource, batch_size: int) -> None:
    if len(source) == 0:
        raise ValueError(f"{source!r} is empty: there is nothing to batch")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
