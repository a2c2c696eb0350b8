"""Parquet files: which columns are read, and what a hostile row can reach."""

import pickle

import pytest

from diffjax.data.broken import BrokenRecord
from diffjax.data.sources import parquet
from tests.data.sources import made

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
PNG = made.encoded(made.picture(0))


def opened(path, columns, **keys):
    pq.write_table(pa.table(columns), path)
    return parquet.open_parquet([path], **keys)


def test_pictures_are_bytes_or_files_below_the_folder_and_nothing_else(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "secret.png"
    inside.mkdir()
    outside.write_bytes(PNG)
    (inside / "a.png").write_bytes(PNG)
    (inside / "link.png").symlink_to(outside)
    rows = ["a.png", "../secret.png", str(outside), "link.png", "none.png", "a\0b", None]
    source = opened(inside / "x.parquet", {"image": rows})
    assert source[0]["image"] == PNG
    reasons = ["outside the folder"] * 3 + ["No such file", "null", "no picture"]
    for i, words in enumerate(reasons, 1):
        with pytest.raises(BrokenRecord, match=words):
            source[i]


def test_captions_are_a_text_several_or_none(tmp_path):
    source = opened(
        tmp_path / "x.parquet", {"image": [PNG] * 3, "captions": [["a", "b"], [], None]}
    )
    assert [source.captions(i) for i in range(3)] == [("a", "b"), (), ()]
    named = opened(tmp_path / "y.parquet", {"pic": [PNG], "alt": ["x"], "text": ["y"]},
                   image_key="pic", caption_key="alt")  # fmt: skip
    assert named[0]["captions"] == ("x",)
    numbers = opened(tmp_path / "z.parquet", {"image": [PNG], "text": [3]})
    with pytest.raises(BrokenRecord, match="'3' is no text"):
        numbers.captions(0)


def test_classes_have_the_names_of_the_files_metadata(tmp_path):
    pattern = made.parquet(tmp_path)
    source = parquet.open_parquet(sorted(tmp_path.glob(pattern.rpartition("/")[2])))
    assert source.classes == tuple(made.COLOURS)
    assert source.name(7) == "part-1.parquet row 1"


def test_few_row_groups_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "KEPT_BYTES", 1)
    source = parquet.open_parquet(sorted(made.parquet(tmp_path) and tmp_path.glob("*.parquet")))
    for i in range(made.COUNT):
        source[i]
    assert len(source._kept) == 1
    assert pickle.loads(pickle.dumps(source))[3] == source[3]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 5000, PNG])
def test_what_is_no_parquet_is_one_line(tmp_path, data):
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(ValueError, match="not parquet") as caught:
        parquet.open_parquet([tmp_path / "x.parquet"])
    assert "\n" not in str(caught.value)


def test_other_columns_than_the_first_files_and_none_of_pictures_are_refused(tmp_path):
    first = opened(tmp_path / "a.parquet", {"image": [PNG]})
    assert len(first) == 1
    pq.write_table(pa.table({"picture": [PNG]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="its columns are not those of"):
        parquet.open_parquet([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    with pytest.raises(ValueError, match=r"no column of pictures among \['x'\]; .*data.image_key"):
        opened(tmp_path / "c.parquet", {"x": [1]})
    with pytest.raises(ValueError, match="no column 'y', only"):
        opened(tmp_path / "d.parquet", {"image": [PNG]}, image_key="y")


def test_a_file_that_is_damaged_while_it_is_read_is_a_broken_record(tmp_path):
    source = opened(tmp_path / "x.parquet", {"image": [PNG]})
    (tmp_path / "x.parquet").write_bytes(b"no more")
    with pytest.raises(BrokenRecord, match=r"x\.parquet is damaged: "):
        source[0]
