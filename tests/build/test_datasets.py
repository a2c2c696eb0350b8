"""configs/datasets.py on data sets of the real layouts."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from diffjax.build import tasks
from diffjax.build.check import check
from diffjax.build.inputs import columns, data, reading
from diffjax.build.options import config
from diffjax.data.pipeline import train_iterator
from tests.data.sources import made
from tests.data.sources.prepared_mock import prepared

F = tfds.features


def coloured(index, size=(40, 30)):
    return made.encoded(made.picture(index, size), "JPEG", quality=95)


def grey(index):
    return made.encoded(Image.fromarray(np.full((28, 28), index * 9, np.uint8)), "PNG")


LAYOUTS = {
    "coco": (
        "coco_captions/2014",
        {
            "image": F.Image(encoding_format="jpeg"),
            "image/filename": F.Text(),
            "image/id": np.int64,
            "captions": F.Sequence({"id": np.int64, "text": F.Text()}),
        },
        lambda i: {
            "image": coloured(i), "image/filename": f"{i}.jpg", "image/id": i,
            "captions": [{"id": 5 * i + j, "text": f"caption {j} of {i}. "} for j in range(5)],
        },
    ),
    "imagenet64": (
        "imagenet_resized/64x64",
        {"image": F.Image(shape=(64, 64, 3)), "label": F.ClassLabel(num_classes=1000)},
        lambda i: {"image": made.encoded(made.picture(i, (64, 64))), "label": i * 100},
    ),
    "cifar10": (
        "cifar10",
        {"id": F.Text(), "image": F.Image(shape=(32, 32, 3)),
         "label": F.ClassLabel(names=list("abcdefghij"))},
        lambda i: {"id": f"train_{i}", "image": made.encoded(made.picture(i, (32, 32))),
                   "label": i % 10},
    ),
    "mnist": (
        "mnist",
        {"image": F.Image(shape=(28, 28, 1)), "label": F.ClassLabel(num_classes=10)},
        lambda i: {"image": grey(i), "label": i % 10},
    ),
    "flowers": (
        "oxford_flowers102",
        {"file_name": F.Text(), "image": F.Image(),
         "label": F.ClassLabel(names=[f"pink_primrose_{i}" for i in range(102)])},
        lambda i: {"file_name": f"{i}.jpg", "image": coloured(i, (50, 70)), "label": i},
    ),
    "celeba_hq": (
        "celeb_a_hq/256",
        {"image": F.Image(shape=(256, 256, 3)), "image/filename": F.Text()},
        lambda i: {"image": made.encoded(made.picture(i, (256, 256))),
                   "image/filename": f"{i}.png"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", LAYOUTS)
def test_a_preset_reads_its_data_set(which, tmp_path, monkeypatch):
    name, features, example = LAYOUTS[which]
    prepared(tmp_path, name, features, {"train": [example(i) for i in range(9)]})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    options = config.load(f"configs/datasets.py:tiny_{which}")
    check(options)
    records = reading.source_of(options)
    assert len(records) == 9
    data.check_classes(options, records)
    said = []
    embed = (lambda text: (said.append(text), np.zeros((3, 8)))[1]) if "text" in options else None
    batches = train_iterator(
        records, columns.readers_of(options, embed), batch_size=9, seed=0, threads=0
    )
    batch = next(batches)
    side = options.data.size_px
    assert batch["image"].shape == (9, side, side, 3)
    task = tasks.task_of(options, 8)
    assert set(task.columns()) == set(batch)
    if which == "coco":
        assert all(text.startswith("caption ") and text.endswith(".") for text in said)
    if which == "flowers":
        assert all(text.startswith("pink primrose ") for text in said)
    if "label" in batch:
        assert sorted(batch["label"] % 10) == [0] * 9 if which == "imagenet64" else list(range(9))


def test_the_full_presets_are_of_the_sizes_that_the_page_says():
    for which in LAYOUTS:
        options = config.load(f"configs/datasets.py:{which}")
        options.data.name = "fake/4"
        check(options)
