"""python -m diffjax.edit inpaint | img2img | vary | variations | diff | ..., each with --help

    python -m diffjax.edit inpaint --workdir runs/demo --picture a.png --mask m.png --prompt "..."
    python -m diffjax.edit interpolate --workdir runs/demo --prompt "..." --prompt "..."

Changes pictures with a trained cascade. File names contain numbers and never the prompt; the
metadata of each PNG say what it was made of. Exit codes: 0 done, 2 bad input, 5 storage, 143
terminated.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from diffjax.build.stages import decoders, loading, loras
from diffjax.core import command
from diffjax.core.errors import ConfigError, require
from diffjax.devices import mesh
from diffjax.diffusion.sampling.sampler import SAMPLERS
from diffjax.editing import by_vector, interpolate, morph, request, ways
from diffjax.generation import jobs
from diffjax.generation.chain import Cascade
from diffjax.generation.telling import is_told_vectors
from diffjax.images import read, square

# The kinds of edits that need a decoder of vectors, and how far a text diff goes.
BY_VECTOR = by_vector.KINDS
# Those in which a prior may tell a decoder the vector of the prompt.
TELLING = ("inpaint", "img2img", "ways")
THETA = 0.5
ALPHA = "alpha"  # of --mask: the picture's own transparency


def parser() -> argparse.ArgumentParser:
    """The flags of every kind of edit."""
    flags = command.parser("edit", __doc__)
    kinds = flags.add_subparsers(dest="kind", required=True, metavar="KIND")
    paint = kinds.add_parser("inpaint", help="paint anew where a mask is white")
    paint.add_argument(
        "--mask",
        type=_mask_path,
        required=True,
        help="as large as the picture, white where it is to change; or alpha: where the picture "
        "itself is transparent (./alpha is a file)",
    )
    paint.add_argument(
        "--resample",
        help="how often RePaint repeats each part of the ladder: 10,1,... by default, 1 is fastest",
    )
    redraw = kinds.add_parser("img2img", help="a picture from a picture and a prompt")
    vary = kinds.add_parser("vary", help="variations of a picture")
    path = kinds.add_parser("interpolate", help="a film between prompts, or between pictures")
    upscale = kinds.add_parser("upscale", help="a picture of any size, enlarged")
    other = kinds.add_parser("variations", help="other pictures of the same, by a decoder")
    diff = kinds.add_parser("diff", help="a film of a picture that changes as a text does")
    three = kinds.add_parser("ways", help="a prompt by its caption, its vector and a prior")
    three.add_argument("--prompt", action="append", required=True, help="may be given many times")
    for kind in (paint, redraw, vary, upscale, other, diff):
        kind.add_argument(
            "--picture",
            type=command.path,
            required=True,
            help="PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF",
        )
    path.add_argument(
        "--picture",
        type=command.path,
        action="append",
        help="twice or more: from picture to picture",
    )
    path.add_argument(
        "--prompt", action="append", default=[], help="twice or more; or one a picture"
    )
    for kind in (paint, redraw):
        kind.add_argument("--prompt", help="needed, if the model takes text")
        kind.add_argument("--class", dest="classes", help="needed, if it is told a class; or none")
    diff.add_argument(
        "--prompt",
        action="append",
        default=[],
        help="twice: what the picture shows, and what it shall show",
    )
    diff.add_argument(
        "--theta",
        type=float,
        default=THETA,
        help=f"how far to go, above 0 to 1; {THETA} by default",
    )
    for kind in (vary, upscale):
        kind.add_argument("--prompt", help="optional; without a prompt there is no guidance")
        kind.add_argument("--class", dest="classes", help="of a model that is told one; or none")
    for kind, strength in ((redraw, 0.6), (vary, 0.4)):
        what = f"above 0 (nothing changes) to 1 (nothing is kept); {strength} by default"
        kind.add_argument("--strength", type=float, default=strength, help=what)
    for kind in (paint, redraw, vary, path, other, diff):
        kind.add_argument(
            "--fit",
            choices=square.FITS,
            default="crop",
            help="make a picture square: cut out its middle, or pad it with white",
        )
    for kind in (path, diff):
        kind.add_argument(
            "--frames", type=int, default=24, help="from one end to the next; 24 by default"
        )
        kind.add_argument("--ms", type=int, default=80, help="of each frame; 80 by default")
        kind.add_argument("--bounce", action="store_true", help="play it backwards afterwards")
        kind.add_argument("--png", action="store_true", help="write every frame as a PNG too")
    path.add_argument(
        "--pace",
        choices=("picture", "prompt"),
        default="picture",
        help="what changes equally from each frame to the next",
    )
    upscale.add_argument(
        "--loose", action="store_true", help="let colours differ from those of the picture"
    )
    upscale.add_argument("--factor", type=int, help="4 by default, or what the stages give")
    for kind in (paint, redraw, vary, path, upscale):
        kind.add_argument("--negative", help="a prompt that guidance moves away from")
    for kind in (paint, redraw, vary, path, upscale, other, diff, three):
        _common(kind)
    return flags


def _common(flags: argparse.ArgumentParser) -> None:
    command.add_stages(flags)
    flags.add_argument("--seeds", default="0", help="as 0, 3,5 or 0-7: pictures to make")
    flags.set_defaults(negative=None)
    jobs.add_settings(flags)
    flags.add_argument(
        "--out", type=command.path, default=Path("out"), help="folder for the pictures"
    )
    flags.add_argument("--overwrite", action="store_true", help="replace files of these names")
    flags.add_argument(
        "--no-metadata", action="store_true", help="do not write into PNGs what they were made of"
    )
    command.add_parameters(flags)
    command.add_loras(flags)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, changes the pictures and writes them; returns the exit code."""
    return command.run_command(parser(), lambda flags: print(run(flags)), arguments)


