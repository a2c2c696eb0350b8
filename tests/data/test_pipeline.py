import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from diffjax.data import pipeline, transforms
from diffjax.data.pipeline import steps_per_epoch
from diffjax.data.readers import captioned_pictures
from diffjax.data.sources.fake import Shapes
from diffjax.data.sources.mixture import Mixture


class Numbered:
    """Records told apart by their captions, each a plain grey."""

    def __init__(self, count, size_px=8):
        self.count, self.size_px = count, size_px

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = np.full((self.size_px, self.size_px, 3), index, np.uint8)
        return dict(
            image=transforms.encode_png(image), captions=(f"{index} a", f"{index} b"), name=""
        )


def with_readers(batches_of, source, size_px, crop_px=None, embed=None, max_length=128, **rest):
    readers = captioned_pictures(
        size_px=size_px, crop_px=crop_px, embed=embed, max_length=max_length
    )
    return batches_of(source, readers, **rest)


def train_iterator(source, **options):
    return with_readers(pipeline.train_iterator, source, **options)


def eval_batches(source, **options):
    return with_readers(pipeline.eval_batches, source, **options)


def numbers(*batches):
    return [number for batch in batches for number in batch["image"][:, 0, 0, 0].tolist()]


def take(iterator, steps):
    return list(itertools.islice(iterator, steps))


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


def by_words(caption):
    """A made-up embedding: one row a word, of the word's length."""
    lengths = [len(word) for word in caption.split()]
    return np.repeat(np.array(lengths, ml_dtypes.bfloat16)[:, None], 3, axis=1)


def iterator(source, batch_size, seed=0, **options):
    return train_iterator(source, batch_size=batch_size, size_px=8, seed=seed, **options)


@pytest.mark.parametrize("step", [0, 1, 3, 7, 20])
def test_resuming_repeats_what_would_have_come(step):
    options = {"source": Shapes(23, 12), "batch_size": 4, "size_px": 12, "crop_px": 8, "seed": 5}
    whole = train_iterator(**options)
    take(whole, step)
    state = whole.get_state()
    resumed = train_iterator(**options)
    resumed.set_state(state)
    assert_equal(take(resumed, 9), take(whole, 9))


def test_a_position_is_plain_data_that_does_not_age():
    source = iterator(Numbered(10), 3)
    take(source, 2)
    assert source.get_state() == {"next_example": 6}


def test_positions_that_counted_batches_are_still_read():
    source, other = iterator(Numbered(10), 3), iterator(Numbered(10), 3)
    take(source, 2)
    other.set_state({"next_index": 2})
    assert_equal(take(other, 4), take(source, 4))


class Counted(Numbered):
    """So many records that nobody could go through them; counts those that are read."""

    def __init__(self, count):
        super().__init__(count)
        self.read = 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index % 256)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("position", [1_000_000, 10**12])
def test_a_late_position_costs_no_more_records_than_its_batch(mixed, position):
    parts = [Counted(40_000_000), Counted(3_000_000)]
    source = Mixture(parts, [1, 5]) if mixed else parts[0]
    late = iterator(source, 8, threads=0)
    late.set_state({"next_example": position})
    assert sum(part.read for part in parts) == 0
    next(late)
    assert sum(part.read for part in parts) == 8


def test_a_late_position_is_reached_without_what_went_before():
    source = Shapes(1_000_100, 12)
    late = train_iterator(source, batch_size=10, size_px=12, crop_px=8, seed=5)
    late.set_state({"next_example": 1_000_000})
    got = next(late)
    (row,) = take(train_iterator(source, batch_size=10, size_px=12, crop_px=8, seed=5, rows=[3]), 1)
    assert not np.array_equal(got["image"][3:4], row["image"])
    one = train_iterator(source, batch_size=1, size_px=12, crop_px=8, seed=5)
    one.set_state({"next_example": 1_000_003})
    np.testing.assert_array_equal(next(one)["image"][0], got["image"][3])


