"""Data sets as tensorflow-datasets lays them out, made without TensorFlow."""

import struct

import tensorflow_datasets as tfds

from diffjax.data.sources.tfds.tfrecord import masked_crc


def write_tfrecord(path, records):
    """A file of plain TFRecord; the checksums of the bytes are left 0, since nobody reads them."""
    with open(path, "wb") as stream:
        for data in records:
            length = struct.pack("<Q", len(data))
            stream.write(length + struct.pack("<I", masked_crc(length)) + data + bytes(4))
    return path


def prepared(data_dir, name, features, splits, version="1.0.0"):
    """The folder of a data set prepared as TFRecord. name: "mnist", or "celeb_a_hq/256".

    features: {field: feature}. splits: {split: examples}, pictures as the bytes of a file.
    """
    kind = tfds.features.FeaturesDict(features)
    serializer = tfds.core.example_serializer.ExampleSerializer(kind.get_serialized_info())
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    infos = []
    for split, examples in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name=name.split("/")[0],
            split=split,
            filetype_suffix="tfrecord",
        )
        data = [serializer.serialize_example(kind.encode_example(one)) for one in examples]
        write_tfrecord(str(template.sharded_filepath(shard_index=0, num_shards=1)), data)
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(data)], num_bytes=sum(map(len, data)),
                filename_template=template,
            )
        )  # fmt: skip
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name.split("/")[0],
        version=tfds.core.Version(version),
        data_dir=str(folder),
        module_name="",
        config_name=name.partition("/")[2] or None,
    )
    info = tfds.core.DatasetInfo(builder=identity, features=kind)
    info.set_file_format(tfds.core.FileFormat.TFRECORD)
    info.set_splits(tfds.core.SplitDict(infos))
    info.write_to_directory(folder)
    return folder
