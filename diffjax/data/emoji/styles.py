"""Two further styles, Fluent's flat drawings and Noto's, from packages that npm fetches.

`python -m diffjax.data.emoji.styles`, which `make styles` calls, fetches them and makes the data
set `emoji_styles/64`. It needs npm and a registry; nothing else does.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from diffjax.core import command
from diffjax.core.errors import StorageError
from diffjax.core.files import write_whole
from diffjax.data.emoji import drawings, splits
from diffjax.data.emoji.drawings import Drawing
from diffjax.data.sources.vector import iconify

# What is read of a package.
_FILES = ("icons.json", "chars.json", "info.json")
_MOST_BYTES = 2**26  # of one of them


@dataclass(frozen=True)
class Package:
    """A set of drawings on npm. sha256: of its archive."""

    style: str
    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> Path:
        """Where its files lie, once it was fetched."""
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = Path(os.environ.get("DIFFJAX_CACHE_DIR") or f"{base}/diffjax").expanduser()
        return cache / "styles" / f"{self.style}-{self.version}"

    @property
    def is_here(self) -> bool:
        """Whether it was fetched."""
        return all((self.folder / file).is_file() for file in _FILES)


PACKAGES = (
    Package(
        "fluent",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    Package(
        "noto",
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
)
STYLES = (*drawings.STYLES, *(package.style for package in PACKAGES))


def fetch(package: Package) -> None:
    """Downloads a package with npm, checks its archive, and keeps the files that are read.

    Raises:
      StorageError: there is no npm, the registry does not answer, or the archive is another one.
    """
    if package.is_here:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise StorageError(f"{package.name}: needs npm, which is not installed")
    with tempfile.TemporaryDirectory() as place:
        asked = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", place]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        found = sorted(Path(place).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            said = (done.stderr.strip() or "no archive").splitlines()[-1]
            raise StorageError(f"{package.name}: npm cannot fetch it: {said}")
        unpack(found[0].read_bytes(), package)


def unpack(archive: bytes, package: Package) -> None:
    """Keeps the files of an archive that are read.

    Raises:
      StorageError: it is not the archive of that version.
    """
    if hashlib.sha256(archive).hexdigest() != package.sha256:
        raise StorageError(f"{package.name} {package.version}: the archive is not the expected one")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for file in _FILES:
            member = tar.getmember(f"package/{file}")
            opened = tar.extractfile(member)
            if opened is None or member.size > _MOST_BYTES:
                raise StorageError(f"{package.name}: {file} is no file of its archive")
            package.folder.mkdir(parents=True, exist_ok=True)
            write_whole(package.folder / file, opened.read())


def catalogue() -> tuple[Drawing, ...]:
    """All drawings of the four styles, sorted by name and then style.

    Raises:
      ValueError: the packages were not fetched.
    """
    both = list(drawings.catalogue())
    for package in PACKAGES:
        both += drawn_by(package)
    return tuple(sorted(both, key=lambda drawing: (drawing.name, drawing.style)))


def drawn_by(package: Package) -> list[Drawing]:
    """The drawings of a package that have the name of an emoji, skin tones included.

    Raises:
      ValueError: it was not fetched.
    """
    if not package.is_here:
        raise ValueError(
            f"emoji_styles: {package.name} is not at {package.folder}; `make styles` fetches it"
        )
    icons, chars = (json.loads((package.folder / file).read_text("utf-8")) for file in _FILES[:2])
    named = drawings.named_codes()
    found = iconify.svgs_by_name(cast("iconify.IconSet", icons), chars, named, skin_tones=True)
    return [Drawing(name, package.style, named[name], "", svg) for name, svg in found.items()]


def assign_splits(found: tuple[Drawing, ...]) -> dict[str, list[Drawing]]:
    """The drawings of each split: those of the two embedded styles where they are in `emoji`.

    Drawings of the further styles are in `train`, unless their name or their pair of profession
    and skin tone is held out. So no held-out name is seen in any style.
    """
    split = splits.assign_splits([one for one in found if one.style in drawings.STYLES])
    for one in found:
        if one.style not in drawings.STYLES:
            split[splits.split_of(one.name, one.style, has_both_styles=False)].append(one)
    by_name = lambda drawing: (drawing.name, drawing.style)  # noqa: E731
    return {name: sorted(some, key=by_name) for name, some in split.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches the packages, makes the data set of 64 px, and returns the exit code."""
    return command.run_command(command.parser("data.emoji.styles", __doc__), work, arguments)


def work(args: argparse.Namespace) -> None:
    """Fetches what is not here yet."""
    from diffjax.data.emoji.builder import EmojiStyles, prepare

    for package in PACKAGES:
        fetch(package)
        print(f"{package.style}: {len(drawn_by(package))} drawings of {package.name}")
    print(f"made: {prepare(64, builder=EmojiStyles)}")


if __name__ == "__main__":
    command.start(main)
