import os
import pickle
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from diffjax.data import transforms
from diffjax.data.broken import BrokenRecord
from diffjax.data.record import RecordSource
from diffjax.data.sources import fake
from diffjax.data.sources.tfds import open_source


class Labelled(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set with a class label, nested captions and no names."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def _info(self):
        features = {
            "picture": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["red_circle", "red_square"]),
            "notes": tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64}),
            "title": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(4):
            yield (
                i,
                {
                    "picture": fake.Shapes(4, 8)[i]["image"],
                    "label": i % 2,
                    "notes": [{"text": f"note {i}", "id": i}, {"text": f"aside {i}", "id": -i}],
                    "title": f"title {i}",
                },
            )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("labelled")
    Labelled(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
    return data_dir


class Named(Labelled, skip_registration=True):
    """The same with names."""

    def _info(self):
        info = super()._info()
        features = tfds.features.FeaturesDict({**info.features, "name": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self):
        for i, example in super()._generate_examples():
            yield i, {**example, "name": f"name {i}"}


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("named")
    Named(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
    return data_dir


def test_a_record_holds_an_encoded_image_and_its_captions(few_emoji):
    source = open_source("emoji/64", "train", few_emoji, names=("red_apple",))
    assert isinstance(source, RecordSource)
    record = source[0]
    assert transforms.decode(record["image"]).shape == (64, 64, 3)
    assert record["name"] == "red_apple"
    assert len(record["captions"]) == 5
    assert all("red apple" in caption for caption in record["captions"])


def test_a_set_is_found_by_name_and_by_folder(few_emoji):
    by_name = open_source("emoji/64", "test", few_emoji)
    by_folder = open_source(str(few_emoji / "emoji/64/1.0.2"), "test")
    assert [by_name[i] for i in range(len(by_name))] == [by_folder[i] for i in range(len(by_name))]


def test_a_slice_of_a_split_is_a_split(few_emoji):
    whole, some = (open_source("emoji/64", split, few_emoji) for split in ("train", "train[2:5]"))
    assert [some[i] for i in range(3)] == [whole[i] for i in range(2, 5)]
    assert len(some) == 3


def test_only_the_named_records_are_kept(few_emoji):
    names = ("red_apple", "grinning_face")
    source = open_source("emoji/64", "train", few_emoji, names=names)
    assert len(source) == 4
    assert set(source.names()) == set(names)
    assert [source[i]["name"] for i in range(4)] == source.names()
    assert source.only(["red_apple"]).names() == ["red_apple"] * 2


def test_the_source_ends_where_its_length_says(few_emoji):
    source = open_source("emoji/64", "train", few_emoji, names=("red_apple",))
    with pytest.raises(IndexError):
        source[len(source)]


def test_a_pickled_source_reads_the_same(few_emoji):
    source = open_source("emoji/64", "train", few_emoji)
    assert pickle.loads(pickle.dumps(source))[3] == source[3]


@pytest.mark.parametrize(
    ("caption_key", "expected"),
    [
        ("title", {("title 0",), ("title 1",), ("title 2",), ("title 3",)}),
        ("label", {("red circle",), ("red square",)}),
        ("notes/text", {(f"note {i}", f"aside {i}") for i in range(4)}),
    ],
)
def test_captions_come_from_texts_labels_and_nested_texts(labelled, caption_key, expected):
    source = open_source(
        "labelled", "train", labelled, image_key="picture", caption_key=caption_key
    )
    assert {source[i]["captions"] for i in range(len(source))} == expected
    assert source[0]["name"] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("emojis/64", "train"), r"no data set 'emojis/64': known are \['emoji/1024'"),
        (("emoji/65", "train"), "no data set 'emoji/65': the sizes of emoji are"),
        (("emoji", "train"), "no data set 'emoji': the sizes of emoji are"),
        (("emoji/64", "trian"), r"no split 'trian', only \['compositional', 'style', 'test'"),
    ],
)
def test_an_unknown_set_or_split_is_a_value_error(few_emoji, arguments, message):
    with pytest.raises(ValueError, match=message):
        open_source(*arguments, few_emoji)


