"""Makes the files of diffjax/shipped from a trained cascade, and the figures of its card.

    python -m diffjax.main --config configs/cascade.py --workdir runs/emoji    # hours on 2 cores
    python -m tools.ship.cascade --workdir runs/emoji                          # half an hour
    python -m tools.ship.cascade --students runs/few                           # that of students
    python -m tools.ship.cascade --scores              # only the scores of sets: an hour
    python -m tools.ship.cascade --card                # only the card, from known figures

The stages are exported in bfloat16, their students (configs/rehearse.py) as bytes, and measured as
they ship (python -m diffjax.evaluate). Scores of sets want pip install diffjax[lite0].
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from diffjax.build.options import config
from diffjax.build.stages import places
from diffjax.build.stages.students import FEW
from diffjax.checkpoint.__main__ import main as checkpoint
from diffjax.core import tensorfile
from diffjax.evaluate import main as evaluate
from diffjax.evaluation.emoji import PLAIN

FIGURES = Path(__file__).resolve().parents[2] / "benchmarks/results/shipped.json"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
TEACHERS, STUDENTS = "teachers", "students"
TITLES = {STUDENTS: "student", TEACHERS: "teacher"}
FOLDERS = {STUDENTS: places.shipped() / FEW, TEACHERS: places.shipped()}
# The split of each set that is scored, and how many pictures of the first stage each seed draws. A
# distance of full rank wants more than the 1,280 features.
SCORED = {"seen": ("train", 1300), "style": ("style", 100), "compositional": ("compositional", 78),
          "test": ("test", 100)}  # fmt: skip
SEEDS = "0-2"
# What is kept of the report on emoji.
PARTS = ("settings", "sets", "enlarged")
SETS = {
    "seen": "its drawing was trained on",
    "style": "training saw the thing in the other style only",
    "compositional": "training saw profession and skin tone, never together",
    "test": "training saw neither name nor drawing",
    "plain": "seen, but the prompt names no style; right in either one",
}


def export(workdir: Path, folder: Path, dtype: str) -> None:
    """Exports each stage's average that is sampled."""
    for place in places.stage_dirs(workdir):
        name = config.restore(place / "config.json").stage
        out = folder / f"{name}.safetensors"
        if checkpoint(["export", str(place), "--dtype", dtype, "--out", str(out)]):
            sys.exit(f"{place} could not be exported")


def measure(who: str) -> None:
    """Writes figures of the card: what `evaluate` says of emoji, of teachers or of students."""
    found = evaluated(FOLDERS[who], "emoji,guidance" if who == TEACHERS else "emoji")
    new: dict[str, Any] = {
        who: {name: found["emoji"][name] for name in PARTS if name in found["emoji"]}
    }
    if who == TEACHERS:
        new["curve"] = found["guidance"]["curve"]
    FIGURES.write_text(json.dumps(known() | new, indent=1) + "\n")


def known() -> dict[str, Any]:
    """The figures that were measured before."""
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    return figures


def evaluated(folder: Path, parts: str) -> dict[str, Any]:
    """What `evaluate` says of the cascade in a folder."""
    out = FIGURES.with_name("shipped_evaluation.json")
    if evaluate([str(folder), "--parts", parts, "--out", str(out), "--overwrite"]):
        sys.exit("the stages could not be evaluated")
    found = json.loads(out.read_text())
    out.unlink()
    return found


def score(most: int | None = None) -> None:
    """Adds the scores of sets to the figures: what `evaluate` says of `sets` for each split.

    most: the most pictures of a set and seed.
    """
    out = FIGURES.with_name("shipped_sets.json")
    scored: dict[str, Any] = {}
    for name, (split, count) in SCORED.items():
        place = str(FOLDERS[STUDENTS] / "base64.safetensors")
        words = [
            "--split",
            split,
            "--num",
            str(min(count, most or count)),
            "--seed",
            SEEDS,
            "--overwrite",
        ]
        if evaluate([place, "--parts", "sets", *words, "--out", str(out)]):
            sys.exit(f"the set {name} could not be scored")
        scored[name] = json.loads(out.read_text())["sets"]
    FIGURES.write_text(json.dumps(known() | {"scored": scored}, indent=1) + "\n")
    out.unlink()


def percent(share: dict[str, float]) -> str:
    """A share and its interval as the card writes them."""
    return f"{share['share']:.0%} ({share['low']:.0%} to {share['high']:.0%})"


def training(place: Path) -> str:
    """A line on how a stage was trained, from its config."""
    options = places.options_of(place)
    metadata = tensorfile.read_metadata(place)
    step, batch = int(metadata["step"]), options.data.batch_size
    count = sum(_size(shape) for shape in tensorfile.shapes(place).values())
    side = options.data.crop_px or options.data.size_px
    student = ", student" if {"distil", "rehearsal"} & set(options) else ""
    return (
        f"| {options.stage}{student} | {count / 1e6:.1f} M | "
        f"{step:,} x {batch} pictures of {side} px | "
        f"{options.optim.name}, rate {options.optim.learning_rate:g} | {metadata['ema']} | "
        f"{place.stat().st_size / 1e6:.1f} MB |"
    )


