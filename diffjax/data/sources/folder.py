"""Pictures anywhere below a folder, with the captions or classes that lie beside them."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from diffjax.data.record import NoSplit, Record
from diffjax.data.sources import beside
from diffjax.data.sources.files import Found, below, shown
from diffjax.data.sources.parts import read_file
from diffjax.images.read import SUFFIXES

# Where captions come from: beside the picture, else a class folder; the folder; nowhere.
CAPTIONS = ("auto", "folder", "none")
# Folders of these names hold a split each; "train" is all that is in none of them.
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
MAX_PICTURE_BYTES = 200_000_000


@dataclass(frozen=True)
class Folder:
    """The pictures of `files`, paths below `root`, in order.

    tables: the captions of pictures that a table names, by their paths. texts: the text files, by
    their paths with the suffix in small letters. classes: the names of class folders, () if there
    are none. digest: of all names and sizes.
    """

    unchecked: ClassVar[bool] = True
    root: Path
    files: tuple[str, ...]
    tables: Mapping[str, tuple[str, ...]]
    texts: Mapping[str, str]
    classes: tuple[str, ...]
    captioned_by: str
    digest: str

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; BrokenRecord if its files cannot be read."""
        record: dict[str, object] = {
            "name": self.name(index),
            "captions": self.captions(index),
            "image": self._image(index),
        }
        if self.classes:
            record["label"] = self._labels[self.files[index].partition("/")[0]]
        return record

    def __repr__(self) -> str:
        """As messages name it."""
        return f"folder:{shown(self.root)} ({len(self)} pictures)"

    def name(self, index: int) -> str:
        """The picture's path below the folder, fit to be shown."""
        return shown(self.files[index])

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the picture at `index`; BrokenRecord if they cannot be read."""
        path = self.files[index]
        if self.captioned_by == "none":
            return ()
        if self.captioned_by == "auto":
            if path in self.tables:
                return self.tables[path]
            if self.texts:
                plain = path[: path.rindex(".")]  # pictures are known by their endings
                for suffix in beside.TEXT_SUFFIXES:
                    for text in (plain + suffix, path + suffix):
                        if text in self.texts:
                            return beside.read_texts(self.root / self.texts[text])
            if self.tables or self.texts or not self.classes:
                return ()
        folder = path.rpartition("/")[0].rpartition("/")[2]
        return (words(folder),) if folder else ()

    def captioned(self) -> bool:
        """Whether captions lie beside the pictures, or were asked for of their folders."""
        if self.captioned_by == "auto":
            return bool(self.tables or self.texts)
        return self.captioned_by == "folder"

    def fingerprint(self) -> str:
        """A digest of the names and sizes of all files; nothing is read for it."""
        return self.digest

    @functools.cached_property
    def _labels(self) -> Mapping[str, int]:
        return {name: label for label, name in enumerate(self.classes)}

    def _image(self, index: int) -> bytes:
        return read_file(f"{self.root}/{self.files[index]}", MAX_PICTURE_BYTES)


def open_folder(root: Path, split: str = "train", captioned_by: str = "auto") -> Folder:
    """The pictures below `root` that belong to a split.

    Where folders of SPLIT_FOLDERS stand directly below `root`, they are the splits. Where they do
    not, all pictures are of "train". If each picture lies in a folder below that, and there are at
    least two of those, they are classes.

    Raises:
      ValueError: no such folder, no such split, or no picture in it; a table cannot be read.
    """
    if captioned_by not in CAPTIONS:
        raise ValueError(f"captions from {captioned_by!r}: allowed are {', '.join(CAPTIONS)}")
    if not root.is_dir():
        raise ValueError(f"{shown(root)}: there is no such folder")
    root = _root_of(root, split)
    found = list(below(root))
    pictures = [one for one in found if one.path.lower().endswith(SUFFIXES)]
    if not pictures:
        kinds = ", ".join(SUFFIXES)
        raise ValueError(f"{shown(root)}: no picture below it ({len(found)} other files); {kinds}")
    tables: dict[str, tuple[str, ...]] = {}
    texts: dict[str, str] = {}
    for one in found:
        folder, _, name = one.path.rpartition("/")
        if name.lower() in beside.TABLE_NAMES and captioned_by == "auto":
            there = beside.read_table(root / one.path)
            tables |= {str(PurePosixPath(folder) / of): each for of, each in there.items()}
        elif name.lower().endswith(beside.TEXT_SUFFIXES):
            stem, _, kind = one.path.rpartition(".")
            texts[f"{stem}.{kind.lower()}"] = one.path
    files = tuple(one.path for one in pictures)
    return Folder(
        root=root,
        files=files,
        tables=tables,
        texts=texts,
        classes=_classes(files),
        captioned_by=captioned_by,
        digest=_digest(found, captioned_by),
    )


def words(name: str) -> str:
    """The name of a folder or file as a caption: `red_apple-2` is "red apple 2"."""
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def has_splits(root: Path) -> bool:
    """Whether a folder of training pictures stands directly below `root`."""
    return any((root / name).is_dir() for name in SPLIT_FOLDERS["train"])


def _root_of(root: Path, split: str) -> Path:
    """The folder of a split, or `root` where there are no folders of splits."""
    if not has_splits(root):
        if split != "train":
            raise NoSplit(f"{shown(root)}: has no split {split!r}, only 'train'")
        return root
    there = {
        kind: root / name
        for kind, names in SPLIT_FOLDERS.items()
        for name in names
        if (root / name).is_dir()
    }
    if split not in there:
        raise NoSplit(f"{shown(root)}: has no split {split!r}, only {sorted(there)}")
    return there[split]


def _classes(files: Sequence[str]) -> tuple[str, ...]:
    first = {path.partition("/")[0] if "/" in path else "" for path in files}
    return tuple(sorted(first)) if len(first) > 1 and "" not in first else ()


def _digest(found: Sequence[Found], captioned_by: str) -> str:
    digest = hashlib.sha256(f"folder {captioned_by}\n".encode())
    for one in found:
        digest.update(os.fsencode(one.path) + b"\0%d\n" % one.size)
    return digest.hexdigest()