def test_every_epoch_has_every_record_once_in_a_new_order():
    batches = take(iterator(Numbered(20), 5), 12)
    epochs = [numbers(*batches[i : i + 4]) for i in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    assert list(range(20)) not in epochs


def test_the_seed_chooses_the_order():
    one, same, other = (numbers(next(iterator(Numbered(50), 50, seed))) for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize("rows", [[0, 1, 2], [3, 4, 5], [1, 4], [0, 1, 2, 3, 4, 5]])
def test_a_process_makes_its_rows_of_the_batch_that_one_would(rows):
    source, options = Shapes(17, 12), {"batch_size": 6, "size_px": 12, "crop_px": 8, "seed": 1}
    alone = take(train_iterator(source, **options), 8)
    mine = [{key: value[rows] for key, value in batch.items()} for batch in alone]
    assert_equal(take(train_iterator(source, **options, rows=rows), 8), mine)


@pytest.mark.parametrize("counts", [(2, 1, 4), (4, 1, 2), (1, 3, 2)])
def test_a_run_goes_on_with_other_processes_and_loses_and_repeats_nothing(counts):
    """A position saved by any process fits all, whatever their number; so does a new batch size."""
    source, state, seen = Numbered(120), {"next_example": 0}, []
    for count, batch_size, steps in zip(counts, (12, 24, 12), (3, 2, 3), strict=True):
        share = batch_size // count
        shards = []
        for i in range(count):
            rows = range(i * share, (i + 1) * share)
            shards.append(iterator(source, batch_size, rows=rows))
            shards[-1].set_state(state)
        parts = [take(shard, steps) for shard in shards]
        seen += [numbers(*step) for step in zip(*parts, strict=True)]
        states = [shard.get_state() for shard in shards]
        assert all(other == states[0] for other in states)
        state = states[0]
    assert [number for batch in seen for number in batch] == numbers(
        *take(iterator(source, 120), 1)
    )
    assert sorted(number for batch in seen for number in batch) == list(range(120))


def test_threads_do_not_change_what_comes():
    alone, threaded = (take(iterator(Shapes(9), 4, threads=n), 6) for n in (0, 2))
    assert_equal(alone, threaded)


def test_a_batch_may_be_larger_than_the_data():
    batch = next(iterator(Numbered(3), 8))
    assert [numbers(batch).count(i) for i in range(3)] in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_a_record_meets_all_its_captions():
    captions = {str(c) for batch in take(iterator(Numbered(2), 4), 10) for c in batch["caption"]}
    assert captions == {"0 a", "0 b", "1 a", "1 b"}


def test_images_are_cropped_after_resizing():
    batch = next(train_iterator(Shapes(5, 32), batch_size=2, size_px=16, crop_px=8, seed=0))
    assert batch["image"].shape == (2, 8, 8, 3)
    assert batch["image"].dtype == np.uint8


def test_embeddings_are_padded_with_zeros_to_one_length():
    batch = next(iterator(Shapes(30), 30, embed=by_words, max_length=7))
    assert batch["text"].shape == (30, 7, 3)
    assert batch["text"].dtype == ml_dtypes.bfloat16
    assert batch["text_length"].dtype == np.int32
    assert set(batch["text_length"].tolist()) <= {5, 6}
    assert "caption" not in batch
    for text, length in zip(batch["text"], batch["text_length"], strict=True):
        assert (text[:length] > 0).all()
        assert (text[length:] == 0).all()


def test_long_embeddings_lose_their_end():
    batch = next(iterator(Shapes(30), 4, embed=by_words, max_length=2))
    assert batch["text_length"].tolist() == [2] * 4
    np.testing.assert_array_equal(batch["text"][:, 0], np.ones((4, 3)))


def test_evaluation_passes_once_in_order_and_keeps_the_rest():
    batches = list(eval_batches(Numbered(10), batch_size=4, size_px=8))
    assert [numbers(batch) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[0]["caption"].tolist() == ["0 a", "1 a", "2 a", "3 a"]


def test_processes_share_an_evaluation():
    options = {"batch_size": 2, "size_px": 8, "process_count": 3}
    shards = [numbers(*eval_batches(Numbered(10), process_index=i, **options)) for i in range(3)]
    assert shards == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]


def test_evaluation_embeds_first_captions():
    (batch,) = eval_batches(Numbered(2), batch_size=4, size_px=8, embed=by_words, max_length=4)
    assert batch["text"].shape == (2, 4, 3)
    assert batch["text_length"].tolist() == [2, 2]


def test_an_epoch_is_counted_in_steps_of_all_processes():
    assert steps_per_epoch(Numbered(10), 4) == 3
    assert steps_per_epoch(Numbered(16), 4, process_count=2) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"crop_px": 9}, "crop_px=9 must be 1 to size_px=8"),
        ({"rows": [1, 2]}, "must be some of 0 to 1"),
        ({"rows": []}, "must be some of 0 to 1"),
        ({"source": Numbered(0)}, "is empty"),
    ],
)
def test_numbers_that_cannot_be_are_value_errors(options, message):
    defaults = {"source": Numbered(4), "batch_size": 2, "size_px": 8, "seed": 0}
    with pytest.raises(ValueError, match=message):
        train_iterator(**defaults | options)


