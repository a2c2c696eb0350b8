"""The bytes that a checkpoint is made of, by their sha256; written last, so that it vouches.

orbax writes array data without a checksum and loads a flipped bit without a word. A step counts
only with its manifest, and is read only when its files are those that the manifest names.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path

from diffjax.core.files import parse_json_object, publish

NAME = "manifest.json"
FORMAT = "diffjax-checkpoint-1"
# orbax's own file about a step; ours is the mark in it that a manifest belongs to the step.
METADATA = "_CHECKPOINT_METADATA"
MARK = {"manifest": FORMAT}

GOOD, INCOMPLETE, CORRUPT, UNVERIFIED = "good", "incomplete", "corrupt", "unverified"


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found of a step.

    state: "good"; "incomplete", when its save was cut off before the end; "corrupt", when a file
    is not what was written; "unverified", when it was made before there were manifests.
    why: one line that names the file, for all but "good". num_bytes: what it takes on the disk.
    saved: seconds since 1970.
    """

    step: int
    state: str
    why: str
    num_bytes: int
    saved: float


def write(folder: Path) -> None:
    """Hash all files of the finished step `folder`; write, sync and rename its manifest.

    What it names is on the disk before it is. Raises what the disk says (OSError).
    """
    names = _files(folder)
    with concurrent.futures.ThreadPoolExecutor(_threads(names)) as pool:
        digests = list(pool.map(lambda name: _digest(folder / name, sync=True), names))
    content = {
        "format": FORMAT,
        "saved": round(time.time(), 3),
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
            for name, digest in zip(names, digests, strict=True)
        },
    }
    temporary = folder / f"{NAME}.tmp"
    try:
        temporary.write_bytes(_to_bytes(content))
        publish(temporary, folder / NAME)
    finally:
        temporary.unlink(missing_ok=True)


def inspect(folder: Path, *, full: bool) -> Found:
    """The state of the step in `folder`: by the sizes of its files, or in full by their hashes."""
    size = sum((folder / name).stat().st_size for name in _files(folder))
    saved = folder.stat().st_mtime

    def found(state: str, why: str = "") -> Found:
        return Found(int(folder.name), state, why, size, saved)

    try:
        raw = (folder / NAME).read_bytes()
    except FileNotFoundError:
        if _made_before_manifests(folder):
            return found(UNVERIFIED, "made before checkpoints had manifests")
        return found(INCOMPLETE, f"{NAME} is missing: its save was cut off")
    except OSError as error:
        return found(CORRUPT, f"{NAME}: {error.strerror}")
    try:
        content = _from_bytes(raw)
    except ValueError:
        return found(CORRUPT, f"{NAME} is not what was written")
    saved = content["saved"]
    files = content["files"]
    for name, there in files.items():
        try:
            num_bytes = (folder / name).stat().st_size
        except OSError:
            return found(CORRUPT, f"{name} is missing")
        if num_bytes != there["bytes"]:
            return found(CORRUPT, f"{name} has {num_bytes} bytes, {there['bytes']} were written")
    if full:
        with concurrent.futures.ThreadPoolExecutor(_threads(files)) as pool:
            faults = pool.map(lambda name: _fault(folder / name, files[name]["sha256"]), files)
            for name, fault in zip(files, faults, strict=True):
                if fault:
                    return found(CORRUPT, f"{name} {fault}")
    return found(GOOD)


def _files(folder: Path) -> list[str]:
    """All files below `folder` by their path in it, without the manifest itself."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [name for name in names if name not in (NAME, f"{NAME}.tmp")]


def _threads(names) -> int:
    return max(1, min(len(names), os.cpu_count() or 1, 16))


def _digest(file: Path, sync: bool = False) -> str:
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if sync:
            os.fsync(stream.fileno())
    return digest


def _fault(file: Path, written: str) -> str:
    try:
        return "" if _digest(file) == written else "has other bytes than were written"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _made_before_manifests(folder: Path) -> bool:
    """orbax finished the step, and no mark says that a manifest was to follow."""
    try:
        metadata = parse_json_object((folder / METADATA).read_bytes())
    except (OSError, ValueError):
        return False
    return (metadata.get("custom_metadata") or {}) != MARK


def _to_bytes(content: dict) -> bytes:
    body = json.dumps(content, sort_keys=True, indent=1)
    return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def _from_bytes(raw: bytes) -> dict:
    """What `_to_bytes` was given; a ValueError if a single byte of it is another."""
    content = parse_json_object(raw.removesuffix(b"\n").rpartition(b"\n")[0])
    if raw != _to_bytes(content) or content.get("format") != FORMAT:
        raise ValueError("not a manifest")
    return content
