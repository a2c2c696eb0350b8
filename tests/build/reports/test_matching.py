"""The report on a CLIP, over labelled and over named records, against a count by hand."""

from pathlib import Path

import numpy as np
import pytest

from diffjax.build.inputs import reading
from diffjax.build.options import config
from diffjax.build.reports import matching
from diffjax.core.errors import ConfigError
from diffjax.data import transforms
from diffjax.data.record import image_of
from diffjax.data.sources.fake import SHAPES, Shapes
from diffjax.encoders.clip import encoder
from tests.encoders.clip import small


class Labelled(Shapes):
    """The same records, with the names of their labels."""

    classes = tuple(SHAPES)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    clip = encoder.load(small.write(tmp_path_factory.mktemp("clips") / "small"))
    return matching.LoadedClip(config.load("configs/clip.py:tiny"), clip, 4, "live")


def pictures_of(records):
    return np.stack([transforms.decode(image_of(records[i])) for i in range(len(records))])


def by_hand(clip, records, classes, right):
    """The share of pictures whose class has the largest product; classes: name -> texts."""
    means = np.stack([clip.of_captions(texts).mean(axis=0) for texts in classes.values()])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    best = np.argmax(clip.of_pictures(pictures_of(records)) @ means.T, axis=1)
    return np.mean([list(classes)[i] == name for i, name in zip(best, right, strict=True)])


def test_labels_are_the_classes_where_there_are_some(loaded, monkeypatch):
    """In blocks of three pictures, of which the last one is not full."""
    records = Labelled(20, 16)
    monkeypatch.setattr(reading, "records_held_out", lambda options, split: records)
    monkeypatch.setattr(matching, "BLOCK", 3)
    found = matching.zero_shot(loaded, "validation", None)
    assert (found["classes"], found["pictures"], found["texts"]) == (5, 20, 5)
    classes = {name: [f"a photo of a {name}."] for name in SHAPES}
    right = [list(SHAPES)[records[i]["label"]] for i in range(20)]
    assert found["top_1"]["share"] == by_hand(loaded.clip, records, classes, right)
    assert matching.zero_shot(loaded, "validation", 7)["pictures"] == 7


def test_names_are_the_classes_of_records_without_labels(loaded, monkeypatch):
    """Each by the mean of all captions of its records; no more of them than asked for."""
    records = Shapes(40, 16)
    monkeypatch.setattr(reading, "records_held_out", lambda options, split: records)
    found = matching.zero_shot(loaded, "validation", None)
    names = [records[i]["name"] for i in range(40)]
    classes = {name: records.captions(names.index(name)) for name in sorted(set(names))}
    assert found["classes"] == len(classes)
    assert found["top_1"]["share"] == by_hand(loaded.clip, records, classes, names)
    few = matching.zero_shot(loaded, "validation", 4)
    assert (few["classes"], few["chance"]) == (4, 0.25)
    assert few["pictures"] == sum(name in matching.named(records, 4)[1] for name in names)


def test_records_that_say_nothing_have_no_classes(loaded, monkeypatch):
    class Mute(Shapes):
        def __getitem__(self, index):
            return {"image": super().__getitem__(index)["image"]}

        def captions(self, index):
            return ()

    monkeypatch.setattr(reading, "records_held_out", lambda options, split: Mute(6, 16))
    assert "neither labels nor names" in matching.zero_shot(loaded, "v", None)["why_not"]


@pytest.mark.parametrize(
    ("parts", "classifier", "key"),
    [(["loss"], None, "--parts"), ([], Path("some.safetensors"), "--classifier")],
)
def test_flags_of_other_stages_are_refused_for_a_clip(parts, classifier, key):
    matching.check_flags([], None)
    with pytest.raises(ConfigError, match=f"{key} = .*leave it out"):
        matching.check_flags(parts, classifier)
