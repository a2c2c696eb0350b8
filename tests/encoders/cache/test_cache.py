import contextlib
import itertools
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from diffjax.core.errors import StorageError
from diffjax.data.broken import BrokenRecord
from diffjax.encoders.cache import cache, records, shards
from tests.encoders.stub import Stub

ROOT = Path(__file__).resolve().parents[3]
CAPTIONS = ["a red apple", "", "two blue birds", "a red apple"]


def many(count):
    return [f"photo {i} of " + "word " * (i % 9) for i in range(count)]


def files(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def assert_holds(folder, captions, encoder=None):
    """The cache holds exactly these captions, with the right bits."""
    encoder = encoder or Stub()
    made = cache.open_cache(folder, encoder)
    assert sorted(made) == sorted(set(captions))
    assert len(made) == len(set(captions))
    for caption in captions:
        assert made[caption].tobytes() == encoder.row(caption).astype(ml_dtypes.bfloat16).tobytes()


def stored(folder):
    """The number of records in all shards; a caption that is stored twice counts twice."""
    header = cache.header_of(Stub())
    return sum(len(shards.read_digests(folder, n, header)) for n in shards.shard_names(folder))


@contextlib.contextmanager
def full_disk(num_bytes):
    """No file can grow beyond `num_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_cache_returns_the_embeddings_of_a_caption_without_padding(tmp_path):
    made = cache.ensure(tmp_path / "c", Stub(), CAPTIONS, batch_size=2)
    embeddings, mask = Stub().encode(CAPTIONS)
    for caption, row, length in zip(CAPTIONS, embeddings, mask.sum(1), strict=True):
        assert made[caption].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(made[caption], row[:length].astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_a_repeated_caption_is_encoded_once(window, tmp_path):
    encoder = Stub()
    captions = many(40) * 3
    assert cache.extend(tmp_path / "c", encoder, captions, window=window) == 40
    assert cache.extend(tmp_path / "c", encoder, captions, window=window) == 0
    assert sorted(encoder.asked) == sorted(many(40))


def test_a_thousand_captions_in_many_shards_are_read_back_exactly(tmp_path):
    captions = ["naïve ☕", "tab\tand\nnewline", "x " * 60, "", *many(996)]
    cache.extend(tmp_path / "c", Stub(), captions, shard_bytes=20_000, batch_size=16)
    assert sum(name.endswith(".array_record") for name in files(tmp_path / "c")) > 5
    assert_holds(tmp_path / "c", captions)
    assert len(cache.open_cache(tmp_path / "c")["x " * 60]) == 16  # cut at max_length


def test_short_captions_take_less_than_an_eighth_of_padded_float32(tmp_path):
    encoder = Stub(width=64, max_length=128)
    captions = [f"ten words and their number and so on {i} end" for i in range(1000)]
    made = cache.ensure(tmp_path / "c", encoder, [caption + " eos" for caption in captions])
    assert {len(made[caption]) for caption in made} == {12}
    on_disk = sum(path.stat().st_size for path in (tmp_path / "c").iterdir())
    assert on_disk / len(made) < 128 * 64 * 4 / 8


def test_int8_is_within_half_a_quantisation_step_of_each_token(tmp_path):
    row = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    row *= 10.0 ** np.arange(-25, 25)[:, None]
    row[7] = 0
    data, scale = records.quantise(row)
    error = np.abs(data.astype(np.float64) * scale[:, None] - row).max(1)
    largest = np.abs(row.astype(np.float64)).max(1)
    assert np.all(error <= largest / 254 * (1 + 1e-5))
    assert error.max() > 0
    read = records.unpack(records.pack("a", row, "int8"), 64, "int8")[1].astype(np.float64)
    # it is returned in bfloat16, which adds an error of up to 2^-8
    assert np.all(np.abs(read - row).max(1) <= largest * (1 / 254 + 2**-8) * (1 + 1e-2))


def test_int8_takes_half_the_bytes_of_bfloat16_and_reads_nearly_the_same(tmp_path):
    encoder = Stub(width=256)
    plain = cache.ensure(tmp_path / "plain", encoder, many(200))
    cache.extend(tmp_path / "small", encoder, many(200), storage="int8")
    small = cache.open_cache(tmp_path / "small", encoder)
    size = {p: sum(f.stat().st_size for f in p.iterdir()) for p in (plain.path, small.path)}
    assert size[small.path] < 0.6 * size[plain.path]
    for caption in many(200):
        assert small[caption].dtype == plain[caption].dtype
        one, other = small[caption].astype(float), plain[caption].astype(float)
        error = np.abs(one - other).max(1)
        np.testing.assert_array_less(error, np.abs(other).max(1) * (1 / 254 + 2**-7))


def test_batch_pads_to_the_given_length(tmp_path):
    made = cache.ensure(tmp_path / "c", Stub(), CAPTIONS)
    embeddings, mask = made.batch(CAPTIONS, 6)
    assert embeddings.shape == (4, 6, 8)
    np.testing.assert_array_equal(mask.sum(1), [4, 1, 4, 4])
    assert not np.any(embeddings[~mask])
    with pytest.raises(ValueError, match="length=3, but a caption has 4"):
        made.batch(CAPTIONS, 3)


def test_an_unknown_caption_is_named_in_the_error(tmp_path):
    made = cache.ensure(tmp_path / "c", Stub(), CAPTIONS)
    assert "a pear" not in made
    with pytest.raises(KeyError, match="no caption 'a pear' among its 3"):
        made["a pear"]


@pytest.mark.parametrize(
    "other",
    [
        dict(name="other"),
        dict(fingerprint="f" * 16),
        dict(width=9),
        dict(max_length=17),
    ],
)
def test_the_cache_of_another_encoder_is_refused_in_one_line_that_names_both(other, tmp_path):
    cache.ensure(tmp_path / "c", Stub(), CAPTIONS)
    before = files(tmp_path / "c")
    for use in (
        lambda: cache.open_cache(tmp_path / "c", Stub(**other)),
        lambda: cache.extend(tmp_path / "c", Stub(**other), ["a pear"]),
        lambda: cache.ensure(tmp_path / "c", Stub(**other), ["a pear"]),
    ):
        with pytest.raises(ValueError, match=r"holds embeddings of stub \(0123.*, want ") as caught:
            use()
        assert str(cache.header_of(Stub(**other))) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert files(tmp_path / "c") == before


def test_an_int8_cache_cannot_be_extended_in_bfloat16(tmp_path):
    cache.extend(tmp_path / "c", Stub(), CAPTIONS, storage="int8")
    with pytest.raises(ValueError, match=r"max_length 16, int8\), want .*bfloat16\)"):
        cache.extend(tmp_path / "c", Stub(), CAPTIONS)


def test_a_shard_of_another_encoder_is_refused_when_the_index_is_built(tmp_path):
    cache.ensure(tmp_path / "c", Stub(), CAPTIONS)
    other = cache.ensure(tmp_path / "other", Stub(name="other"), ["a pear"])
    shutil.copy(other.path / other.index.shards[0], tmp_path / "c")
    with pytest.raises(ValueError, match=r"holds embeddings of other .* want stub"):
        cache.open_cache(tmp_path / "c")


def test_ensure_encodes_only_missing_captions(tmp_path):
    encoder = Stub()
    cache.ensure(tmp_path / "deep" / "c", encoder, CAPTIONS)
    before = files(tmp_path / "deep" / "c")
    cache.ensure(tmp_path / "deep" / "c", encoder, CAPTIONS[:2])
    assert files(tmp_path / "deep" / "c") == before
    encoder.asked.clear()
    more = cache.ensure(tmp_path / "deep" / "c", encoder, ["a pear", CAPTIONS[0]])
    assert encoder.asked == ["a pear"]
    assert set(more) == {*CAPTIONS, "a pear"}


def test_progress_counts_the_missing_captions(tmp_path):
    seen = []
    cache.ensure(
        tmp_path / "c", Stub(), list("abcde"), batch_size=2, progress=lambda *n: seen.append(n)
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: shutil.rmtree(path), "no such embeddings cache"),
        (lambda path: (path / "header.json").unlink(), "no such embeddings cache"),
        (lambda path: (path / "header.json").write_text("{"), "header.json: not a header"),
        (lambda path: (shutil.rmtree(path), path.write_text("")), "a cache is a directory now"),
    ],
)
def test_a_path_that_is_not_a_cache_is_named_in_the_error(damage, message, tmp_path):
    cache.ensure(tmp_path / "c", Stub(), CAPTIONS)
    damage(tmp_path / "c")
    with pytest.raises(ValueError, match=message) as caught:
        cache.open_cache(tmp_path / "c")
    assert str(caught.value).startswith(str(tmp_path / "c"))


def test_a_cache_pickles_as_its_path(tmp_path):
    made = cache.ensure(tmp_path / "c", Stub(), many(100))
    pickled = pickle.dumps(made)
    assert len(pickled) < 1000
    assert pickle.loads(pickled)["photo 0 of "].tobytes() == made["photo 0 of "].tobytes()


def test_a_cache_of_no_captions_is_empty(tmp_path):
    assert len(cache.ensure(tmp_path / "c", Stub(), [])) == 0
    assert "a" not in cache.open_cache(tmp_path / "c")


def test_many_threads_read_shards_with_few_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OPEN_FILES", 2)
    cache.extend(tmp_path / "c", Stub(), many(200), shard_bytes=3000, batch_size=8)
    made = cache.open_cache(tmp_path / "c")
    assert len(made.index.shards) > 4
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(made.__getitem__, many(200) * 3))
    for row, caption in zip(read, many(200) * 3, strict=True):
        np.testing.assert_array_equal(row, Stub().row(caption).astype(ml_dtypes.bfloat16))
    assert len(made.shards._open) == 2


def test_a_flipped_bit_is_never_read_silently(tmp_path):
    folder, captions = tmp_path / "c", many(40)
    cache.extend(folder, Stub(), captions, shard_bytes=4000, batch_size=8)
    paths = [path for path in folder.iterdir() if path.stat().st_size]
    kept = {path: path.read_bytes() for path in paths}
    draw, found = random.Random(0), []
    # bits of bytes that are not zero, and as many bits of the files, padding included
    used = [(p, i) for p in paths for i, byte in enumerate(kept[p]) if byte]
    anywhere = [(p, draw.randrange(len(kept[p]))) for p in draw.choices(paths, k=150)]
    for path, position in draw.choices(used, k=150) + anywhere:
        damaged = bytearray(kept[path])
        damaged[position] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            assert_holds(folder, captions)
        except ValueError as error:
            found.append((path, str(error)))
        path.write_bytes(kept[path])
    assert len(found) > 120  # the others hit padding, or the index, which is rebuilt
    for path, message in found:
        if path.suffix == ".array_record":
            assert message.startswith(f"{path} is damaged at ")
            assert "delete this file and run python -m diffjax.embed again" in message
        else:
            assert message.startswith(f"{folder}: not an embeddings cache (header.json: ")


def test_deleting_a_damaged_shard_and_extending_restores_the_cache(tmp_path):
    folder, captions = tmp_path / "c", many(40)
    cache.extend(folder, Stub(), captions, shard_bytes=1000, batch_size=8)
    made = cache.open_cache(folder)
    path = folder / made.index.shards[1]
    raw = path.read_bytes()
    at = raw.index(b"photo")
    path.write_bytes(raw[:at] + b"q" + raw[at + 1 :])
    with pytest.raises(cache.Damaged, match=rf"{path.name} is damaged at record \d+ \(.*delete"):
        [made[caption] for caption in captions]
    with pytest.raises(BrokenRecord, match=path.name):  # in training, another record stands in
        [made.embed(caption) for caption in captions]
    path.unlink()
    lost = len(captions) - len(cache.open_cache(folder))
    assert cache.extend(folder, Stub(), captions) == lost > 0
    assert_holds(folder, captions)


def test_each_record_has_a_checksum_of_its_own():
    record = records.pack("a pear", np.ones((3, 4), np.float32), "bfloat16")
    for bit in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(records.Damaged):
            records.unpack(bytes(damaged), 4, "bfloat16")


@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_a_full_disk_leaves_complete_files_and_the_same_call_continues(limit, tmp_path):
    folder, encoder = tmp_path / "c", Stub(width=64)
    captions = many(300)
    cache.extend(folder, encoder, captions[:20])
    with full_disk(limit), pytest.raises(StorageError, match="File too large") as caught:
        cache.extend(folder, encoder, captions)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [name for name in files(folder) if name.endswith(".tmp")]
    assert_holds(folder, captions[:20], encoder)
    cache.extend(folder, encoder, captions)
    assert_holds(folder, captions, encoder)


def test_a_folder_that_cannot_be_made_is_said_with_the_variable_that_names_another(
    tmp_path, monkeypatch
):
    """As where the user's home is read-only."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set DIFFJAX_CACHE_DIR to a folder") as caught:
        cache.ensure(cache.default_folder(Stub()), Stub(), CAPTIONS)
    assert str(tmp_path / "file") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_home_folder_is_meant_by_a_tilde_in_the_path_of_a_cache(tmp_path, monkeypatch):
    cache.extend(tmp_path / "c", Stub(), CAPTIONS)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.open_cache("~/c").path == tmp_path / "c"


def test_a_disk_that_is_full_from_the_start_leaves_no_files(tmp_path):
    with full_disk(10), pytest.raises(StorageError):
        cache.extend(tmp_path / "c", Stub(), CAPTIONS)
    assert files(tmp_path / "c") == []


def test_temporary_files_of_a_killed_process_are_deleted(tmp_path, monkeypatch):
    folder, captions = tmp_path / "c", many(40)
    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardWriter, "discard", lambda self: None)  # a killed process does not

        def killed(done, encoded):
            if encoded >= 24:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cache.extend(folder, Stub(), captions, batch_size=8, shard_bytes=800, progress=killed)
    assert [name for name in files(folder) if name.endswith(".tmp")]
    assert 0 < len(cache.open_cache(folder)) < 40
    cache.extend(folder, Stub(), captions)
    assert not [name for name in files(folder) if name.endswith(".tmp")]
    assert_holds(folder, captions)


