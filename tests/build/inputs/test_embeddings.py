"""The embeddings of a run: read or made once, never by going through the data again."""

import functools
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.build.inputs import embeddings
from diffjax.build.options import config
from diffjax.core.errors import BadData, ConfigError
from diffjax.data import order
from diffjax.data.broken import Broken, BrokenRecord
from diffjax.data.captions import from_source
from diffjax.data.chance import Chance
from diffjax.data.examples import Examples, Parts
from diffjax.data.pipeline import train_iterator
from diffjax.data.readers import picture, text
from diffjax.data.sources.folder import open_folder
from diffjax.encoders.cache import cache, marks
from diffjax.tasks.text import mask_from_length, null_text
from tests.data.sources import made as pictures
from tests.encoders.stub import Stub

RECORDS = (
    {"captions": (" a frog. ", "a dog")},
    {"captions": ("   ", "a cat\n")},
    {"captions": ()},
    {"name": "without"},
)


class Counting:
    """Records that count how often they and their captions are read."""

    def __init__(self, records=RECORDS, name="these"):
        self.records, self.called = records, name
        self.read = self.captions_read = 0

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        self.read += 1
        return self.records[index]

    def captions(self, index):
        self.captions_read += 1
        return self.records[index].get("captions", ())

    def fingerprint(self):
        return self.called


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "users"))


@pytest.fixture
def photos(tmp_path):
    return pictures.folder(tmp_path / "photos")


def options(path=""):
    made = config.load("configs/base64.py:tiny")
    made.data.embeddings = str(path)
    return made


def test_clean_captions_are_encoded_and_blank_ones_are_not():
    encoder = Stub()
    made = embeddings.embeddings_of(options(), Counting(), encoder)
    assert sorted(encoder.asked) == ["a cat", "a dog", "a frog."]
    assert sorted(made) == ["a cat", "a dog", "a frog."]


def test_the_first_start_reads_captions_alone_and_the_second_nothing():
    source = Counting()
    embeddings.embeddings_of(options(), source, Stub())
    assert (source.read, source.captions_read) == (0, 4)
    again, encoder = Counting(), Stub()
    made = embeddings.embeddings_of(options(), again, encoder)
    assert (again.read, again.captions_read) == (0, 0)
    assert encoder.asked == []
    assert len(made) == 3


def test_the_captions_of_other_data_are_read():
    embeddings.embeddings_of(options(), Counting(), Stub())
    other, encoder = Counting([*RECORDS, {"captions": ("a pear",)}], "those"), Stub()
    embeddings.embeddings_of(options(), other, encoder)
    assert other.captions_read == 5
    assert encoder.asked == ["a pear"]


def test_another_encoder_reads_all_captions_again():
    embeddings.embeddings_of(options(), Counting(), Stub())
    source, encoder = Counting(), Stub(fingerprint="f" * 16)
    embeddings.embeddings_of(options(), source, encoder)
    assert source.captions_read == 4
    assert len(encoder.asked) == 3


def test_captions_of_data_without_a_fingerprint_are_read_at_every_start():
    source = list(RECORDS)
    assert len(embeddings.embeddings_of(options(), source, Stub())) == 3
    encoder = Stub()
    assert len(embeddings.embeddings_of(options(), source, encoder)) == 3
    assert encoder.asked == []


def test_a_deleted_shard_is_made_again_in_spite_of_the_mark():
    made = embeddings.embeddings_of(options(), Counting(), Stub())
    (shard,) = made.index.shards
    (made.path / shard).unlink()
    source, encoder = Counting(), Stub()
    assert len(embeddings.embeddings_of(options(), source, encoder)) == 3
    assert source.captions_read == 4
    assert len(encoder.asked) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"data": 3}', b"[" * 100_000])
def test_a_damaged_mark_is_ignored(content):
    made = embeddings.embeddings_of(options(), Counting(), Stub())
    (mark,) = made.path.glob("all-of-*.json")
    mark.write_bytes(content)
    source = Counting()
    embeddings.embeddings_of(options(), source, Stub())
    assert source.captions_read == 4
    assert marks.has_mark(made.path, "these")  # and is made anew