def run(flags: argparse.Namespace) -> Path:
    """Makes and writes the pictures; returns the path of the file to look at first.

    Flags and files are checked before a checkpoint is read, because that takes long.

    Raises:
      ConfigError: a flag or a file is wrong.
    """
    paths = _listed(getattr(flags, "picture", None))
    given = [_picture("--picture", path) for path in paths]
    prompts = [
        jobs.check_prompt("--prompt", one) for one in _listed(getattr(flags, "prompt", None))
    ]
    seeds = jobs.parse_seeds(flags.seeds)
    negative = jobs.check_prompt("--negative", flags.negative) if flags.negative else None
    classes = getattr(flags, "classes", None)
    require(bool(prompts) or negative is None, "--negative", negative, "needs a --prompt")
    unprompted = flags.kind in BY_VECTOR  # guidance acts on the vector
    led = bool(prompts) or classes is not None or unprompted or flags.guidance is None
    require(led, "--guidance", flags.guidance, "needs a --prompt or a --class")
    _check(flags, given, prompts, seeds)
    mask = _mask(flags, given[0].shape[:2]) if flags.kind == "inpaint" else None
    ask = request.Ask(
        kind=flags.kind,
        pictures=given,
        mask=mask,
        prompts=prompts,
        seeds=seeds,
        negative=negative,
        strength=getattr(flags, "strength", 1.0),
        fit=getattr(flags, "fit", "crop"),
    )
    where = request.Place(flags.out, flags.overwrite, not flags.no_metadata)
    where.check()
    given = [loras.parse(text) for text in flags.lora]
    loras.read(given)
    mesh.keep_compilations()
    dirs = loading.stage_dirs(flags.workdir, flags.stages)
    cascade = loading.load(dirs, flags.ema, flags.verify)
    cascade = loras.merged(cascade, given)
    if not prompts or flags.kind not in TELLING:  # else the prior makes the vector of the prompt
        cascade = dataclasses.replace(cascade, teller=None)
    ask = dataclasses.replace(ask, label=_label(flags.kind, classes, ask, cascade))
    cascade = cascade.with_settings(_settings(flags, cascade, prompts, seeds))
    if flags.kind == "upscale":
        return request.write_upscaled(cascade, ask, where, flags.factor, not flags.loose)
    if flags.kind in (*BY_VECTOR, "ways") or (ask.kind == "interpolate" and _sees(cascade, ask)):
        by_vector.check_decoder(cascade)
        return _by_vector(flags, cascade, decoders.clip_of(dirs), ask, where)
    if flags.kind == "interpolate":
        return interpolate.write_film(cascade, ask, where, _reel(flags))
    return request.write_redrawn(cascade, ask, where, _resample(flags, len(cascade.stages)))


