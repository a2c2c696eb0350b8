"""From the keys of data.* to the records and the batches of a run."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from diffjax.build.inputs import columns, data, reading
from diffjax.build.options import config
from diffjax.core.errors import BadData, ConfigError, InputError
from diffjax.data.pipeline import train_iterator
from diffjax.data.record import captions_at
from tests.data.sources import made


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Wide pictures, transparent on the left, whose captions name no side."""
    root = tmp_path_factory.mktemp("photos")
    for index in range(12):
        image = Image.new("RGBA", (40, 16), (index * 20, 200, 30, 255))
        image.paste((0, 0, 0, 0), (0, 0, 15, 16))
        image.paste((250, 10, 10, 255), (24, 0, 40, 16))
        image.save(root / f"p{index:02d}.png")
        (root / f"p{index:02d}.txt").write_text(made.caption(index))
    return root


def options_of(root, *changes):
    options = config.load("configs/base64.py:tiny")
    config.override(options, [f"--config.data.name=folder:{root}", "--config.data.size_px=16"])
    config.override(options, [f"--config.data.{change}" for change in changes])
    return options


def batch_of(root, *changes):
    options = options_of(root, *changes)
    records = reading.source_of(options)
    batches = train_iterator(
        records, columns.readers_of(options, None), batch_size=8, seed=0, threads=0
    )
    return next(batches)["image"], {c for i in range(len(records)) for c in captions_at(records, i)}


@pytest.mark.parametrize(
    "change", ["aspect=pad", "aspect=random", "ground=black", "flip=true", "split=train[:3]",
               "validation=0.5"],
)  # fmt: skip
def test_another_value_changes_the_batch(photos, change):
    usual, _ = batch_of(photos)
    other, _ = batch_of(photos, change)
    assert not np.array_equal(usual, other)


def test_captions_come_from_beside_the_pictures_from_their_folder_or_from_nowhere(photos):
    assert batch_of(photos)[1] == {made.caption(i) for i in range(12)}
    assert batch_of(photos, "captions=none")[1] == set()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("aspect=wide", "data.aspect = 'wide'"), ("captions=all", "data.captions = 'all'"),
        ("ground=whiter", "data.ground = 'whiter': want a colour"),
        ("validation=0.95", "data.validation = 0.95"), ("workers=-1", "data.workers = -1"),
        ("max_bad_fraction=2", "data.max_bad_fraction = 2"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(photos, change, words):
    from diffjax.build.check import check

    with pytest.raises(ConfigError) as caught:
        check(options_of(photos, change))
    assert words in str(caught.value)


@pytest.mark.parametrize("change", ["more", "another size", "allowed", "another name"])
def test_data_that_changed_since_the_run_began_are_refused_unless_allowed(tmp_path, change):
    root = made.folder(tmp_path / "a", "txt")
    options, run = options_of(root), tmp_path / "run"
    run.mkdir()
    records = reading.source_of(options)
    assert not data.same_data(options, records, run)
    data.note_data(options, records, run)
    assert data.same_data(options, records, run)
    if change == "more":
        made.picture(0).save(root / "new.png")
    else:
        (root / "p000.txt").write_text("another caption, and a longer one")
    if change == "allowed":
        options.data.allow_changed = True
    if change == "another name":
        options = options_of(f"{root}/", "captions=none")
    records = reading.source_of(options)
    if change in ("allowed", "another name"):
        assert not data.same_data(options, records, run)
    else:
        with pytest.raises(ConfigError, match=r"has changed since .* \(12 records then, 1[23] now"):
            data.same_data(options, records, run)


def test_broken_records_of_others_are_looked_for_before_a_run_and_only_then(tmp_path):
    root = made.folder(tmp_path / "a", "txt")
    (root / "broken.png").write_bytes(b"x")
    options, run = options_of(root, "max_bad_fraction=0.05"), tmp_path / "run"
    run.mkdir()
    records = reading.source_of(options)
    broken = data.broken_of(options, records, run, look=True)
    assert [skipped.name for skipped in broken.seen.values()] == ["broken.png"]
    assert data.broken_of(options, records, run, look=False).seen == broken.seen
    (root / "broken2.png").write_bytes(b"")
    records = reading.source_of(options)
    with pytest.raises(
        BadData, match=r"after 1 others, is more than data\.max_bad_fraction allows"
    ):
        data.broken_of(options, records, tmp_path, look=True)


def test_a_model_of_texts_on_pictures_without_captions_is_warned_of(tmp_path, capsys):
    silent = options_of(made.folder(tmp_path / "a", None, count=3), "validation=0.01")
    for options, warned in ((silent, True), (options_of(made.folder(tmp_path / "b")), False)):
        data.warn_if_untold(options, reading.source_of(options))
        assert ("has no captions: every example trains as no text" in capsys.readouterr().out) == (
            warned
        )


def test_the_list_of_other_data_does_not_count(tmp_path):
    """Records are counted by their numbers, which mean others in another data set."""
    (tmp_path / "left_out.jsonl").write_text('{"record": 3, "name": "old.png", "reason": "x"}\n')
    options = options_of(made.folder(tmp_path / "a", "txt"))
    records = reading.source_of(options)
    assert len(data.broken_of(options, records, tmp_path, look=False).seen) == 1
    assert data.broken_of(options, records, tmp_path, look=True).seen == {}
    assert not (tmp_path / "left_out.jsonl").exists()


def test_a_missing_split_names_its_key_and_a_missing_folder_the_datas(tmp_path):
    root = made.folder(tmp_path / "splits", "txt", count=3)
    with pytest.raises(ConfigError, match=r"data\.split = 'test': "):
        reading.source_of(options_of(root, "split=test"))
    with pytest.raises(ConfigError, match=r"data\.name = 'folder:.*splits/none': "):
        reading.source_of(options_of(root / "none"))


def test_a_wrong_number_of_classes_is_refused(tmp_path):
    options = config.load("configs/digits.py:tiny")
    config.override(
        options, [f"--config.data.name=folder:{made.folder(tmp_path / 'a', 'classes')}"]
    )
    with pytest.raises(ConfigError, match=r"classes.num = 10: .* has 3"):
        data.check_classes(options, reading.source_of(options))


def together(monkeypatch, options, runs):
    """What `records_of_all` gives or raises in two processes, each of which is a thread here."""
    who, barrier, said = threading.local(), threading.Barrier(2), {}

    def told_by_all(name, mine):
        said[who.index] = mine
        barrier.wait(60)
        return [said[0], said[1]]

    def start(index):
        who.index = index
        try:
            return data.records_of_all(options[index], runs)
        except (ConfigError, InputError) as error:
            return error

    monkeypatch.setattr(data.processes, "told_by_all", told_by_all)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(start, range(2)))


