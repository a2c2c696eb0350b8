"""Every kind of source behind one signature, and mixtures of them."""

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from diffjax.data import readers
from diffjax.data.pipeline import train_iterator
from diffjax.data.prepare import Look, prepare
from diffjax.data.record import fingerprint_of, name_at
from diffjax.data.sources.mixture import Mixture
from diffjax.data.sources.open import Wanted, open_source, split_mixture
from diffjax.data.transforms import decode
from tests.data.sources import made
from tests.data.sources.prepared_mock import prepared

KINDS = ("folder", "tar", "parquet", "svg", "iconify")
ALL = (*KINDS, "array_record", "tfrecord", "fake", "mixture")
READERS = [readers.caption, readers.picture(8)]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    return made.every(tmp_path_factory.mktemp("every"))


@pytest.fixture(scope="module")
def all_names(names, tmp_path_factory):
    """`names`, and what is prepared, made up and mixed."""
    root = tmp_path_factory.mktemp("prepared")
    prepare({"train": open_source(names["folder"])}, root / "array_record", Look(size_px=8))
    features = {
        "image": tfds.features.Image(),
        "captions": tfds.features.Sequence(tfds.features.Text()),
    }
    examples = [
        {"image": made.encoded(made.picture(i)), "captions": [made.caption(i)]}
        for i in range(made.COUNT)
    ]
    return {
        **names,
        "array_record": str(root / "array_record"),
        "tfrecord": str(prepared(root, "little", features, {"train": examples})),
        "fake": "fake:12",
        "mixture": f"{names['folder']}*2.5 + {names['tar']}",
    }


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_has_each_picture_with_its_caption(names, kind):
    source = open_source(names[kind], Wanted(size_px=16))
    assert len(source) == made.COUNT
    seen = set()
    for i in range(len(source)):
        record = source[i]
        (text,) = record["captions"]
        index = int(text.split()[1])
        seen.add(index)
        assert text == made.caption(index)
        middle = decode(record["image"])[5, 5].astype(int)
        np.testing.assert_allclose(middle, made.picture(index).getpixel((0, 0)), atol=1)
        assert source.captions(i) == record["captions"]
        assert name_at(source, i) == record["name"]
        if kind in ("tar", "parquet"):
            assert record["label"] == index % 3
    assert seen == set(range(made.COUNT))
    with pytest.raises(IndexError):
        source[made.COUNT]


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_travels_to_another_process_and_knows_itself_again(names, kind):
    source = open_source(names[kind])
    again = pickle.loads(pickle.dumps(source))
    assert again[7] == source[7]
    assert (
        fingerprint_of(again) == fingerprint_of(source) == fingerprint_of(open_source(names[kind]))
    )


def test_each_source_has_another_fingerprint(names):
    assert len({fingerprint_of(open_source(name)) for name in names.values()}) == len(names)


@pytest.mark.parametrize("kind", ALL)
def test_a_saved_position_goes_on_with_the_same_batches_at_fifty_places(all_names, kind):
    source = open_source(all_names[kind], Wanted(size_px=8))
    make = lambda: train_iterator(source, READERS, batch_size=3, seed=4, threads=0)  # noqa: E731
    batches = make()
    states, every = [], []
    for _ in range(53):
        states.append(batches.get_state())
        every.append(next(batches))
    for at in range(50):
        resumed = make()
        resumed.set_state(states[at])
        for want in every[at : at + (3 if at % 10 == 0 else 1)]:
            got = next(resumed)
            for column in want:
                np.testing.assert_array_equal(got[column], want[column])