def test_a_slow_encoder_finishes_shards_after_a_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD_SECONDS", -1)
    cache.extend(tmp_path / "c", Stub(), many(24), batch_size=8)
    assert len(cache.open_cache(tmp_path / "c").index.shards) == 3
    assert_holds(tmp_path / "c", many(24))


def test_extend_keeps_the_encoded_captions_when_it_is_stopped(tmp_path):
    encoder = Stub()
    stop = lambda: len(encoder.asked) >= 16  # noqa: E731
    assert cache.extend(tmp_path / "c", encoder, many(40), batch_size=8, stop=stop) == 16
    assert len(cache.open_cache(tmp_path / "c")) == 16
    assert cache.extend(tmp_path / "c", Stub(), many(40)) == 24
    assert_holds(tmp_path / "c", many(40))


def test_several_processes_share_the_captions_and_write_one_cache(tmp_path):
    encoders = [Stub() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        work = [
            pool.submit(
                cache.extend, tmp_path / "c", encoder, many(200),
                process_index=i, process_count=3, shard_bytes=2000, batch_size=8,
            )
            for i, encoder in enumerate(encoders)
        ]  # fmt: skip
        assert sum(w.result() for w in work) == 200
    assert min(len(encoder.asked) for encoder in encoders) > 30
    assert_holds(tmp_path / "c", many(200))


def test_two_writers_of_the_same_name_take_turns(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(cache.extend, tmp_path / "c", Stub(), many(200)) for _ in range(2)]
        assert sorted(w.result() for w in work) == [0, 200]
    assert_holds(tmp_path / "c", many(200))


def test_a_caption_in_two_shards_counts_once(tmp_path):
    captions = many(30)
    cache.extend(tmp_path / "c", Stub(), captions)
    other = cache.ensure(tmp_path / "other", Stub(), captions[:10])
    shutil.copy(other.path / other.index.shards[0], tmp_path / "c")
    assert_holds(tmp_path / "c", captions)


WRITER = """
import sys, time
from diffjax.encoders.cache import cache
from tests.encoders.stub import Stub
from tests.encoders.cache.test_cache import many

def slowly(done, encoded):
    time.sleep(0.002)

print("ready", flush=True)
cache.extend(sys.argv[1], Stub(), many(int(sys.argv[2])), batch_size=8, shard_bytes=20_000,
             process_index=int(sys.argv[3]), process_count=int(sys.argv[4]), progress=slowly)
"""


def writer(folder, count, index=0, of=1):
    arguments = [str(folder), str(count), str(index), str(of)]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_twenty_kills_while_writing_lose_and_duplicate_no_caption(tmp_path):
    folder, count, draw = tmp_path / "c", 20_000, random.Random(1)
    kept = []
    for _ in range(20):
        process = writer(folder, count)
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL  # it had not finished
        kept.append(len(cache.open_cache(folder)) if (folder / "header.json").exists() else 0)
    assert all(a <= b for a, b in itertools.pairwise(kept))
    assert 0 < kept[-1] < count
    process = writer(folder, count)
    assert process.wait() == 0
    assert_holds(folder, many(count))
    assert stored(folder) == count
    assert not list(folder.glob("*.tmp"))


@pytest.mark.slow
def test_two_processes_write_one_cache_at_the_same_time(tmp_path):
    processes = [writer(tmp_path / "c", 3000, i, 2) for i in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert_holds(tmp_path / "c", many(3000))
    assert stored(tmp_path / "c") == 3000


def test_progress_of_what_is_added_counts_what_was_there(tmp_path):
    """(captions read, of which so many were encoded): both end at what there is."""
    cache.extend(tmp_path / "c", Stub(), list("ab"))
    seen = []
    cache.extend(
        tmp_path / "c", Stub(), list("abcde"), batch_size=2, progress=lambda *n: seen.append(n)
    )
    assert seen == [(4, 2), (5, 3)]
