"""Pictures that cannot be read: named, counted, and replaced by the next record."""

import io
import itertools
import logging
import struct
import zlib

import numpy as np
import pytest

from diffjax.core.errors import BadData
from diffjax.data import readers, transforms
from diffjax.data.pipeline import eval_batches, train_iterator

READERS = (readers.caption, readers.picture(8, 4))


def records(count, *broken):
    """Records of noise, some with the end of the picture cut off."""
    draw = np.random.default_rng(0)
    made = []
    for i in range(count):
        png = transforms.encode_png(draw.integers(0, 256, (8, 8, 3), np.uint8))
        data = png[: len(png) // 2] if i in broken else png
        captions = tuple(f"{i} {c}" for c in "abc")
        made.append({"image": data, "captions": captions, "name": f"name_{i}"})
    return made


def iterator(source, share=1.0, batch_size=4, **options):
    return train_iterator(
        source, READERS, batch_size=batch_size, seed=1, max_bad_fraction=share, **options
    )


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def stood_in(count, *broken):
    """The same records with the next whole one in the place of each broken one."""
    made = records(count)
    next_whole = lambda i: next(j % count for j in itertools.count(i) if j % count not in broken)  # noqa: E731
    return [made[next_whole(i)] for i in range(count)]


@pytest.mark.parametrize("broken", [(3,), (3, 4, 5), (8,), (0, 7, 8)])
def test_the_next_whole_record_stands_in_with_the_chance_of_the_broken_one(broken):
    assert_equal(take(iterator(records(9, *broken)), 7), take(iterator(stood_in(9, *broken)), 7))


@pytest.mark.parametrize("position", [0, 1, 5, 18, 31])
def test_resuming_among_broken_records_repeats_what_would_have_come(position):
    source = records(9, 2, 3, 8)
    one_by_one = take(iterator(source, batch_size=1), position + 8)
    resumed = iterator(source, batch_size=2)
    resumed.set_state({"next_example": position})
    got = [
        {name: value[i : i + 1] for name, value in b.items()}
        for b in take(resumed, 4)
        for i in (0, 1)
    ]
    assert_equal(got, one_by_one[position:])


def test_a_process_makes_its_rows_whatever_is_broken_in_those_of_others():
    source = records(9, 2, 3)
    alone = take(iterator(source), 5)
    mine = [{name: value[[1, 3]] for name, value in batch.items()} for batch in alone]
    assert_equal(take(iterator(source, rows=[1, 3]), 5), mine)


def test_a_broken_record_is_named_and_counted_once_however_often_it_comes(caplog):
    with caplog.at_level(logging.WARNING, "absl"):
        take(iterator(records(10, 6)), 10)  # four epochs
    (line,) = (entry.getMessage() for entry in caplog.records)
    assert "record 6 (name_6): " in line
    assert "a damaged picture: " in line
    assert "1 of 10 records are broken so far, 10 are allowed" in line


@pytest.mark.parametrize("threads", [0, 2, 8])
def test_one_too_many_ends_the_run_at_the_same_batch_however_far_is_read_ahead(threads):
    source = records(40, 5, 11, 23)
    batches = iterator(source, share=0.05, threads=threads, prefetch_batches=max(threads, 1))
    order = [batch["caption"][0] for batch in take(iterator(records(40), batch_size=1), 40)]
    met = [i for i, caption in enumerate(order) if int(caption.split()[0]) in (5, 11, 23)]
    got = take(batches, met[2] // 4)  # all batches before that of the third of them
    with pytest.raises(BadData, match=r"record \d+ \(name_\d+\)") as caught:
        next(batches)
    message = str(caught.value)
    assert (
        "this, after 2 others, is more than data.max_bad_fraction allows, 2 of 40 records"
        in message
    )
    assert "\n" not in message
    whole = iterator(source)
    assert_equal(got, take(whole, len(got)))
    assert batches.get_state() == whole.get_state()
    with pytest.raises(BadData):  # asked again, it does not go on behind it
        next(batches)


@pytest.mark.parametrize(("share", "allowed"), [(0.01, 1), (0.02, 1), (0.06, 2), (0.1, 3)])
def test_a_share_of_the_records_is_rounded_up(share, allowed):
    broken = range(0, 4 * allowed, 4)
    take(iterator(records(30, *broken), share=share), 15)
    with pytest.raises(BadData):
        take(iterator(records(30, *broken, 25), share=share), 15)


def test_without_a_share_the_first_broken_record_ends_the_run_in_one_line():
    with pytest.raises(BadData, match=r"record 3 \(name_3\): .* allows, 0 of 8 ") as caught:
        take(iterator(records(8, 3), share=0.0), 2)
    assert "\n" not in str(caught.value)


def test_a_source_without_a_whole_record_ends_and_does_not_turn_for_ever():
    with pytest.raises(BadData, match=r"more than data\.max_bad_fraction allows"):
        next(iterator(records(3, 0, 1, 2)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"captions": ("a",), "name": "empty"}, r"record 0 \(empty\): no picture among the fields"),
        ({"captions": 3, "image": b""}, r"record 0: captions '3': want a sequence of strings"),
    ],
)
def test_a_record_that_lacks_what_is_asked_ends_the_run_and_is_named(record, message):
    with pytest.raises(BadData, match=message):
        next(iterator([record]))


def bomb(side_px):
    """A PNG of a hundred bytes that would be a square of so many pixels a side."""
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_decompression_bomb_is_refused_by_its_header_and_counts_as_broken(caplog):
    source = records(4)
    source[2] = {**source[2], "image": bomb(60_000)}
    with caplog.at_level(logging.WARNING, "absl"):
        take(iterator(source), 2)
    (line,) = (entry.getMessage() for entry in caplog.records)
    assert "record 2 (name_2): more than 64 million pixels" in line


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_whatever_is_wrong_in_the_bytes_is_a_broken_picture(kind):
    draw, data = np.random.default_rng(0), io.BytesIO()
    transforms.Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(data, kind)
    whole, refused = data.getvalue(), 0
    for _ in range(200):
        damaged = bytearray(whole)
        for at in draw.integers(0, len(whole), 4):
            damaged[at] = draw.integers(256)
        try:
            transforms.decode(bytes(damaged))
        except transforms.BrokenRecord:
            refused += 1
    assert refused > 20  # JPEG shows most damage as colours


def test_an_evaluation_takes_the_next_record_too():
    (batch,) = eval_batches(records(5, 1), READERS, batch_size=5, max_bad_fraction=0.2)
    (other,) = eval_batches(stood_in(5, 1), READERS, batch_size=5)
    assert_equal([batch], [other])
    with pytest.raises(BadData, match="record 1"):
        list(eval_batches(records(5, 1), READERS, batch_size=5))
