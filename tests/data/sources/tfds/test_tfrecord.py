"""TFRecord files, read without TensorFlow."""

import json
import shutil
import struct

import pytest
import tensorflow_datasets as tfds

from diffjax.data.sources.tfds import open_source
from diffjax.data.sources.tfds.tfrecord import TFRecords, masked_crc, places_of

# "123456789" has the CRC-32C 0xE3069283 (RFC 3720 and every table of checksums)
CHECK = 0xE3069283


def written(path, records):
    with open(path, "wb") as stream:
        for data in records:
            length = struct.pack("<Q", len(data))
            stream.write(length + struct.pack("<I", masked_crc(length)) + data + bytes(4))
    return path


def test_the_checksum_is_crc32c_masked():
    assert masked_crc(b"123456789") == ((CHECK >> 15 | CHECK << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_records_are_found_by_index(tmp_path):
    records = [bytes([i]) * (i * 7) for i in range(9)]
    paths = [written(tmp_path / "a", records[:4]), written(tmp_path / "b", records[4:])]
    source = TFRecords(paths, [places_of(path) for path in paths])
    assert [source[i] for i in range(len(source))] == records


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d[:-3], "ends within record 1"), (lambda d: d + b"12", "within the header"),
        (lambda d: b"x" + d[1:], "damaged at record 0"), (lambda d: b"\x1f\x8b" + d, "not a plain"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line(tmp_path, damage, words):
    path = written(tmp_path / "a", [b"one", b"two"])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=words):
        places_of(path)


def test_a_data_set_prepared_as_tfrecord_is_read_as_it_is(few_emoji, tmp_path):
    """The same records as in ArrayRecord, in two files; TensorFlow has no part in it."""
    there = few_emoji / "emoji/64"
    (version,) = there.iterdir()
    builder = tfds.builder_from_directory(version)
    raw = builder.as_data_source(
        split="train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    examples = [raw[i] for i in range(len(raw))]
    folder = tmp_path / "emoji" / "64" / version.name
    folder.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        shutil.copy(version / name, folder / name)
    about = json.loads((folder / "dataset_info.json").read_text())
    about["fileFormat"] = "tfrecord"
    (train,) = (split for split in about["splits"] if split["name"] == "train")
    train["shardLengths"] = ["4", str(len(examples) - 4)]
    about["splits"] = [train]
    (folder / "dataset_info.json").write_text(json.dumps(about))
    template = train["filepathTemplate"].format(
        DATASET="emoji", SPLIT="train", FILEFORMAT="tfrecord", SHARD_X_OF_Y="{}"
    )
    written(folder / template.format("00000-of-00002"), examples[:4])
    written(folder / template.format("00001-of-00002"), examples[4:])
    want = open_source(str(version), "train[2:7]")
    got = open_source(str(folder), "train[2:7]")
    assert [got[i] for i in range(len(got))] == [want[i] for i in range(5)]
    assert len(open_source(str(folder), "train")) == len(examples)
