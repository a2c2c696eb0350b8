"""A data set written as ArrayRecord: the same records, found by index, and resumed after a cut."""

import json

import numpy as np
import pytest

from diffjax.core.errors import StorageError
from diffjax.data import prepare as prepare_lib
from diffjax.data.prepare import Look, prepare
from diffjax.data.sources.open import Wanted, open_source
from diffjax.data.transforms import centre_square, decode
from tests.data.sources import made


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(prepare_lib, "RECORDS_PER_SHARD", 5)


def opened(name, **wanted):
    return open_source(str(name), Wanted(**wanted))


def test_what_was_prepared_is_read_back_without_what_is_broken(tmp_path, small_shards):
    root = made.folder(tmp_path / "a", "txt")
    (root / "broken.png").write_bytes(b"x")
    source = opened(f"folder:{root}")
    shards = prepare({"train": source}, tmp_path / "out", Look())
    assert [shard.records for shard in shards["train"]] == [4, 5, 3]
    again = opened(tmp_path / "out")
    wanted = [source[i] for i in range(len(source)) if source.name(i) != "broken.png"]
    got = [again[i] for i in range(len(again))]
    assert [(r["name"], r["captions"], r["image"]) for r in got] == [
        (r["name"], r["captions"], r["image"]) for r in wanted
    ]
    (line,) = (tmp_path / "out/left_out.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "broken.png"


def test_pictures_can_be_made_small_squares_and_classes_keep_their_names(tmp_path):
    source = opened(f"folder:{made.folder(tmp_path / 'a', 'classes')}")
    prepare({"train": source}, tmp_path / "out", Look(size_px=8))
    again = opened(tmp_path / "out")
    for i in range(len(source)):
        assert again[i]["label"] == source[i]["label"]
        want = centre_square(decode(source[i]["image"]), 8)
        np.testing.assert_array_equal(decode(again[i]["image"]), want)


def test_classes_without_names_are_kept_as_numbers(tmp_path, monkeypatch):
    """Those of tars; a record without one has -1, as tensorflow-datasets writes it."""
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    png = made.encoded(made.picture(0))
    made.tar(tmp_path / "a.tar", [("0.png", b"x"), ("1.png", png), ("1.cls", b"4"), ("2.png", png)])
    prepare({"train": opened(f"tar:{tmp_path / 'a.tar'}")}, tmp_path / "out", Look())
    again = opened(tmp_path / "out")
    assert [again[i]["label"] for i in range(2)] == [4, -1]
    assert again.classes == ("0", "1", "2", "3", "4")


def test_a_run_that_was_cut_off_goes_on_and_makes_the_same_files(tmp_path, small_shards):
    source = opened(f"folder:{made.folder(tmp_path / 'a', 'txt')}")
    prepare({"train": source}, tmp_path / "whole", Look())

    class Cut(Exception):
        pass

    def stop(done, total):
        if done >= 5:
            raise Cut

    with pytest.raises(Cut):
        prepare({"train": source}, tmp_path / "cut", Look(), progress=stop)
    first = next((tmp_path / "cut").glob("*-00000-of-*"))
    at = first.stat().st_mtime_ns
    prepare({"train": source}, tmp_path / "cut", Look())
    assert first.stat().st_mtime_ns == at
    names = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == names
    for name in names:
        whole, cut = ((tmp_path / place / name).read_bytes() for place in ("whole", "cut"))
        assert whole.replace(b"/whole", b"/cut") == cut, name


def test_another_data_set_or_another_size_is_refused_in_the_same_folder(tmp_path):
    source = opened(f"folder:{made.folder(tmp_path / 'a', 'txt', count=3)}")
    prepare({"train": source}, tmp_path / "out", Look())
    with pytest.raises(StorageError, match=r"begun with other data or options .*look"):
        prepare({"train": source}, tmp_path / "out", Look(size_px=8))
    with pytest.raises(StorageError, match="is not empty"):
        prepare({"train": source}, tmp_path / "a", Look())


def test_the_splits_are_those_of_the_source(tmp_path):
    name = f"folder:{made.folder(tmp_path / 'a', 'txt')}"
    splits = {split: opened(name, split=split, validation=0.4) for split in ("train", "validation")}
    prepare(splits, tmp_path / "out", Look())
    for split, source in splits.items():
        again = opened(tmp_path / "out", split=split)
        assert [again[i]["name"] for i in range(len(again))] == [
            source.name(i) for i in range(len(source))
        ]