def _size(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def tables(figures: dict[str, Any]) -> str:
    """The part of the card with figures."""
    rows = [
        "| stage | parameters | trained on | optimiser | average | file |",
        "|---|---|---|---|---|---|",
        *(training(place) for folder in FOLDERS.values() for place in places.stage_dirs(folder)),
        "",
        "The nearest of all 7,841 drawings is the one asked for (95 % interval):",
        "",
        "| prompts | of | drawn by | by pixels at 16 px | by the classifier | "
        "among its first five | right thing, either style |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, meaning in SETS.items():
        for who, title in TITLES.items():
            found = figures[who]["sets"][name]
            pixels, classifier = found["pixels"], found["classifier"]
            # of a prompt without a style neither drawing is the one that was asked for
            right = "name" if name == PLAIN else "right"
            near = "-" if name == PLAIN else percent(classifier["first_five"])
            what = f"{name}: {meaning} | {pixels['right']['of']}" if who == STUDENTS else " | "
            rows.append(
                f"| {what} | {title} | {percent(pixels[right])} | "
                f"{percent(classifier[right])} | {near} | "
                f"{percent(classifier['name'])} |"
            )
    rows += ["", "| guidance weight | by pixels | by the classifier |", "|---|---|---|"]
    for weight, found in figures["curve"].items():
        shares = (found[space]["right"] for space in ("pixels", "classifier"))
        rows.append(f"| {float(weight):g} | {' | '.join(percent(share) for share in shares)} |")
    rows += [
        "",
        "The second stage on true small pictures, against bicubic:",
        "",
        "| pictures | drawn by | PSNR | bicubic | gain | SSIM | bicubic |",
        "|---|---|---|---|---|---|---|",
    ]
    for who, title in TITLES.items():
        for name, found in figures[who].get("enlarged", {}).items():
            rows.append(
                f"| {found['of']} {name} | {title} | {found['made_psnr']:.2f} dB | "
                f"{found['bicubic_psnr']:.2f} dB | {found['gain_db']:+.2f} dB | "
                f"{found['made_ssim']:.3f} | {found['bicubic_ssim']:.3f} |"
            )
    rows += scores(figures["scored"]) if "scored" in figures else []
    return "\n".join(rows)


# The columns of the table of scores: a title, the number, its format, and what it is multiplied by.
COLUMNS = (
    ("FD-lite0", "fd_lite0", ".2f", 1),
    ("100 KID-lite0", "kid_lite0", ".3f", 100),
    ("precision", "precision", ".2f", 1),
    ("recall", "recall", ".2f", 1),
    ("CLIP score", "clip_score", ".2f", 1),
    ("of true pictures", "clip_score_real", ".2f", 1),
    ("R-precision", "r_precision", ".2f", 1),
    ("diversity", "diversity", ".3f", 1),
)


def scores(scored: dict[str, Any]) -> list[str]:
    """The table of the scores of sets: means over the seeds, with their deviation."""
    first = next(iter(scored.values()))
    clip, seeds = first["clip"], ", ".join(map(str, first["seeds"]))
    by = f" and the CLIP {clip['name']} ({clip['weights'][:12]})" if clip else ""
    rows = [
        "",
        f"The student's pictures as sets, by {first['extractor']['name']}{by}; means over the "
        f"seeds {seeds} and their standard deviation:",
        "",
        f"| prompts | pictures of a seed | {' | '.join(title for title, *_ in COLUMNS)} |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for name, found in scored.items():
        cells = [spread(found, number, form, times) for _, number, form, times in COLUMNS]
        rows.append(f"| {name} | {found['examples']} | {' | '.join(cells)} |")
    few = (
        "A set of fewer pictures than the 1,280 features has the number of its pictures beside its "
    )
    return [*rows, "", few + "distance, which is higher for this reason."]


def spread(found: dict[str, Any], name: str, form: str, times: float = 1.0) -> str:
    """A number with its standard deviation over the seeds; a dash for none."""
    few = f"{name}_of_{found['examples']}"
    if name not in found["numbers"] and few in found["numbers"]:
        return f"{spread(found, few, form, times)} (of {found['examples']})"
    if name not in found["numbers"]:
        return "-"
    mean = f"{times * found['numbers'][name]:{form}}"
    deviation = found.get("deviation", {}).get(name)
    return mean if not deviation else f"{mean} ± {times * deviation:{form}}"


def card(text: str, figures: dict[str, Any]) -> str:
    """The card with its present figures."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{tables(figures)}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", type=Path, help="of the trained cascade")
    what.add_argument("--students", type=Path, help="the folder of their workdirs")
    what.add_argument("--scores", action="store_true", help="measure the scores of sets alone")
    what.add_argument("--card", action="store_true", help="write the card again, nothing else")
    parser.add_argument(
        "--num", type=int, help="with --scores or --students: the most pictures of a set and seed"
    )
    flags = parser.parse_args()
    if flags.workdir:
        export(flags.workdir, FOLDERS[TEACHERS], "bfloat16")
    if flags.students:
        export(flags.students, FOLDERS[STUDENTS], "int8")
    if flags.workdir:
        measure(TEACHERS)
    if flags.students:
        measure(STUDENTS)
    if flags.students or flags.scores:
        score(flags.num)
    page = places.shipped() / "README.md"
    page.write_text(card(page.read_text(), known()))


if __name__ == "__main__":
    main()
