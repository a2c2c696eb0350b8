"""Runs on data as people have it: captions that are blank or not there, pictures cut off."""

import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds

from diffjax import embed, main
from diffjax.data.pipeline import Batches, train_iterator
from diffjax.data.sources import fake
from diffjax.data.sources.tfds import Source, open_source
from tests.runs import arguments, digest, run
from tests.tiny_t5 import save_tiny

CAPTIONS = (("a frog. ", " a dog"), ("  ",), (), ("a cat\n", ""))
COUNT = 64
MET = (5, 6)  # the batches of 8 that training with seed 0 meets the cut pictures in
FLAGS = ("train.num_steps=8", "train.save_every=0", "sample.num_images=4")  # an epoch


class Little(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures, of which those named in `cut` are cut off in their middle."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None
    cut: tuple[str, ...] = ()

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(16, 16, 3), encoding_format="png"),
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(COUNT):
            image, name = fake.Shapes(COUNT, 16)[i]["image"], f"name_{i}"
            image = image[: len(image) // 2] if name in self.cut else image
            yield i, {"image": image, "captions": CAPTIONS[i % 4], "name": name}


class Begun(Exception):
    """A run has come to its first batch: what follows costs time and is of other tests."""


def prepared(builder, folder):
    made = builder(data_dir=str(folder), file_format="array_record")
    made.download_and_prepare()
    return str(made.data_path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    return prepared(Little, tmp_path_factory.mktemp("little"))


@pytest.fixture(scope="module")
def cut(little, tmp_path_factory):
    """The same data with two cut pictures: where it is, and their names in the order they come."""
    name = lambda record, rng: {"name": np.asarray(record["name"])}  # noqa: E731
    batches = list(
        itertools.islice(
            train_iterator(open_source(little, "train"), [name], batch_size=8, seed=0), 8
        )
    )
    names = tuple(str(batches[i]["name"][0]) for i in MET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Little, "cut", names)
        return prepared(Little, tmp_path_factory.mktemp("cut")), names


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "users"))


@pytest.mark.slow
def test_captions_with_blanks_blank_ones_and_none_train_alike_with_and_without_a_cache(
    little, encoder, tmp_path, capsys
):
    flags = (*FLAGS, f"data.name={little}")
    assert main.main([*arguments(tmp_path / "a", encoder, *flags), "--dry_run"]) == 0
    assert run(tmp_path / "a", encoder, *flags) == 0
    out = capsys.readouterr().out
    assert "caption      ''" in out
    assert "text embeddings: 3 of 3 captions" in out
    assert (tmp_path / "a/samples/0000008.png").exists()
    where = ["--data-set", little, "--out", str(tmp_path / "c"), "--encoder", encoder]
    assert embed.main([*where, "--max-length", "32"]) == 0
    assert "3 captions, 3 of them new" in capsys.readouterr().out
    assert run(tmp_path / "b", encoder, *flags, f"data.embeddings={tmp_path / 'c'}") == 0
    assert digest(capsys.readouterr().out) == digest(out)


@pytest.mark.slow
def test_a_second_start_reads_no_more_records_than_its_preview_shows(
    little, encoder, tmp_path, monkeypatch
):
    read, captions_read, at_start = [], [], []
    record, captions = Source.__getitem__, Source.captions

    def first(batches):
        at_start.append((len(read), len(captions_read)))
        raise Begun

    monkeypatch.setattr(Source, "__getitem__", lambda s, i: (read.append(i), record(s, i))[1])
    monkeypatch.setattr(
        Source, "captions", lambda s, i: (captions_read.append(i), captions(s, i))[1]
    )
    monkeypatch.setattr(Batches, "__next__", first)
    for name, before in (("first", (4, COUNT)), ("second", (4, 0))):
        for counts in (read, captions_read, at_start):
            counts.clear()
        with pytest.raises(Begun):
            run(tmp_path / name, encoder, *FLAGS, f"data.name={little}")
        assert at_start[0] == before


@pytest.mark.slow
def test_cut_pictures_are_skipped_up_to_the_limit_and_end_a_run_beyond_it(
    cut, encoder, tmp_path, capsys, caplog
):
    folder, names = cut
    flags = (*FLAGS, f"data.name={folder}")
    assert run(tmp_path / "a", encoder, *flags, "data.max_bad_fraction=0.03") == 0
    lines = [entry.getMessage() for entry in caplog.records if "skipped" in entry.getMessage()]
    assert [name for line in lines for name in names if f"({name})" in line] == list(names)
    assert "2 of 64 records are broken so far, 2 are allowed" in lines[1]
    capsys.readouterr()
    assert run(tmp_path / "b", encoder, *flags, "data.max_bad_fraction=0.01") == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if names[1] in line)
    assert (
        "this, after 1 others, is more than data.max_bad_fraction allows, 1 of 64 records" in line
    )


@pytest.mark.slow
def test_a_run_that_ends_on_a_broken_picture_keeps_its_steps_and_goes_on_when_it_is_mended(
    little, cut, encoder, tmp_path, capsys
):
    """An older config allows none, as 0 does."""
    folder, names = cut
    flags = (*FLAGS, "data.max_bad_fraction=0.0")
    assert run(tmp_path / "run", encoder, f"data.name={folder}", *flags) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if names[0] in line)
    assert "data.max_bad_fraction allows, 0 of 64 records" in line
    assert run(tmp_path / "run", encoder, f"data.name={little}", *flags) == 0
    ours = capsys.readouterr().out
    assert f"resuming from step {MET[0] - 1}" in ours  # the batch before was on its way
    assert run(tmp_path / "whole", encoder, f"data.name={little}", *flags) == 0
    assert digest(ours) == digest(capsys.readouterr().out)
