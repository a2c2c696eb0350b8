"""The manifest of a checkpoint: the size and sha256 of each of its files; it is written last.

orbax writes arrays without a checksum and loads a flipped bit without an error. So a step without
a manifest counts as incomplete, and a step is read only if its files match its manifest. The
manifest also has the number of the step and the name of its run. A folder that was renamed, or
copied from another run, is not taken for what it is not.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from diffjax.checkpoint import identity
from diffjax.core.files import parse_json_object, write_whole

NAME = "manifest.json"
UNFINISHED = re.compile(r"(manifest\.json|\.manifest\.json\.\d+)\.tmp")
FORMAT = "diffjax-checkpoint-1"
# orbax's own file about a step. We add the MARK, which says that the step will get a manifest.
METADATA = "_CHECKPOINT_METADATA"
MARK = {"manifest": FORMAT}

GOOD, INCOMPLETE, CORRUPT, UNVERIFIED = "good", "incomplete", "corrupt", "unverified"
FOREIGN = "foreign"


@dataclasses.dataclass(frozen=True)
class StepReport:
    """The state of a step on the disk.

    state: "good"; "incomplete": its save was interrupted; "corrupt": a file differs from what was
    written; "unverified": it was saved before manifests existed; "foreign": it is another step, or
    a step of another run, in a folder that was renamed or copied.
    why: unless the step is good, one line that names the file. num_bytes: its size on the disk.
    saved: when, in seconds since 1970. named: whether its manifest has its number, which those of
    version 0.1.0 have not.
    """

    step: int
    state: str
    why: str
    num_bytes: int
    saved: float
    named: bool = False


class Entry(TypedDict):
    """What a manifest says of one file; its sha256 is in hex."""

    bytes: int
    sha256: str


class Manifest(TypedDict):
    """The content of a manifest. saved: seconds since 1970. files: by their path in the step.

    step: its number. run: the name of its run. Manifests of version 0.1.0 have neither.
    """

    format: str
    saved: float
    files: dict[str, Entry]
    step: NotRequired[int]
    run: NotRequired[str]


def write(folder: Path, run: str = "") -> None:
    """Sync and hash all files of the finished step `folder`; then write its manifest.

    So a manifest on the disk proves that the files are on the disk too. The name of the folder is
    the number of the step. run: the name of the run, "" for none.

    Raises:
      OSError: the disk is full or fails.
    """
    names = _files(folder)
    with concurrent.futures.ThreadPoolExecutor(_num_threads(names)) as pool:
        digests = list(pool.map(lambda name: _digest(folder / name, sync=True), names))
    content: Manifest = {
        "format": FORMAT,
        "saved": round(time.time(), 3),
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
            for name, digest in zip(names, digests, strict=True)
        },
        "step": int(folder.name),
    }
    if run:
        content["run"] = run
    write_whole(folder / NAME, _to_bytes(content))


def inspect(folder: Path, *, full: bool) -> StepReport:
    """The state of the step in `folder`, by the sizes of its files. full: by their hashes too."""
    size = sum((folder / name).stat().st_size for name in _files(folder))
    saved = folder.stat().st_mtime

    named = False

    def report(state: str, why: str = "") -> StepReport:
        return StepReport(int(folder.name), state, why, size, saved, named)

    try:
        raw = (folder / NAME).read_bytes()
    except FileNotFoundError:
        if _made_before_manifests(folder):
            return report(UNVERIFIED, "saved before checkpoints had manifests")
        return report(INCOMPLETE, f"{NAME} is missing: its save was interrupted")
    except OSError as error:
        return report(CORRUPT, f"{NAME}: {error.strerror}")
    try:
        content = _from_bytes(raw)
    except ValueError:
        return report(CORRUPT, f"{NAME} differs from what was written")
    saved, named = content["saved"], "step" in content
    why = _other(content, folder)
    if why:
        return report(FOREIGN, why)
    files = content["files"]
    for name, entry in files.items():
        try:
            num_bytes = (folder / name).stat().st_size
        except OSError:
            return report(CORRUPT, f"{name} is missing")
        if num_bytes != entry["bytes"]:
            return report(CORRUPT, f"{name} has {num_bytes} bytes, {entry['bytes']} were written")
    if full:
        with concurrent.futures.ThreadPoolExecutor(_num_threads(files)) as pool:
            faults = pool.map(lambda name: _fault(folder / name, files[name]["sha256"]), files)
            for name, fault in zip(files, faults, strict=True):
                if fault:
                    return report(CORRUPT, f"{name} {fault}")
    return report(GOOD)


def _other(content: Manifest, folder: Path) -> str:
    """Why a step is not that of its folder; "" if it is, or if its manifest does not say."""
    step, run = content.get("step"), content.get("run")
    if step is not None and step != int(folder.name):
        return f"it is step {step} in a folder that was renamed or copied"
    here = identity.read(folder.parent)
    if run and here and run != here:
        return f"it is of the run {run}, and this is the run {here}"
    return ""


def read(folder: Path, name: str) -> bytes | None:
    """The bytes of one file of a step; None unless they are those that the manifest has."""
    try:
        entry = _from_bytes((folder / NAME).read_bytes())["files"][name]
        content = (folder / name).read_bytes()
    except (OSError, ValueError, KeyError):
        return None
    return content if hashlib.sha256(content).hexdigest() == entry["sha256"] else None


def run_of(folder: Path) -> str:
    """The name of the run in the manifest of a step; "" if it cannot be read or has none."""
    try:
        return _from_bytes((folder / NAME).read_bytes()).get("run", "")
    except (OSError, ValueError):
        return ""


def _files(folder: Path) -> list[str]:
    """The paths of all files below `folder`, relative to it, without the manifest itself."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [name for name in names if name != NAME and not UNFINISHED.fullmatch(name)]


def _num_threads(names: Collection[str]) -> int:
    return max(1, min(len(names), os.cpu_count() or 1, 16))


def _digest(file: Path, sync: bool = False) -> str:
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if sync:
            os.fsync(stream.fileno())
    return digest


def _fault(file: Path, written: str) -> str:
    try:
        return "" if _digest(file) == written else "has bytes that differ from those written"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _made_before_manifests(folder: Path) -> bool:
    """Whether orbax finished the step and no mark says that a manifest would follow."""
    try:
        metadata = parse_json_object((folder / METADATA).read_bytes())
    except (OSError, ValueError):
        return False
    return (metadata.get("custom_metadata") or {}) != MARK


def _to_bytes(content: Manifest) -> bytes:
    body = json.dumps(content, sort_keys=True, indent=1)
    return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def _from_bytes(raw: bytes) -> Manifest:
    """The content that `_to_bytes` was given; a ValueError if any byte has changed."""
    body = raw.removesuffix(b"\n").rpartition(b"\n")[0]
    content = cast(Manifest, parse_json_object(body))
    if raw != _to_bytes(content) or content.get("format") != FORMAT:
        raise ValueError("not a manifest")
    return content
