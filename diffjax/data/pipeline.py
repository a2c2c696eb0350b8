"""Batches from records: shuffled, repeated, shared among processes, resumed exactly (Grain)."""

import functools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import grain
import numpy as np
from absl import flags

from diffjax.data import transforms
from diffjax.data.record import Batch, Record, RecordSource

# caption -> its embedding [l d] in its real length; called from several threads.
Embed: TypeAlias = Callable[[str], np.ndarray]


def train_iterator(
    source: RecordSource,
    *,
    batch_size: int,
    size_px: int,
    crop_px: int | None = None,
    seed: int,
    rows: Sequence[int] | None = None,
    embed: Embed | None = None,
    max_length: int = 128,
    threads: int = 2,
    prefetch_batches: int = 2,
    worker_count: int = 0,
) -> "Batches":
    """Endless batches of `batch_size` examples, or of each batch the `rows` of this process alone.

    Each yields `image` uint8 [b h w 3], h = w = `crop_px` or `size_px`, and `caption` [b] as text;
    with `embed`, `text` [b max_length d], zero beyond `text_length` int32 [b], in its place. Longer
    embeddings lose their end. Every epoch has a new order. `get_state()` is a position and
    `set_state()` resumes there exactly, whatever `rows`, `batch_size` and `worker_count` are by
    then: an example's place, crop and caption depend on (seed, how many went before it) alone.

    `worker_count` processes do the work instead of `threads` in this one; then `source` and `embed`
    must pickle, and `close()` ends them. Raises ValueError for numbers that cannot be.
    """
    _check(source, batch_size)
    rows = tuple(range(batch_size)) if rows is None else tuple(rows)
    if not rows or not all(0 <= row < batch_size for row in rows):
        raise ValueError(f"rows={rows} must be some of 0 to {batch_size - 1}")
    if crop_px is not None and not 0 < crop_px <= size_px:
        raise ValueError(f"crop_px={crop_px} must be 1 to size_px={size_px}")
    transform = functools.partial(
        _training_example, size_px=size_px, crop_px=crop_px, embed=embed, max_length=max_length
    )
    # Repeating first lets a batch be larger than the data; choosing rows last lets the examples and
    # their randomness be those of one process.
    examples = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(transform)

    def start_at(example: int) -> grain.DatasetIterator:
        batches = Rows(examples, example, batch_size, rows).batch(
            len(rows), drop_remainder=True, batch_fn=collate
        )
        iterable = batches.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch_batches)
        )
        if worker_count:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain asks absl even where absl does not run
            iterable = iterable.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=worker_count, per_worker_buffer_size=2)
            )
        return iter(iterable)

    return Batches(start_at, batch_size)


class Rows(grain.MapDataset):
    """From example `start` on, of each `batch_size` examples those at `rows`, one after another."""

    def __init__(
        self, parent: grain.MapDataset, start: int, batch_size: int, rows: tuple[int, ...]
    ):
        super().__init__(parent)
        self._start, self._batch_size, self._rows = start, batch_size, rows

    def __len__(self) -> int:
        """How many there are: as good as endless."""
        return (len(self._parent) - self._start) // self._batch_size * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """The example at an index, or a slice of them."""
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        return self._parent[self._start + batch * self._batch_size + self._rows[row]]


