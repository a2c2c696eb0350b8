import importlib
import json
import subprocess
import sys

import pytest

from diffjax.data.emoji import builder, drawings, splits
from diffjax.data.sources import tfds
from tests.data.conftest import some_drawings

COUNTS = {"train": 6992, "validation": 320, "test": 303, "compositional": 78, "style": 148}


@pytest.fixture
def tiny(monkeypatch):
    """A catalogue of about two dozen drawings, some of each split."""
    few = some_drawings(1)
    monkeypatch.setattr(drawings, "catalogue", lambda: few)
    return few


def records(builder_dir, split):
    some = tfds.open_source(str(builder_dir), split)
    return [some[i] for i in range(len(some))]


def test_every_split_holds_what_was_assigned(few_emoji):
    for split, assigned in splits.assign_splits(some_drawings(5)).items():
        got = records(few_emoji / "emoji/64/1.0.2", split)
        assert sorted(record["name"] for record in got) == sorted(d.name for d in assigned)


def test_the_prepared_folder_states_licences_and_sizes(few_emoji):
    folder = few_emoji / "emoji/64/1.0.2"
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"
    assert "CC BY-SA 4.0" in (folder / "LICENSE").read_text()
    assert "jdecked" in info["citation"]
    assert {split["name"] for split in info["splits"]} == set(splits.SPLITS)


def test_a_prepared_data_set_is_not_made_again(few_emoji, monkeypatch):
    monkeypatch.setattr(drawings, "catalogue", lambda: pytest.fail("made again"))
    assert builder.prepare(64, few_emoji) == few_emoji / "emoji/64/1.0.2"


def test_records_do_not_depend_on_the_number_of_processes(tiny, tmp_path):
    alone = builder.prepare(64, tmp_path / "alone", workers=0)
    pooled = builder.prepare(64, tmp_path / "pooled", workers=2)
    for split in splits.SPLITS:
        assert records(alone, split) == records(pooled, split)


def test_an_interrupted_preparation_is_repeated(tiny, tmp_path, monkeypatch):
    rasterise = drawings.rasterise

    def broken(drawing, size_px):
        if drawing == tiny[-1]:
            raise KeyboardInterrupt
        return rasterise(drawing, size_px)

    with monkeypatch.context() as patch:
        patch.setattr(drawings, "rasterise", broken)
        with pytest.raises(KeyboardInterrupt):
            builder.prepare(64, tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))
    assert (builder.prepare(64, tmp_path) / "dataset_info.json").exists()


def test_all_sizes_have_the_same_splits(tiny, tmp_path):
    small, large = builder.prepare(64, tmp_path), builder.prepare(256, tmp_path, workers=0)
    for split in splits.SPLITS:
        one, other = records(small, split), records(large, split)
        assert [r["name"] for r in one] == [r["name"] for r in other]
        assert [r["captions"] for r in one] == [r["captions"] for r in other]


def test_the_default_folder_follows_the_environment(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert builder.prepare() == tmp_path / "emoji/64/1.0.2"


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r"size_px=65 .* \(64, 256, 1024\)"):
        builder.prepare(65)


def test_the_module_can_be_reloaded():
    before = builder.Emoji
    try:
        assert importlib.reload(builder).Emoji.name == "emoji"
    finally:
        builder.Emoji = before


def test_the_data_set_can_be_read_without_tensorflow(few_emoji):
    code = (
        "import sys; from diffjax.data import pipeline, readers\n"
        "from diffjax.data.sources import tfds as source\n"
        f"s = source.open_source('emoji/64', 'train', {str(few_emoji)!r})\n"
        "next(pipeline.train_iterator(s, [readers.picture(64)], batch_size=4, seed=0))\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.slow
def test_the_full_data_set_has_7841_pictures_and_none_in_two_splits(tmp_path):
    folder = builder.prepare(64, tmp_path, workers=2)
    pictures = {split: [r["image"] for r in records(folder, split)] for split in splits.SPLITS}
    assert {split: len(some) for split, some in pictures.items()} == COUNTS
    assert sum(COUNTS.values()) == 7841
    distinct = [set(some) for some in pictures.values()]
    assert sum(map(len, distinct)) == len(set.union(*distinct))