def _sees(cascade: Cascade, ask: request.Ask) -> bool:
    """Whether pictures are given to a decoder, which goes from one to the next by their vectors."""
    return bool(ask.pictures) and is_told_vectors(cascade.stages[0].task)


def _by_vector(flags, cascade: Cascade, clip, ask: request.Ask, where: request.Place) -> Path:
    if flags.kind == "ways":
        return ways.write_ways(cascade, clip, ask, where)
    if flags.kind == "variations":
        return by_vector.write_variations(cascade, clip, ask, where)
    if flags.kind == "diff":
        return by_vector.write_diff(cascade, clip, ask, where, _reel(flags), flags.theta)
    return by_vector.write_interpolation(cascade, clip, ask, where, _reel(flags))


def _reel(flags: argparse.Namespace) -> interpolate.Reel:
    even = getattr(flags, "pace", "prompt") == "picture"
    return interpolate.Reel(flags.frames, flags.ms, flags.bounce, flags.png, even)


def _check(flags: argparse.Namespace, given: list, prompts: list, seeds: list) -> None:
    """Checks what argparse does not."""
    strength = getattr(flags, "strength", 1.0)
    require(0 < strength <= 1, "--strength", strength, "above 0 and at most 1")
    if flags.kind == "diff":
        require(0 < flags.theta <= 1, "--theta", flags.theta, "above 0 and at most 1")
        require(len(prompts) == 2, "--prompt", len(prompts), "2: the text it has, and the new one")
        require(len(seeds) == 1, "--seeds", flags.seeds, "1 seed: a film has one noise")
    if flags.kind != "interpolate":
        return
    ends = len(given) or len(prompts)
    what = "--picture" if given else "--prompt"
    require(2 <= ends <= 50, what, ends, "2 to 50 of them: a path has two ends")
    require(
        not given or len(prompts) in (0, ends),
        "--prompt",
        len(prompts),
        f"none, or one for each of the {ends} pictures",
    )
    for name in ("guidance", "sampler", "noise", "threshold", "negative") if given else ():
        value = getattr(flags, name)
        what = "cannot be set: a path between pictures uses ddim without guidance"
        require(value is None, f"--{name}", value, what)
    most = 1 if given else ends
    require(len(seeds) in (1, most), "--seeds", flags.seeds, f"1 seed, or {most}: one for each end")


def _label(kind: str, text: str | None, ask: request.Ask, cascade: Cascade) -> int | None:
    """The class that --class says, as its number; None for models that are told none.

    Raises:
      ConfigError: the models are not told what is asked, or must be told something.
    """
    name, known = cascade.stages[0].task.name, cascade.classes
    instead = "give --class" if known else "leave it out"
    takes_text, first = cascade.encoder is not None, next(iter(ask.prompts), "")
    if kind == "interpolate":
        cascade.text_encoder()
    require(takes_text or not first, "--prompt", first[:40], f"{name} takes no text: {instead}")
    require(known is not None or text is None, "--class", text, f"{name} takes no class")
    anew = kind in ("inpaint", "img2img")
    if takes_text and text is None:
        require(bool(ask.prompts) or not anew, "--prompt", "", "say what to draw")
    if known is None or (takes_text and text is None):
        return None
    none = f", or {jobs.NO_CLASS}" if known.null else ""
    may_lack = known.null and not anew
    require(text is not None or may_lack, "--class", "", f"give one: 0 to {known.num - 1}{none}")
    labels = [known.num] if text is None else jobs.parse_classes(text, known)
    require(len(labels) == 1, "--class", text, "one class at a time")
    return labels[0]