class Batches:
    """An iterator whose position is a number of examples, those of all processes together.

    start_at: that number -> Grain's iterator of what comes then.
    """

    def __init__(self, start_at: Callable[[int], grain.DatasetIterator], batch_size: int):
        self._start_at, self._batch_size = start_at, batch_size
        self._next_example = 0
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> "Batches":  # noqa: D105
        return self

    def __next__(self) -> Batch:  # noqa: D105
        if self._iterator is None:
            self._iterator = self._start_at(self._next_example)
        batch = next(self._iterator)
        self._next_example += self._batch_size
        return batch

    def get_state(self) -> dict[str, int]:
        """The position behind the batch last handed out."""
        return {"next_example": self._next_example}

    def set_state(self, state: dict[str, int]) -> None:
        """Go on from a position; older ones, {"next_index": n}, counted batches of this size."""
        self.close()
        if "next_index" in state:
            self._next_example = int(state["next_index"]) * self._batch_size
        else:
            self._next_example = int(state["next_example"])

    def close(self) -> None:
        """End worker processes and forget what was read ahead; the position stays."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None


class Ahead:
    """The same batches, `depth` of them sent to the devices before they are asked for.

    put: starts a batch's way to the devices. `get_state()` is the position after the batch last
    handed out, whatever has been read ahead of it.
    """

    def __init__(self, batches: Any, put: Callable[[Batch], Any], depth: int = 2):
        self._batches, self._put, self._depth = batches, put, depth
        self._waiting: deque[tuple[Any, Any]] = deque()
        self._state = batches.get_state()

    def __iter__(self) -> "Ahead":  # noqa: D105
        return self

    def __next__(self) -> Any:  # noqa: D105
        while len(self._waiting) <= self._depth:
            batch = self._put(next(self._batches))
            self._waiting.append((batch, self._batches.get_state()))
        batch, self._state = self._waiting.popleft()
        return batch

    def get_state(self) -> Any:
        """The position that goes on behind the batch last handed out."""
        return self._state

    def set_state(self, state: Any) -> None:
        """Go on from a position; what was read ahead is forgotten."""
        self._batches.set_state(state)
        self._state = state
        self._waiting.clear()


def eval_batches(
    source: RecordSource,
    *,
    batch_size: int,
    size_px: int,
    process_index: int = 0,
    process_count: int = 1,
    embed: Embed | None = None,
    max_length: int = 128,
) -> Iterator[Batch]:
    """One pass in order, first captions, no crop; the last batch may be smaller.

    Fields are `train_iterator`'s. With several processes, process i has records i, i + n, ...; the
    last ones may have a record less.
    """
    _check(source, batch_size)
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index} must be 0 to {process_count - 1}")
    indices = range(process_index, len(source), process_count)
    for start in range(0, len(indices), batch_size):
        yield collate(
            [
                _evaluation_example(source[index], size_px, embed, max_length)
                for index in indices[start : start + batch_size]
            ]
        )


def collate(examples: Sequence[dict[str, Any]]) -> Batch:
    """Examples of equal fields, stacked along a new leading axis."""
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def steps_per_epoch(source: RecordSource, batch_size: int, process_count: int = 1) -> int:
    """Steps until every record has been seen once, at least 1."""
    return math.ceil(len(source) / (batch_size * process_count))


def _training_example(
    record: Record,
    rng: np.random.Generator,
    *,
    size_px: int,
    crop_px: int | None,
    embed: Embed | None,
    max_length: int,
) -> dict[str, Any]:
    caption = transforms.choose_caption(record["captions"], rng)
    image = transforms.resize(transforms.decode(record["image"]), size_px)
    if crop_px is not None:
        image = transforms.random_crop(image, crop_px, rng)
    return {"image": image, **_text(caption, embed, max_length)}


def _evaluation_example(
    record: Record, size_px: int, embed: Embed | None, max_length: int
) -> dict[str, Any]:
    image = transforms.resize(transforms.decode(record["image"]), size_px)
    caption = record["captions"][0] if record["captions"] else ""
    return {"image": image, **_text(caption, embed, max_length)}


def _text(caption: str, embed: Embed | None, max_length: int) -> dict[str, Any]:
    if embed is None:
        return {"caption": np.str_(caption)}
    embedding = np.asarray(embed(caption))[:max_length]
    padded = np.zeros((max_length, embedding.shape[-1]), embedding.dtype)
    padded[: len(embedding)] = embedding
    return {"text": padded, "text_length": np.int32(len(embedding))}


def _check(source: RecordSource, batch_size: int) -> None:
    if len(source) == 0:
        raise ValueError(f"{source!r} is empty: there is nothing to batch")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