@pytest.mark.slow
def test_worker_processes_do_not_change_what_comes():
    alone = take(iterator(Shapes(9), 4), 6)
    for worker_count in (1, 2):
        workers = iterator(Shapes(9), 4, worker_count=worker_count)
        assert_equal(take(workers, 2), alone[:2])
        state = workers.get_state()
        workers.close()
        resumed = iterator(Shapes(9), 4, worker_count=3 - worker_count)
        resumed.set_state(state)
        assert_equal(take(resumed, 4), alone[2:])
        resumed.close()


KILLED = """
import os, sys
from diffjax.data import pipeline, readers
from diffjax.data.sources.fake import Shapes

if __name__ == "__main__":
    batches = pipeline.train_iterator(
        Shapes(9, 8), [readers.picture(8)], batch_size=4, seed=0, worker_count=1
    )
    next(batches)
    tasks = os.listdir("/proc/self/task")
    print(*(open(f"/proc/self/task/{task}/children").read() for task in tasks), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_worker_processes_end_with_a_process_that_is_killed(tmp_path):
    """They leave no processes behind that wait and hold memory."""
    (tmp_path / "killed.py").write_text(KILLED)
    run = subprocess.run(
        [sys.executable, tmp_path / "killed.py"],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    workers = run.stdout.split()
    assert len(workers) >= 1
    for _ in range(200):
        left = [pid for pid in map(int, workers) if Path(f"/proc/{pid}").exists()]
        if not left:
            break
        time.sleep(0.1)
    assert not left


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_what_is_read_ahead_is_behind_no_position(taken):
    """The position is that of the batch handed out last; from there the same comes again."""
    whole = take(iterator(Numbered(10), 3), 8)
    ahead = pipeline.Ahead(iterator(Numbered(10), 3), lambda batch: batch, depth=2)
    assert_equal(take(ahead, taken), whole[:taken])
    assert ahead.get_state() == {"next_example": 3 * taken}
    take(ahead, 2)
    ahead.set_state({"next_example": 3 * taken})
    assert_equal(take(ahead, 3), whole[taken : taken + 3])


def test_a_batch_that_cannot_be_read_is_known_ahead_and_raised_in_its_place():
    """So a run can end in order, and several processes at the same step."""
    read = iter([1, 2, 3, 4, ValueError("the fifth"), 6])

    class Numbers:
        def __next__(self):
            found = next(read)
            if isinstance(found, Exception):
                raise found
            return found

        def get_state(self):
            return {}

        def set_state(self, state):
            pass

    ahead = pipeline.Ahead(Numbers(), lambda number: number, depth=2)
    assert [(next(ahead), ahead.failure is None) for _ in range(2)] == [(1, True), (2, True)]
    assert [(next(ahead), str(ahead.failure)) for _ in range(2)] == [
        (3, "the fifth"), (4, "the fifth"),
    ]  # fmt: skip
    for _ in range(2):
        with pytest.raises(ValueError, match="the fifth"):
            next(ahead)