def test_a_mark_that_cannot_be_written_costs_a_warning(monkeypatch, caplog):
    def full(*arguments):
        raise OSError("no space")

    made = cache.ensure(cache.default_folder(Stub()), Stub(), ["a frog.", "a dog", "a cat"])
    monkeypatch.setattr(marks.shards, "write_whole", full)
    with caplog.at_level(logging.WARNING, "absl"):
        assert len(embeddings.embeddings_of(options(), Counting(), Stub())) == len(made)
    assert "the next start goes through all captions again" in caplog.text


def test_captions_are_encoded_while_others_are_still_to_be_read(monkeypatch):
    """Windows of captions, not all of them, are in memory."""
    monkeypatch.setattr(cache, "WINDOW", 8)
    monkeypatch.setattr(cache, "extend", functools.partial(cache.extend, window=8))
    encoder, seen = Stub(), []
    source = Counting([{"captions": (f"frog {i}",)} for i in range(100)])
    embeddings.embeddings_of(
        options(), source, encoder, lambda *told: seen.append((*told, source.captions_read))
    )
    assert len(encoder.asked) == 100
    first_done, first_total, first_read = seen[0]
    assert first_read <= 24
    assert 0 < first_done <= 16
    assert 80 <= first_total <= 120  # guessed from the share that is read
    assert seen[-1] == (100, 100, 100)


def test_training_embeds_a_blank_caption_as_the_null_text_of_guidance():
    made = embeddings.embeddings_of(options(), Counting(), Stub())
    batches = train_iterator(Counting(RECORDS[2:]), [text(made.embed, 16)], batch_size=4, seed=0)
    batch = next(batches)
    mask = mask_from_length(jnp.asarray(batch["text_length"]), 16)
    ones = jnp.ones(batch["text"].shape)
    no_text, no_mask = null_text(ones, jnp.ones(mask.shape, bool))
    np.testing.assert_array_equal(batch["text"].astype(np.float32), no_text)
    np.testing.assert_array_equal(mask, no_mask)


@pytest.mark.parametrize("named", [False, True])
def test_every_caption_that_training_asks_for_is_there(named, tmp_path):
    source, path = Counting(), ""
    if named:  # as diffjax.embed --data-set does
        path = tmp_path / "made"
        cache.extend(path, Stub(), from_source(source))
    made = embeddings.embeddings_of(options(path), source, Stub())
    batches = train_iterator(source, [text(made.embed, 16)], batch_size=8, seed=0)
    lengths = {int(n) for _ in range(8) for n in next(batches)["text_length"]}
    assert lengths == {1, 3}  # the null text; two words and the end


def test_a_caption_that_a_named_cache_lacks_is_refused_and_stops_a_run_alike(tmp_path):
    cache.extend(tmp_path / "c", Stub(), ["a dog"])
    with pytest.raises(ConfigError, match=r"has no caption 'a frog\.'"):
        embeddings.embeddings_of(options(tmp_path / "c"), Counting(), Stub())
    with pytest.raises(BadData, match=r"no caption 'a frog\.' among its 1; python -m diffjax"):
        cache.open_cache(tmp_path / "c").embed("a frog.")


@pytest.mark.parametrize("named", [False, True])
def test_captions_that_cannot_be_read_are_refused_with_the_records_number(named, tmp_path):
    cache.extend(tmp_path / "c", Stub(), ["a dog"])
    source = Counting([{"captions": 3}])
    with pytest.raises(ConfigError, match=r"captions '3': want a sequence of strings") as caught:
        embeddings.embeddings_of(options(tmp_path / "c" if named else ""), source, Stub())
    assert "record 0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_whose_captions_are_broken_is_passed_over_and_training_leaves_it_out(tmp_path):
    """One caption that is not UTF-8 must not keep a thousand pictures from being trained on."""

    class Folder(Counting):
        def captions(self, index):
            if index == 1:
                raise BrokenRecord("its caption b.txt is not UTF-8")
            return super().captions(index)

        def __getitem__(self, index):
            return {"captions": self.captions(index)}

    made = embeddings.embeddings_of(options(), Folder(), Stub())
    assert sorted(made) == ["a dog", "a frog."]
    cache.extend(tmp_path / "c", Stub(), ["a dog", "a frog."])
    embeddings.embeddings_of(options(tmp_path / "c"), Folder(), Stub())
    broken = Broken(4, 0.25)
    batches = train_iterator(
        Folder(), [text(made.embed, 16)], batch_size=4, seed=0, broken=broken, threads=0
    )
    next(batches)
    assert [skipped.record for skipped in broken.seen.values()] == [1]


