"""Damages the files of a run and of an export at random, and starts commands on what is left.

    python -m tools.strain.fuzz_files [--number 1000] [--seed 0] [--folder DIR] [--first 0]

A tiny run is trained and exported. Then one file after the other is damaged in a copy, and training
or sampling is started on the copy. No start may end with a traceback, or with a code other than 0
(it goes on), 2 or 5; a training that goes on must end with the digest, and a sampling with the
pictures, of the files that are whole; and no checkpoint that was whole may be lost.

A damage depends on the seed and its number alone. The folder has a line per damage in
`log-SEED.jsonl`, and the same command does only those that have none. So it may be ended at any
time, and several processes can share a folder and its numbers. Each start is a fork
(tools/strain/forked.py) and costs 2 s of a core on average. Exit codes: 0 all of this held, 1 it
did not.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

from diffjax.checkpoint import steps
from diffjax.checkpoint.manifest import GOOD
from diffjax.images import png
from tools.strain.forked import Ended, Run, forks

TRAIN, SAMPLE, EXPORT = COMMANDS = ("diffjax.main", "diffjax.sample", "diffjax.checkpoint.__main__")

OF = {TRAIN: "run", SAMPLE: "export"}  # the folder that each is started on
STAGE = "base64.safetensors"
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


class Outcome(TypedDict):
    """A line of the log."""

    number: int
    what: str
    how: str
    command: str
    code: int
    cpu_s: float
    wrong: list[str]
    said: str


def told(workdir: Path, encoder: Path) -> list[str]:
    """The flags of the tiny run."""
    options = (f"text.encoder={encoder}", "text.max_tokens=32", "model.mults=(1,)", "train.keep=99",
               "model.attention_levels=(0,)", f"train.num_steps={STEPS}", "train.save_every=1",
               "train.sample_every=0", "train.log_every=1")  # fmt: skip
    flags = [f"--config.{option}" for option in options]
    return ["--config", "configs/base64.py:tiny", "--workdir", str(workdir), *flags]


def whole(workdir: Path) -> set[int]:
    """The steps that are good, by the hashes of their files."""
    return {one.step for one in steps.survey(workdir / "checkpoints", full=True)
            if one.state == GOOD}  # fmt: skip


def kind_of(path: Path) -> str:
    """Files that hold the same thing are of one kind, whatever name they were given."""
    return "array" if re.fullmatch("[0-9a-f]{32}", path.name) else path.name


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
    kind = draw.choice(sorted({kind_of(path) for path in found}))
    path = draw.choice([path for path in found if kind_of(path) == kind])
    how = draw.choice(list(DAMAGES))
    DAMAGES[how](path, draw)
    return path.relative_to(folder).as_posix(), how


def prepare(root: Path, run: Run) -> dict[str, str]:
    """Trains and exports in `root`, unless that is done; returns the results of whole files."""
    from tests.tiny_t5 import save_tiny

    encoder, trained, exported = (root / name for name in ("t5", OF[TRAIN], OF[SAMPLE]))
    file = exported / STAGE
    if not file.exists():
        for folder in (encoder, trained, exported):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        save_tiny(encoder)
        for command, flags in (
            (TRAIN, told(trained, encoder)),
            (EXPORT, ["export", str(trained), "--out", str(file)]),
        ):
            ended = run(command, flags, root / "said.txt")
            assert ended.code == 0, ended.said
    results = {}
    for command in OF:
        ended, results[command] = start(root, run, command)
        assert results[command], ended.said
    return results


def place_of(root: Path) -> Path:
    """Where this process works: several can share the folder and its log."""
    return root / f"process-{os.getpid()}"


def start(
    root: Path, run: Run, command: str, damage: Callable[[Path], None] = lambda folder: None
) -> tuple[Ended, str]:
    """Starts training or sampling on a damaged copy; returns how it ended, and its result.

    The result is the digest of the state or of the pictures; "" if the command did not go on.
    """
    here = place_of(root)
    copy, out = here / "copy", here / "out"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    shutil.copytree(root / OF[command], copy)
    damage(copy)
    if command == TRAIN:
        flags = told(copy, root / "t5")
    else:
        flags = ["--stages", str(copy / STAGE), "--out", str(out), "--steps", "2", "--prompt", "x"]
    ended = run(command, flags, here / "said.txt")
    if ended.code:
        return ended, ""
    if command == TRAIN:
        return ended, "".join(re.findall(rf"digest of step {STEPS}: (\w+)", ended.said))
    pictures = [png.read(path).tobytes() for path in sorted(out.glob("*px.png"))]
    return ended, hashlib.sha256(b"".join(pictures)).hexdigest()


def tried(root: Path, run: Run, results: Mapping[str, str], seed: int, number: int) -> Outcome:
    """The damage of that number, and what it led to."""
    draw = random.Random(f"{seed}/{number}")
    command = TRAIN if draw.random() < 0.8 else SAMPLE
    named, before = ["", ""], set[int]()

    def damage(copy: Path) -> None:
        named[:] = damaged(copy, draw)
        before.update(whole(copy))

    ended, result = start(root, run, command, damage)
    wrong = []
    if ended.code not in ALLOWED or "Traceback" in ended.said:
        wrong.append(f"code {ended.code}: {ended.said.strip().splitlines()[-1:]}")
    if ended.code == 0 and result != results[command]:
        wrong.append("another result than that of the whole files")
    copy = place_of(root) / "copy"
    aside = {int(one.name.split(".")[0]) for one in copy.glob("checkpoints/*.foreign-*")}
    lost = before - whole(copy) - aside
    if lost:
        wrong.append(f"lost the steps {sorted(lost)}")
    return Outcome(
        number=number,
        what=named[0],
        how=named[1],
        command=command,
        code=ended.code,
        cpu_s=round(ended.cpu_s, 2),
        wrong=wrong,
        said=ended.said[-3000:] if wrong else "",
    )


def logged(log: Path) -> dict[int, Outcome]:
    """What the log has, by number; a line that was cut short counts for nothing."""
    done = dict[int, Outcome]()
    for line in log.read_text().splitlines() if log.exists() else ():
        try:
            outcome: Outcome = json.loads(line)
        except ValueError:
            continue
        done[outcome["number"]] = outcome
    return done


def fuzz(number: int, seed: int, root: Path, first: int = 0) -> list[str]:
    """Does what is left in the folder `root`; returns what did not hold, a line each."""
    root.mkdir(parents=True, exist_ok=True)
    log = root / f"log-{seed}.jsonl"
    done = logged(log)
    left = [one for one in range(first, number) if one not in done]
    if left:
        with forks(COMMANDS, {"DIFFJAX_CACHE_DIR": str(root / "users")}) as run:
            results = prepare(root, run)
            for one in left:
                done.update(logged(log))  # others may have come this far
                if one in done:
                    continue
                done[one] = tried(root, run, results, seed, one)
                with log.open("a") as lines:
                    print(json.dumps(done[one]), file=lines)
                if len(done) % 50 == 0:
                    print(summary(list(done.values())), flush=True)
            shutil.rmtree(place_of(root))
    outcomes = [done[one] for one in range(first, number)]
    print(summary(outcomes))
    return [f"{one['number']}: {one['what']} {one['how']}: {wrong}\n{one['said']}"
            for one in outcomes for wrong in one["wrong"]]  # fmt: skip


def summary(outcomes: list[Outcome]) -> str:
    """The figures, in a line."""
    codes = Counter(f"{one['command']} {one['code']}" for one in outcomes)
    seconds = sum(one["cpu_s"] for one in outcomes)
    wrong = sum(bool(one["wrong"]) for one in outcomes)
    kinds = len({(kind_of(Path(one["what"])), one["how"]) for one in outcomes})
    return (
        f"{len(outcomes)} damages, {kinds} kinds of file and damage, codes {dict(codes)}, "
        f"{wrong} that did not hold, {seconds / 60:.1f} CPU minutes"
    )


def main() -> int:
    """Reads the flags and fuzzes; returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--number", type=int, default=1000)
    flags.add_argument("--first", type=int, default=0, help="leave out those before this number")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "diffjax-fuzz")
    parsed = flags.parse_args()
    wrong = fuzz(parsed.number, parsed.seed, parsed.folder, parsed.first)
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
