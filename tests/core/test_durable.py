"""Every file that a run or a picture depends on is whole or not there, even if the power goes."""

import os

import ml_collections
import numpy as np
import pytest
from PIL import Image

from diffjax.build.options import config
from diffjax.checkpoint import manifest
from diffjax.core import files, tensorfile
from diffjax.images import film, png, sheet
from diffjax.logs.goodput import Goodput

PICTURE = np.zeros((4, 4, 3), np.uint8)
# What writes a file at a path that it is given, and the names that it makes beside it.
WRITERS = {
    "bytes": lambda path: files.write_whole(path, b"x"),
    "config": lambda path: config.save(ml_collections.ConfigDict({"stage": "x"}), path),
    "png": lambda path: png.write(path, PICTURE),
    "sheet": lambda path: sheet.save(Image.fromarray(PICTURE), path),
    "tensors": lambda path: tensorfile.write(path, {"a": PICTURE}, {}),
    "goodput": lambda path: Goodput(path).note(),
    "webp": lambda path: film.write(path.with_suffix(""), [PICTURE]),
}


def path_for(name, folder):
    return folder / ("film.webp" if name == "webp" else "file")


@pytest.fixture
def disk(monkeypatch):
    """What the disk is told, in order: ("sync", path) and ("rename", path)."""
    told, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        told.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        return fsync(descriptor)

    def renamed(old, new):
        told.append(("rename", str(old), str(new)))
        return replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return told


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_afterwards(name, disk, tmp_path):
    path = path_for(name, tmp_path)
    WRITERS[name](path)
    (renamed,) = [event for event in disk if event[0] == "rename" and event[2] == str(path)]
    at = disk.index(renamed)
    assert ("sync", renamed[1]) in disk[:at]
    assert ("sync", str(path.parent)) in disk[at:]


@pytest.mark.parametrize("name", WRITERS)
def test_who_reads_a_file_while_it_is_replaced_has_the_old_one(name, tmp_path):
    path = path_for(name, tmp_path)
    path.write_bytes(b"old")
    os.link(path, tmp_path / "reader")
    WRITERS[name](path)
    assert (tmp_path / "reader").read_bytes() == b"old"
    assert path.read_bytes() != b"old"
    left = {one.name for one in tmp_path.iterdir()} - {"reader", "film.gif", path.name}
    assert not left


def test_the_files_of_a_checkpoint_are_on_the_disk_before_its_manifest_is(disk, tmp_path):
    step = tmp_path / "7"
    step.mkdir()
    for name in ("state", "data"):
        (step / name).write_bytes(b"1234")
    manifest.write(step)
    (named,) = [event for event in disk if event[0] == "rename"]
    before = disk[: disk.index(named)]
    assert {str(step / "state"), str(step / "data")} <= {event[1] for event in before}