@pytest.mark.parametrize("kind", ALL)
def test_a_run_of_two_processes_goes_on_with_one_and_loses_and_repeats_nothing(all_names, kind):
    """What comes is what one process would have made; an epoch has every record once."""
    opened = lambda: open_source(all_names[kind], Wanted(size_px=8))  # noqa: E731
    make = lambda **rows: train_iterator(  # noqa: E731  each process opens its own
        opened(), READERS, batch_size=4, seed=2, threads=0, **rows
    )
    alone = make()
    whole = [next(alone) for _ in range(6)]
    both = [make(rows=[0, 1]), make(rows=[2, 3])]
    parts = [[next(process) for process in both] for _ in range(2)]
    assert both[0].get_state() == both[1].get_state() == {"next_example": 8}
    one = make()
    one.set_state(both[1].get_state())
    got = [
        {name: np.concatenate([part[name] for part in each]) for name in each[0]} for each in parts
    ]
    got += [next(one) for _ in range(4)]
    for mine, theirs in zip(got, whole, strict=True):
        for name in theirs:
            np.testing.assert_array_equal(mine[name], theirs[name])
    source = opened()
    if kind != "mixture":
        record = lambda i: tuple(source[i]["captions"])  # noqa: E731
        epoch = [str(text) for batch in got[: len(source) // 4] for text in batch["caption"]]
        left = [record(i) for i in range(len(source))]
        for text in epoch:
            left.remove(next(texts for texts in left if text in texts))
        assert not left


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_kept_for_validation_by_the_names_alone(names, kind):
    train = open_source(names[kind], Wanted(validation=0.5))
    held_out = open_source(names[kind], Wanted(split="validation", validation=0.5))
    parts = [{name_at(part, i) for i in range(len(part))} for part in (train, held_out)]
    assert not parts[0] & parts[1]
    assert len(train) + len(held_out) == made.COUNT
    assert len(held_out) > 0
    assert fingerprint_of(train) != fingerprint_of(held_out)
    assert held_out.captions(0) == held_out[0]["captions"]


def test_new_pictures_move_none_of_the_old_ones_into_another_split(tmp_path):
    root = made.folder(tmp_path / "a", "txt", count=40)
    wanted = Wanted(split="validation", validation=0.3)
    names_of = lambda source: {source.name(i) for i in range(len(source))}  # noqa: E731
    before = names_of(open_source(f"folder:{root}", wanted))
    assert 4 < len(before) < 20
    for index in range(30):
        made.picture(index).save(root / f"a{index:03d}.png")
    after = names_of(open_source(f"folder:{root}", wanted))
    assert {name for name in after if not name.startswith("a")} == before


def test_a_slice_is_a_part_in_order(names):
    whole = open_source(names["folder"])
    part = open_source(names["folder"], Wanted(split="train[3:50%]"))
    assert [name_at(part, i) for i in range(len(part))] == [name_at(whole, i) for i in (3, 4, 5)]


def test_records_can_be_chosen_by_name(names):
    whole = open_source(names["svg"])
    some = open_source(names["svg"], Wanted(names=(name_at(whole, 4), name_at(whole, 2))))
    assert [name_at(some, i) for i in range(len(some))] == ["d002.svg", "d004.svg"]
    with pytest.raises(ValueError, match="no record of the name 'nobody'"):
        open_source(names["svg"], Wanted(names=("nobody",)))


def test_the_name_of_a_mixture_is_taken_apart_but_not_a_path():
    assert split_mixture("folder:a*2+tar:b") == [("folder:a", 2.0), ("tar:b", 1.0)]
    assert split_mixture("folder:a+b/c * .5 + emoji/64") == [("folder:a+b/c", 0.5), ("emoji/64", 1)]
    assert split_mixture("tar:x-*.tar") == [("tar:x-*.tar", 1.0)]
    assert split_mixture("folder:a+b") == [("folder:a+b", 1.0)]


@pytest.mark.parametrize(("weights", "shares"), [("", (1, 1)), ("*3", (3, 1)), ("*0.25", (1, 4))])
def test_a_weight_says_how_often_a_record_of_the_part_is_seen(names, weights, shares):
    name = f"{names['folder']}{weights} + fake:24"
    source = open_source(name, Wanted(size_px=8))
    assert isinstance(source, Mixture)
    assert len(source) == made.COUNT + 24
    batches = train_iterator(source, [readers.caption], batch_size=12, seed=1, threads=0)
    captions = [text for _ in range(100) for text in next(batches)["caption"]]
    from_folder = sum(text.startswith("picture ") for text in captions)
    want = shares[0] * made.COUNT / (shares[0] * made.COUNT + shares[1] * 24)
    assert abs(from_folder / len(captions) - want) < 0.03
    # within a part, all records are seen equally often
    counts = [captions.count(made.caption(i)) for i in range(made.COUNT)]
    assert max(counts) - min(counts) <= 2 + (weights == "") * 2


def test_a_mixture_has_captions_if_a_part_has(names, tmp_path):
    silent = f"folder:{made.folder(tmp_path / 'silent', None)}"
    assert not open_source(f"{silent} + {silent}").captioned()
    assert open_source(f"{silent} + {names['folder']}").captioned()
    assert open_source(f"{silent} + fake:3").captioned()


class Labelled:
    """Two records, of the first and the last of its classes."""

    def __init__(self, *classes, last=None):
        self.classes, self.last = classes, len(classes) - 1 if last is None else last

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {"captions": (), "label": (0, self.last)[index]}


def test_a_mixture_has_the_classes_of_all_parts_and_equal_names_are_one_class():
    source = Mixture(
        [Labelled("cat", "dog"), Labelled("ant", "cat"), Labelled("dog", "ant")], [1] * 3
    )
    assert source.classes == ("cat", "dog", "ant")
    assert [source[i]["label"] for i in range(6)] == [0, 1, 2, 0, 1, 2]


def test_equal_classes_keep_their_numbers_and_labels_without_names_too():
    assert Mixture([Labelled("a", "b"), Labelled("a", "b")], [1, 1])[3]["label"] == 1
    assert Mixture([Labelled(last=7), Labelled(last=8)], [1, 1])[3]["label"] == 8


def test_a_label_without_a_name_is_left_out_beside_named_ones():
    source = Mixture([Labelled("a", "b"), Labelled(last=1)], [1, 1])
    assert [source[i].get("label") for i in range(4)] == [0, 1, None, None]


def test_a_folder_of_classes_mixes_with_pictures_without(names, tmp_path):
    other = made.folder(tmp_path / "classes", "classes")
    source = open_source(f"{names['parquet']} + folder:{other}")
    assert source.classes == tuple(dict.fromkeys(source.parts[0].classes + source.parts[1].classes))
    assert source.classes[source[len(source) - 1]["label"]] == source.parts[1].classes[-1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder:/nowhere", "/nowhere: there is no such folder"),
        ("folder:", "names nothing after the colon"),
        ("fodler:x", "no kind of source 'fodler': .* did you mean folder:?"),
        ("tar:/nowhere/*.tar", "there is no such file"),
        ("parquet:/nowhere.parquet", "there is no such file"),
        ("svg:/nowhere", "there is no such folder"),
        ("fake:0", "COUNT > 0"),
        ("folder:a*0+fake:3", "weight must be above 0"),
        ("emoji/65", "the sizes of emoji are"),
    ],
)
def test_a_name_that_cannot_be_opened_is_one_line(name, words):
    with pytest.raises(ValueError, match=words) as caught:
        open_source(name)
    assert "\n" not in str(caught.value)


def test_a_split_that_is_not_there_is_one_line(names):
    for split, words in {
        "test": "no split 'test'|has no splits",
        "validation": "has no splits, all of it is trained on; data.validation=0.05",
        "train[": "want a name",
        "train[40:]": r"no record in \[40:\]",
    }.items():
        with pytest.raises(ValueError, match=words):
            open_source(names["folder"], Wanted(split=split))
