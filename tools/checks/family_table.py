"""Compares systems that were trained for equal times: numbers in a table, and unchosen pictures.

    python -m tools.checks.family_table runs/imagen runs/glide runs/unclip --out family

Each folder is a system: a cascade, GLIDE, or a prior with its decoder and upsampler. All draw the
same captions of the training data at their default settings. OUT gets a JSON of `diffjax.evaluate`
for each, which is not made again if it is there, table.md, and a sheet of 12 captions that are
spread evenly over the data, with a picture of each system.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diffjax import evaluate, sample
from diffjax.build.inputs.styles import styles_of
from diffjax.build.reports import loaded
from diffjax.build.stages import places
from diffjax.core import command
from diffjax.core.json_types import JsonObject
from diffjax.evaluation import emoji, retrieval
from diffjax.evaluation.drawings import chosen, drawings
from diffjax.images import png
from diffjax.images.sheet import contact_sheet

SHOWN, TILE_PX = 12, 128
SEEN, PIXELS = ("sets", "numbers"), ("pixels", "right", "share")
# a column of the table -> where its number lies in a report, and how it is written
COLUMNS = {
    "FD-lite0": ((*SEEN, "fd_lite0_of_{num}"), "{:.0f}"),
    "KID": ((*SEEN, "kid_lite0"), "{:.3f}"),
    "CLIP score": ((*SEEN, "clip_score"), "{:.1f}"),
    "R-precision": ((*SEEN, "r_precision"), "{:.0%}"),
    "seen": (("right", "seen", *PIXELS), "{:.0%}"),
    "other style": (("right", "style", *PIXELS), "{:.0%}"),
    "compositional": (("right", "compositional", *PIXELS), "{:.0%}"),
    "unseen names": (("right", "test", *PIXELS), "{:.0%}"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("systems", nargs="+", type=command.path)
    flags.add_argument("--num", type=int, default=300, help="pictures of a set")
    flags.add_argument("--prompts", type=int, default=100, help="prompts of each retrieval")
    flags.add_argument("--out", type=command.path, required=True)
    given = flags.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    found = {one.name: report(one, given) for one in given.systems}
    (given.out / "table.md").write_text(table(found, given.num))
    print(table(found, given.num))
    every = drawings(64)
    captions = [every.captions[i] for i in chosen(every, "train", SHOWN)]
    rows = list(zip(*(drawn(one, captions, given.out) for one in given.systems), strict=True))
    sheet = contact_sheet(rows, captions, tile_px=TILE_PX, columns=3)
    png.write(given.out / "sheet.png", np.asarray(sheet), None)


def report(system: Path, given: argparse.Namespace) -> JsonObject:
    """The numbers of sets of pictures, and the shares of right ones, each in a file of its own."""
    numbers, right = (given.out / f"{system.name}_{part}.json" for part in ("sets", "right"))
    if not numbers.exists():
        flags = [str(system), "--parts", "sets", "--split", "train", "--clip", "shipped"]
        if evaluate.main([*flags, "--num", str(given.num), "--out", str(numbers)]):
            raise SystemExit(2)
    if not right.exists():
        right.write_text(json.dumps(right_of(system, given.prompts), indent=2) + "\n")
    return {**json.loads(numbers.read_text()), "right": json.loads(right.read_text())}


def right_of(system: Path, most: int) -> JsonObject:
    """How often the nearest of all drawings, by pixels, is the one that was asked for."""
    stages = loaded.load(places.stage_dirs(system), None, "full")
    every, encoder = drawings(64), stages[0].encoder
    assert encoder is not None
    space = retrieval.small_pixels
    judge = emoji.Judge(every, {"pixels": space}, {"pixels": space(every.images)})
    return emoji.sets(stages[0].stage, encoder, judge, most, tell=loaded.tell_of(stages),
                      styles=styles_of(stages[0].options))  # fmt: skip


def table(found: dict[str, JsonObject], num: int) -> str:
    """A row for each system, in Markdown."""
    lines = ["| system | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, numbers in found.items():
        cells = [how.format(at(numbers, path, num)) for path, how in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def at(numbers: JsonObject, path: Sequence[str], num: int) -> float:
    """The number of a report at these keys."""
    here: object = numbers
    for key in path:
        assert isinstance(here, dict)
        here = here[key.format(num=num)]
    assert isinstance(here, float | int)
    return float(here)


def drawn(system: Path, captions: Sequence[str], out: Path) -> list[np.ndarray]:
    """The last stage's picture of each caption, at seed 0."""
    prompts, folder = out / "captions.txt", out / system.name
    prompts.write_text("\n".join(captions) + "\n")
    flags = ["--workdir", str(system), "--prompts", str(prompts), "--out", str(folder)]
    if sample.main([*flags, "--overwrite"]):
        raise SystemExit(2)
    files = sorted(folder.glob("[0-9]*.png"))
    assert len(files) == len(captions), f"{len(files)} pictures of {len(captions)} captions"
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


if __name__ == "__main__":
    main()
