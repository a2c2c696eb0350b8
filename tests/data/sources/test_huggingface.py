"""Data sets of Hugging Face's `datasets`: saved, in parquet as on the hub, and of a folder."""

import pickle
import sys

import numpy as np
import pytest

from diffjax.data import readers
from diffjax.data.broken import BrokenRecord
from diffjax.data.pipeline import train_iterator
from diffjax.data.record import fingerprint_of
from diffjax.data.sources import huggingface
from diffjax.data.sources.open import Wanted, open_source
from diffjax.data.transforms import decode
from tests.data.sources import made

peers = pytest.mark.peers
COLOURS = list(made.COLOURS)


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The library, which asks no network and keeps what it makes in the test's folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets


def rows(datasets, indices):
    features = datasets.Features(
        image=datasets.Image(),
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=COLOURS),
    )
    columns = {
        "image": [{"bytes": made.encoded(made.picture(i)), "path": None} for i in indices],
        "text": [made.caption(i) for i in indices],
        "label": [i % 3 for i in indices],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def saved(datasets, folder):
    rows(datasets, range(made.COUNT)).save_to_disk(folder)
    return f"hf:{folder}"


def in_parquet(datasets, folder):
    """The layout of a repository of the hub."""
    (folder / "data").mkdir(parents=True)
    rows(datasets, range(made.COUNT)).to_parquet(folder / "data/train-00000-of-00001.parquet")
    return f"hf:{folder}"


@peers
@pytest.mark.parametrize("layout", [saved, in_parquet])
def test_each_row_is_its_picture_as_it_was_stored_with_its_caption_and_class(
    datasets, tmp_path, layout
):
    source = open_source(layout(datasets, tmp_path / "a"))
    assert len(source) == made.COUNT
    assert source.classes == tuple(COLOURS)
    assert source.captioned()
    for i in range(made.COUNT):
        record = source[i]
        assert record["image"] == made.encoded(made.picture(i))
        assert record["captions"] == source.captions(i) == (made.caption(i),)
        assert record["label"] == i % 3
    again = open_source(f"hf:{tmp_path / 'a'}")
    assert fingerprint_of(again) == fingerprint_of(source)
    assert pickle.loads(pickle.dumps(source))[7] == source[7]


@peers
def test_pictures_of_a_folder_are_read_from_their_files(datasets, tmp_path):
    root = made.folder(tmp_path / "a", "metadata.jsonl", count=4)
    source = open_source(f"hf:{root}")
    seen = {text: source[i] for i in range(4) for text in source.captions(i)}
    assert seen.keys() == {made.caption(i) for i in range(4)}
    for i in range(4):
        middle = decode(seen[made.caption(i)]["image"])[5, 5]
        np.testing.assert_array_equal(middle, made.picture(i).getpixel((0, 0)))
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(BrokenRecord, match="its picture: No such file"):
        source[0]


@peers
def test_splits_are_those_of_the_set_or_else_a_share_by_hash(datasets, tmp_path):
    whole = saved(datasets, tmp_path / "a")
    train = open_source(whole, Wanted(validation=0.5))
    held_out = open_source(whole, Wanted(split="validation", validation=0.5))
    assert len(train) + len(held_out) == made.COUNT
    assert 0 < len(held_out) < made.COUNT
    assert len(open_source(whole, Wanted(split="train[2:5]"))) == 3
    with pytest.raises(ValueError, match=r"data\.validation=0\.05 keeps a"):
        open_source(whole, Wanted(split="validation"))
    parts = datasets.DatasetDict(
        train=rows(datasets, range(3)), validation=rows(datasets, range(3, 5))
    )
    parts.save_to_disk(tmp_path / "b")
    for split, count in (("train", 3), ("validation", 2), ("train[:50%]", 1)):
        assert (
            len(open_source(f"hf:{tmp_path / 'b'}", Wanted(split=split, validation=0.5))) == count
        )
    with pytest.raises(ValueError, match="has no split 'test', only train, validation"):
        open_source(f"hf:{tmp_path / 'b'}", Wanted(split="test"))


@peers
def test_a_saved_position_goes_on_with_the_same_batches(datasets, tmp_path):
    name = saved(datasets, tmp_path / "a")
    wanted = [readers.caption, readers.label, readers.picture(8)]
    make = lambda: train_iterator(open_source(name), wanted, batch_size=3, seed=4)  # noqa: E731
    batches = make()
    every = [(batches.get_state(), next(batches)) for _ in range(12)]
    for state, want in every:
        resumed = make()
        resumed.set_state(state)
        got = next(resumed)
        for column in want:
            np.testing.assert_array_equal(got[column], want[column])


@peers
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"image_key": "photo"}, "no column 'photo', only"),
        ({"caption_key": "alt"}, "no column 'alt', only"),
    ],
)
def test_a_column_that_is_not_there_is_one_line(datasets, tmp_path, keys, words):
    with pytest.raises(ValueError, match=words) as caught:
        open_source(saved(datasets, tmp_path / "a"), Wanted(**keys))
    assert "\n" not in str(caught.value)


@peers
def test_what_is_no_data_set_is_one_line(datasets, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "empty", tmp_path / "nowhere", "nobody/nothing"):
        with pytest.raises(ValueError, match=f"hf:{name}") as caught:
            open_source(f"hf:{name}")
        assert "\n" not in str(caught.value)
    code = tmp_path / "code"
    code.mkdir()
    (code / "code.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(ValueError, match="hf:"):
        open_source(f"hf:{code}")
    assert not (tmp_path / "sprung").exists()


def test_without_the_library_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"hf:a/b needs datasets: pip install 'diffjax\[hf\]'"):
        open_source("hf:a/b")


@pytest.mark.parametrize("value", [None, {"bytes": None, "path": None}, 3])
def test_a_row_without_a_picture_is_a_broken_record(value):
    with pytest.raises(BrokenRecord, match="it has no picture"):
        huggingface._bytes_of(value)


def test_a_row_that_names_a_file_is_a_broken_record_where_the_file_is_not(tmp_path):
    with pytest.raises(BrokenRecord, match="its picture: No such file"):
        huggingface._bytes_of({"bytes": None, "path": str(tmp_path / "x.png")})
