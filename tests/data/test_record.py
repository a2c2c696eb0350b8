import numpy as np
import pytest

from diffjax.data import record as records
from diffjax.data.captions import from_source
from diffjax.data.record import captions_at, captions_of, fingerprint_of, first_caption
from diffjax.data.sources.fake import Shapes


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"captions": (" a frog. ", "a dog\n")}, ("a frog.", "a dog")),
        ({"captions": ("a frog", " \t")}, ("a frog", "")),
        ({"captions": ()}, ()),
        ({"name": "frog"}, ()),
        ({"captions": ("half a \ud83d pair", "nul\0")}, ("half a \ufffd pair", "nul")),
    ],
)
def test_captions_lose_the_blanks_around_them_and_keep_their_number(record, expected):
    assert captions_of(record) == expected
    assert first_caption(record) == (expected[0] if expected else "")


@pytest.mark.parametrize("captions", ["a frog", 3, (b"a frog",), ("a frog", None)])
def test_captions_that_are_no_strings_are_refused(captions):
    with pytest.raises(records.BadRecord, match=r"captions .*: want "):
        captions_of({"captions": captions})


def test_a_missing_picture_or_label_is_refused_with_the_fields_there_are():
    record = {"name": "frog", "captions": ()}
    with pytest.raises(records.BadRecord, match=r"no picture among the fields \['captions', 'name"):
        records.image_of(record)
    with pytest.raises(records.BadRecord, match="no class label among the fields"):
        records.label_of(record)
    assert records.label_of({"label": np.int64(3)}) == 3


def test_a_source_without_a_method_for_captions_is_asked_for_its_records():
    plain = [{"captions": (" a ", "")}, {}]
    assert [captions_at(plain, i) for i in range(2)] == [("a", ""), ()]
    assert fingerprint_of(plain) is None


def test_captions_alone_are_those_of_the_records():
    source = Shapes(40, 8)
    assert [captions_at(source, i) for i in range(40)] == [
        captions_of(source[i]) for i in range(40)
    ]


def test_the_fingerprint_of_made_up_shapes_tells_them_apart():
    sources = [Shapes(4, 8), Shapes(5, 8), Shapes(4, 9), Shapes(4, 8, seed=1)]
    assert len({fingerprint_of(source) for source in sources}) == 4
    assert fingerprint_of(Shapes(4, 8)) == fingerprint_of(Shapes(4, 8))


def test_the_captions_to_encode_are_clean_and_never_blank():
    found = from_source([{"captions": (" a ", "  ")}, {}, {"captions": ("b", "a")}])
    assert list(found) == ["a", "b", "a"]
    assert (found.records, found.read_records, found.estimate()) == (3, 3, 3)


def test_captions_that_cannot_be_read_are_an_error_with_the_records_number():
    with pytest.raises(records.BadRecord, match="record 1: captions"):
        list(from_source([{}, {"captions": 3}]))
