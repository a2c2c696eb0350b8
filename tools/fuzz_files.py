"""Damages the files of a run and of an export at random, and starts commands on what is left.

    python -m tools.fuzz_files [--number 1000] [--seed 0]

A tiny run is trained and exported. Then one file after the other is damaged in a copy, and training
or sampling is started on the copy. No start may end with a traceback, or with a code other than 0
(it goes on), 2 or 5; and no checkpoint that was whole may be lost. The damages depend on the seed
alone. Exit codes: 0 all of this held, 1 it did not.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from diffjax import main as training
from diffjax import sample
from diffjax.checkpoint import __main__ as checkpoints
from diffjax.checkpoint import steps
from diffjax.checkpoint.manifest import GOOD

STEPS = 4
ALLOWED = (0, 2, 5)
Damage = Callable[[Path, random.Random], None]


def changed(make: Callable[[bytes, random.Random], bytes]) -> Damage:
    """A damage that writes other bytes."""

    def damage(path: Path, draw: random.Random) -> None:
        path.write_bytes(make(path.read_bytes(), draw))

    return damage


def flipped(data: bytes, draw: random.Random) -> bytes:
    """One bit is another."""
    if not data:
        return b"\0"
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def as_folder(path: Path, draw: random.Random) -> None:
    """A folder lies in the place of the file."""
    path.unlink()
    path.mkdir()


def as_link(path: Path, draw: random.Random) -> None:
    """A link to nothing lies in the place of the file."""
    path.unlink()
    path.symlink_to("/nowhere/at/all")


DAMAGES: dict[str, Damage] = {
    "flipped": changed(flipped),
    "cut": changed(lambda data, draw: data[: draw.randrange(max(len(data), 1))]),
    "empty": changed(lambda data, draw: b""),
    "zeros": changed(lambda data, draw: bytes(len(data))),
    "noise": changed(lambda data, draw: draw.randbytes(draw.randrange(1, 4096))),
    "longer": changed(lambda data, draw: data + draw.randbytes(draw.randrange(1, 64))),
    "other JSON": changed(lambda data, draw: b'{"architectures": ["x"], "version": 3}\n'),
    "deep JSON": changed(lambda data, draw: b"[" * 100_000),
    "gone": lambda path, draw: path.unlink(),
    "folder": as_folder,
    "link": as_link,
}


def told(workdir: Path, encoder: Path) -> list[str]:
    """The flags of the tiny run."""
    options = (f"text.encoder={encoder}", "text.max_tokens=32", "model.mults=(1,)", "train.keep=99",
               "model.attention_levels=(0,)", f"train.num_steps={STEPS}", "train.save_every=1",
               "train.sample_every=0", "train.log_every=1")  # fmt: skip
    flags = [f"--config.{option}" for option in options]
    return ["--config", "configs/base64.py:tiny", "--workdir", str(workdir), *flags]


def started(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> tuple[int, str]:
    """(exit code, what was said); -1 and the traceback if an exception came out."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return command(arguments), said.getvalue()
    except BaseException:
        return -1, f"{said.getvalue()}{traceback.format_exc()}"


def whole(workdir: Path) -> set[int]:
    """The steps that are good, by the hashes of their files."""
    return {one.step for one in steps.survey(workdir / "checkpoints", full=True)
            if one.state == GOOD}  # fmt: skip


def damaged(folder: Path, draw: random.Random) -> tuple[str, str]:
    """Damages a file below the folder, or renames a step; returns what and how."""
    saved = steps.steps_in(folder / "checkpoints")
    if saved and draw.random() < 0.05:
        one, number = draw.choice(saved), draw.randrange(50)
        if number not in saved:
            (folder / f"checkpoints/{one}").rename(folder / f"checkpoints/{number}")
            return f"checkpoints/{one}", f"renamed to {number}"
    # each kind of file is as likely as the others, however many arrays there are
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = sorted({path.name for path in found})
    kind = draw.choice(kinds)
    path = draw.choice([path for path in found if path.name == kind])
    how = draw.choice(list(DAMAGES))
    DAMAGES[how](path, draw)
    return path.relative_to(folder).as_posix(), how


def fuzz(number: int, seed: int, root: Path) -> list[str]:
    """Does all of it in the folder `root`; returns what did not hold, a line each."""
    from tests.tiny_t5 import save_tiny

    encoder, run, export = root / "t5", root / "run", root / "export"
    encoder.mkdir()
    export.mkdir()
    save_tiny(encoder)
    os.environ["DIFFJAX_CACHE_DIR"] = str(root / "users")
    assert training.main(told(run, encoder)) == 0
    file = export / "base64.safetensors"
    assert checkpoints.main(["export", str(run), "--out", str(file)]) == 0
    draw, wrong, codes = random.Random(seed), [], Counter[int]()
    begun = time.monotonic()
    for index in range(number):
        copy = root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        if draw.random() < 0.8:
            shutil.copytree(run, copy)
            what, how = damaged(copy, draw)
            before = whole(copy)
            code, said = started(training.main, told(copy, encoder))
            lost = before - whole(copy)
            moved = {int(one.name.split(".")[0]) for one in copy.glob("checkpoints/*.foreign-*")}
            if lost - moved:
                wrong.append(f"{what} {how}: lost the steps {sorted(lost)}")
        else:
            shutil.copytree(export, copy)
            what, how = damaged(copy, draw)
            place = copy / what
            flags = ["--prompt", "x", "--out", str(root / "out"), "--steps", "2", "--overwrite"]
            code, said = started(sample.main, ["--stages", str(place), *flags])
        codes[code] += 1
        if code not in ALLOWED or "Traceback" in said:
            wrong.append(f"{what} {how}: code {code}: {said.strip().splitlines()[-1:]}")
            print(wrong[-1], said[-3000:], sep="\n", file=sys.stderr)
        if index % 50 == 49:
            seconds = time.monotonic() - begun
            print(f"{index + 1} of {number}, {seconds:.0f} s, codes {dict(codes)}", flush=True)
    print(f"{number} damages, codes {dict(codes)}, {len(wrong)} that did not hold")
    return wrong


def main() -> int:
    """Reads the flags and fuzzes; returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--number", type=int, default=1000)
    flags.add_argument("--seed", type=int, default=0)
    parsed = flags.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return bool(fuzz(parsed.number, parsed.seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
