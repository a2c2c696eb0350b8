import itertools

import grain
import ml_dtypes
import numpy as np
import pytest

from diffjax.data import readers, transforms
from diffjax.data.broken import Broken
from diffjax.data.pipeline import eval_batches, train_iterator
from diffjax.data.sources.fake import Shapes


def noise(count, size_px=12):
    """Records of noise: a crop tells where it was taken."""
    draw = np.random.default_rng(3)
    pictures = draw.integers(0, 256, (count, size_px, size_px, 3), np.uint8)
    return [
        {"image": transforms.encode_png(p), "captions": tuple(f"{i} {c}" for c in "abcde")}
        for i, p in enumerate(pictures)
    ]


def test_an_example_is_a_shuffled_record_whose_caption_is_drawn_before_its_crop():
    """Beside Grain's own chain, with the draws written out: this order is part of every run."""
    source = noise(7)

    def drawn(record, rng):
        captions = record["captions"]
        caption = captions[rng.integers(len(captions))]
        top, left = rng.integers(12 - 8 + 1), rng.integers(12 - 8 + 1)
        return caption, transforms.decode(record["image"])[top : top + 8, left : left + 8]

    chain = grain.MapDataset.source(source).seed(5).shuffle().repeat().random_map(drawn)
    columns = readers.captioned_pictures(size_px=12, crop_px=8)
    batches = train_iterator(source, columns, batch_size=4, seed=5)
    for number, batch in enumerate(itertools.islice(batches, 5)):
        for row in range(4):
            caption, picture = chain[4 * number + row]
            assert batch["caption"][row] == caption
            np.testing.assert_array_equal(batch["image"][row], picture)


def test_data_of_classes_without_pictures_or_captions_makes_batches():
    source = [{"label": i % 3} for i in range(9)]
    batch = next(train_iterator(source, [readers.label], batch_size=9, seed=0))
    assert list(batch) == ["label"]
    assert batch["label"].dtype == np.int32
    assert sorted(batch["label"].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    (one, rest) = eval_batches(source, [readers.label], batch_size=5)
    assert one["label"].tolist() + rest["label"].tolist() == [0, 1, 2] * 3


def test_a_record_of_a_class_that_there_is_not_is_left_out():
    """The network would take another class's embedding for it, and say nothing."""
    source = [{"label": label} for label in (0, -1, 2, 3)]
    broken = Broken(4, 0.5)
    batches = train_iterator(
        source, [readers.label_below(3)], batch_size=8, seed=0, broken=broken, threads=0
    )
    assert set(next(batches)["label"].tolist()) == {0, 2}
    assert {skipped.reason for skipped in broken.seen.values()} == {
        "its class is -1, and there are 0 to 2", "its class is 3, and there are 0 to 2"
    }  # fmt: skip


def test_class_labels_stand_beside_pictures():
    columns = [readers.label, readers.picture(8)]
    batch = next(eval_batches(Shapes(5, 8), columns, batch_size=5))
    assert batch["label"].tolist() == [0, 1, 2, 3, 4]
    assert batch["image"].shape == (5, 8, 8, 3)


def test_a_reader_of_ones_own_needs_no_change_elsewhere():
    def length(record, rng):
        return {"length": np.asarray(len(record["captions"]), np.int32)}

    batch = next(train_iterator(Shapes(4, 8), [length], batch_size=4, seed=0))
    assert batch["length"].tolist() == [2] * 4


def test_without_a_generator_the_first_caption_and_the_whole_picture_are_read():
    (record,) = noise(1)
    columns = readers.captioned_pictures(size_px=12, crop_px=8)
    read = {name: value for reader in columns for name, value in reader(record, None).items()}
    assert read["caption"] == "0 a"
    assert read["image"].shape == (12, 12, 3)


@pytest.mark.parametrize("record", [{"captions": ("  ",)}, {"captions": ()}, {}])
def test_a_blank_or_missing_caption_is_embedded_as_the_null_text(record):
    asked = []

    def embed(caption):
        asked.append(caption)
        return np.zeros((1, 3), ml_dtypes.bfloat16)

    read = readers.text(embed, 4)(record, np.random.default_rng(0))
    assert asked == [""]
    assert read["text"].shape == (4, 3)
    assert read["text_length"] == 1


def test_a_crop_larger_than_the_picture_is_refused_before_any_is_read():
    with pytest.raises(ValueError, match="crop_px=9 must be 1 to size_px=8"):
        readers.picture(8, 9)


def test_an_embedding_that_is_too_long_loses_its_end_and_a_short_one_is_padded():
    embed = lambda caption: np.arange(1, 6, dtype=np.float32)[:, None]  # noqa: E731
    cut, padded = (readers.text(embed, n)({"captions": ("a",)}, None) for n in (3, 7))
    assert (cut["text"].ravel().tolist(), cut["text_length"]) == ([1, 2, 3], 3)
    assert (padded["text"].ravel().tolist(), padded["text_length"]) == ([1, 2, 3, 4, 5, 0, 0], 5)


def test_training_sees_only_captions_with_the_words_of_a_record_that_has_such():
    asked = []

    def embed(caption):
        asked.append(caption)
        return np.zeros((1, 3), np.float32)

    two = {"captions": ("an Oil pear", "a pear", "a pear in oil")}
    none = {"captions": ("a pear", "one pear")}
    random = np.random.default_rng(0)
    readings = (
        readers.text(embed, 4, ["oil"]),
        readers.text_with_vector(embed, 4, "of", lambda caption: np.zeros((1, 2)), ["oil"]),
        readers.tokens(lambda caption: [asked.append(caption)] and [1], ["oil"]),
    )
    for read in readings:
        asked.clear()
        for _ in range(30):
            read(two, random)
        assert set(asked) == {"an Oil pear", "a pear in oil"}
        asked.clear()
        for _ in range(30):
            read(none, random)
        assert set(asked) == set(none["captions"])
        asked.clear()
        read({"captions": ("a pear", "a pear in oil")}, None)
        assert asked == ["a pear"]  # an evaluation takes the first
