"""The flags of `diffjax.edit`: which kinds of edits there are, and what each of them takes."""

import argparse
from pathlib import Path

from diffjax.core import command
from diffjax.editing import given
from diffjax.generation import jobs
from diffjax.images import square

THETA = 0.5  # how far a text diff goes


def parser(description: str) -> argparse.ArgumentParser:
    """The flags of every kind of edit."""
    flags = command.parser("edit", description)
    kinds = flags.add_subparsers(dest="kind", required=True, metavar="KIND")
    paint = kinds.add_parser("inpaint", help="paint anew where a mask is white")
    paint.add_argument(
        "--mask",
        type=given.mask_path,
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