def test_a_caption_that_was_edited_while_a_run_goes_on_breaks_its_record_alone():
    source = Counting([{"captions": ("a frog",)}, {"captions": ("a dog",)}])
    found = embeddings.embeddings_of(options(), source, Stub())
    embed = pickle.loads(pickle.dumps(embeddings.of_known_captions(found.embed)))
    np.testing.assert_array_equal(embed("a frog"), found.embed("a frog"))
    source.records = [{"captions": ("another frog",)}, {"captions": ("a dog",)}]
    broken = Broken(2, 0.5)
    batches = train_iterator(
        source, [text(embed, 16)], batch_size=4, seed=0, broken=broken, threads=0
    )
    next(batches)
    (skipped,) = broken.seen.values()
    assert skipped.reason == (
        "its caption 'another frog' is new: it was another one when the run began"
    )


def test_captions_encoded_now_are_those_of_the_cache_up_to_its_precision():
    encoder = Stub()
    now = embeddings.encoded(encoder, ["a frog.", "", "a dog"])
    made = embeddings.embeddings_of(options(), Counting(), encoder)
    for caption in ("a frog.", "", "a dog"):
        assert now(caption).shape == made.embed(caption).shape
        np.testing.assert_allclose(
            now(caption), made.embed(caption).astype(np.float32), rtol=2**-7, atol=1e-6
        )


def test_of_several_processes_the_first_encodes_and_the_others_read(monkeypatch):
    """Each in a thread; they meet as processes do."""
    who, barrier = threading.local(), threading.Barrier(3)
    monkeypatch.setattr(embeddings.processes, "is_first", lambda: who.first)
    monkeypatch.setattr(
        embeddings.processes, "wait_for_all", lambda name, timeout_s: barrier.wait(60)
    )
    sources, encoders = [Counting() for _ in range(3)], [Stub() for _ in range(3)]
    chosen = options()  # once: a config file is read by one thread at a time

    def start(index):
        who.first = index == 1
        return len(embeddings.embeddings_of(chosen, sources[index], encoders[index]))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(start, range(3))) == [3, 3, 3]
    assert [source.captions_read for source in sources] == [0, 4, 0]
    assert [len(encoder.asked) for encoder in encoders] == [0, 3, 0]


def batches_with_text(folder, **how):
    """Pictures and the embeddings of their captions, as a run reads them."""
    source = open_folder(folder)
    made = embeddings.embeddings_of(options(), source, Stub())
    return train_iterator(source, [text(made.embed, 6), picture(8)], batch_size=5, seed=0, **how)


def assert_same_batches(batches, others, count):
    for _ in range(count):
        batch, other = next(batches), next(others)
        assert batch.keys() == other.keys() == {"text", "text_length", "image"}
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def test_what_reads_batches_with_embeddings_travels_to_another_process(photos):
    source = open_folder(photos)
    made = embeddings.embeddings_of(options(), source, Stub())
    reading = Parts(
        Examples(
            source, (text(made.embed, 6), picture(8)), order.endless(source, 0), Chance(0), 0
        ),
        start=0, batch_size=5, rows=(0, 1, 3),
    )  # fmt: skip
    here, there = reading[2].columns, pickle.loads(pickle.dumps(reading))[2].columns
    assert here["text"].shape == (3, 6, 8)
    for name in ("text", "text_length", "image"):
        np.testing.assert_array_equal(here[name], there[name])


@pytest.mark.slow
def test_worker_processes_read_pictures_with_embeddings_and_resume(photos):
    alone, workers = batches_with_text(photos), batches_with_text(photos, worker_count=2)
    assert_same_batches(workers, alone, 3)
    position = workers.get_state()
    workers.close()
    one = batches_with_text(photos, worker_count=1)
    one.set_state(position)
    assert_same_batches(one, alone, 3)
    one.close()