def test_an_unknown_name_is_a_value_error_with_close_matches(few_emoji):
    with pytest.raises(
        ValueError, match=r"'red_aple' is not in this split; close to it: \['red_app"
    ):
        open_source("emoji/64", "train", few_emoji, names=("red_aple",))


def test_an_unknown_field_is_a_value_error(labelled):
    with pytest.raises(ValueError, match=r"no field 'image', only \['label', 'notes', 'picture'"):
        open_source("labelled", "train", labelled)
    with pytest.raises(ValueError, match="no field 'name' to choose names by"):
        open_source(
            "labelled", "train", labelled, image_key="picture", caption_key="title", names=("a",)
        )


def test_another_file_format_is_a_value_error(labelled, tmp_path):
    folder = tmp_path / "labelled/1.0.0"
    folder.mkdir(parents=True)
    for path in (labelled / "labelled/1.0.0").iterdir():
        text = path.read_bytes().replace(b'"array_record"', b'"riegeli"')
        (folder / path.name).write_bytes(text)
    with pytest.raises(ValueError, match="prepared as riegeli"):
        open_source("labelled", "train", tmp_path, image_key="picture", caption_key="title")


@pytest.mark.parametrize(
    ("split", "message"),
    [("train[:0]", "split 'train.:0.'"), ("train[x", "split 'train.x'"), ("train[5:99]", "slice")],
)
def test_an_impossible_slice_of_a_split_is_refused_in_one_line(labelled, split, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_source("labelled", split, labelled, image_key="picture", caption_key="title")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "", "mnist:3", "/nowhere/at/all"])
def test_an_unknown_data_set_is_refused_in_one_line_that_lists_the_known_ones(labelled, name):
    with pytest.raises(ValueError, match=r"known are \[.*'labelled'") as caught:
        open_source(name, "train", labelled)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_a_data_set_is_refused_in_a_line_that_says_what_is_needed(tmp_path):
    (tmp_path / "a.png").write_bytes(fake.Shapes(1, 8)[0]["image"])
    with pytest.raises(
        ValueError, match=r"without dataset_info\.json: folder:\S+ trains"
    ) as caught:
        open_source(str(tmp_path), "train")
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_names_the_folder_and_the_remedy(labelled, tmp_path):
    folder = tmp_path / "labelled/1.0.0"
    shutil.copytree(labelled / "labelled/1.0.0", folder)
    (path,) = folder.glob("*.array_record*")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IHDR")] ^= 1
    path.write_bytes(raw)
    source = open_source(str(folder), "train", image_key="picture", caption_key="title")
    match = rf"damaged at record 0 \({path.name}: .*; delete the data set"
    with pytest.raises(BrokenRecord, match=match) as caught:
        source[0]
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_fingerprint_depends_on_split_names_captions_and_files(few_emoji):
    names = ("red_apple",)
    made = [
        open_source("emoji/64", "train", few_emoji),
        open_source("emoji/64", "train[1:]", few_emoji),
        open_source("emoji/64", "train", few_emoji, names=names),
        open_source("emoji/64", "train", few_emoji, caption_key="name"),
    ]
    prints = [source.fingerprint() for source in made]
    assert len(set(prints)) == 4
    assert open_source("emoji/64", "train", few_emoji).fingerprint() == prints[0]
    assert made[0].only(names).fingerprint() == prints[2]
    (path, *_) = (few_emoji / "emoji/64").glob("*/*train*.array_record*")
    os.utime(path, (1, 1))
    assert open_source("emoji/64", "train", few_emoji).fingerprint() != prints[0]


def test_captions_alone_are_those_of_the_records(few_emoji):
    source = open_source("emoji/64", "train", few_emoji, names=("red_apple", "grinning_face"))
    assert [source.captions(i) for i in range(4)] == [source[i]["captions"] for i in range(4)]


def test_records_chosen_by_name_are_complete(named):
    """`only` chooses records, and leaves each as it is: picture, captions, name and class."""
    source = open_source("named", "train", named, image_key="picture", caption_key="title")
    wanted = ["name 1", "name 2"]
    whole = [source[i] for i in range(len(source)) if source[i]["name"] in wanted]
    kept = source.only(wanted)
    assert [kept[i] for i in range(len(kept))] == whole
    assert [record["label"] for record in whole] == [1, 0]