def _settings(flags: argparse.Namespace, cascade: Cascade, prompts: list, seeds: list):
    """The stages' own settings, changed as the kind of edit needs and as the flags say."""
    defaults = [stage.settings for stage in cascade.stages]
    if flags.kind in BY_VECTOR:
        defaults = by_vector.settings_of(cascade.stages, flags.kind)
    elif flags.kind == "vary" or not (prompts or getattr(flags, "classes", None)):
        defaults = [dataclasses.replace(one, guidance_weight=1.0) for one in defaults]
    if flags.kind == "interpolate" and _listed(flags.picture):
        defaults = [
            dataclasses.replace(stage.settings, num_steps=interpolate.PATH_STEPS)
            for stage in morph.invertible(cascade.stages)
        ]
    elif flags.kind == "interpolate" and len(set(seeds)) > 1:
        defaults[0] = dataclasses.replace(defaults[0], sampler="ddim", noise=0.0)
    settings = jobs.settings_of(flags, defaults)
    require(
        flags.kind not in BY_VECTOR or settings[0].sampler == "ddim",
        "--sampler",
        settings[0].sampler,
        "must be ddim for the first stage, whose steps are inverted",
    )
    draws = SAMPLERS[settings[0].sampler].draws(settings[0].noise)
    require(
        flags.kind != "interpolate" or len(set(seeds)) == 1 or not draws,
        "--sampler",
        settings[0].sampler,
        "draws noise at every step; a path between seeds needs one that draws none, such as ddim",
    )
    require(
        flags.negative is None or any(one.guidance_weight != 1 for one in settings),
        "--negative",
        flags.negative,
        "has no effect without guidance; give --guidance above 1",
    )
    return settings


def _resample(flags: argparse.Namespace, count: int) -> tuple[int, ...] | None:
    """How often RePaint repeats each part, for every stage; None for the usual numbers."""
    text = getattr(flags, "resample", None)
    if text is None:
        return None
    parts = text.split(",")
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in parts]
    fits = len(parts) in (1, count) and all(1 <= number <= 100 for number in numbers)
    require(fits, "--resample", text, f"1 to 100, once or {count} times with commas")
    return tuple(numbers) * (count if len(numbers) == 1 else 1)


def _picture(flag: str, path: Path):
    try:
        return read.read(path)
    except ValueError as error:
        raise ConfigError(flag, str(path)[:200], _without(path, error)) from None


def _mask(flags: argparse.Namespace, shape: tuple[int, int]):
    """Reads the mask of a picture of this (height, width)."""
    path = flags.mask
    if path == ALPHA:
        return _clear_part(flags.picture)
    try:
        mask = read.read_mask(path)
    except ValueError as error:
        raise ConfigError("--mask", str(path)[:200], _without(path, error)) from None
    (height, width), (high, wide) = shape, mask.shape
    require(
        (high, wide) == shape,
        "--mask",
        str(path),
        f"is {wide} x {high} px, the picture {width} x {height}; they must have the same size",
    )
    require(bool(mask.any()), "--mask", str(path), "is all black; paint white what is to change")
    return mask


def _mask_path(text: str) -> Path | str:
    """The type of --mask: ALPHA as it is, anything else as a path."""
    return text if text == ALPHA else command.path(text)


def _clear_part(picture: Path):
    """The mask that a picture's own transparency is."""
    try:
        mask = read.read_alpha(picture)
    except ValueError as error:
        raise ConfigError(
            "--mask", ALPHA, f"{str(picture)[:200]} {_without(picture, error)}; name a mask's file"
        ) from None
    what = f"no pixel of {str(picture)[:200]} is more than half transparent; name a mask's file"
    require(bool(mask.any()), "--mask", ALPHA, what)
    return mask


def _without(path: Path, error: ValueError) -> str:
    line = str(error)
    for name in (f"{path}: ", f"{str(path)!r}: "):
        line = line.removeprefix(name)
    return line


def _listed(value) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


if __name__ == "__main__":
    command.start(main)