def test_processes_that_read_other_files_all_end_with_the_same_line(tmp_path, monkeypatch):
    one = options_of(made.folder(tmp_path / "a", "txt", count=3))
    copy = options_of(made.folder(tmp_path / "copy", "txt", count=3))
    other = options_of(made.folder(tmp_path / "b", "txt", count=4))
    records = [found[0] for found in together(monkeypatch, [one, copy], tmp_path)]
    assert [len(each) for each in records] == [3, 3]
    for error in together(monkeypatch, [one, other], tmp_path):
        assert "process 1 reads other data than process 0 (4 records and 3)" in str(error)
        assert isinstance(error, ConfigError)


def test_where_one_process_has_no_data_all_end_with_its_line(tmp_path, monkeypatch):
    one = options_of(made.folder(tmp_path / "a", "txt", count=3))
    first, second = together(monkeypatch, [one, options_of(tmp_path / "none")], tmp_path)
    assert "there is no such folder" in str(second)
    assert str(first) == f"process 1: {second}"


def test_previews_show_the_next_record_in_the_place_of_one_that_cannot_be_read(tmp_path):
    root = made.folder(tmp_path / "a", "txt", count=4)
    (root / "p000.txt").write_bytes(b"caf\xe9")
    options = options_of(root)
    options.sample.num_images = 4
    names = [reading.source_of(options).name(i) for i in range(4)]
    assert names.index("p000.png") == 2
    shown = columns.shown_of(options, reading.source_of(options), None, None)
    assert shown.captions == tuple(made.caption(i) for i in (1, 3, 2, 2))
    for path in root.rglob("*.png"):
        path.with_suffix(".txt").write_bytes(b"caf\xe9")
    with pytest.raises(BadData, match="no record of it can be read"):
        columns.shown_of(options, reading.source_of(options), None, None)
