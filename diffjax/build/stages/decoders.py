"""Finds what tells a decoder the vectors of its pictures: a prior, or the CLIP alone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from diffjax.build.inputs import clip_columns, vectors
from diffjax.build.options import config
from diffjax.build.stages import places
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.editing.request import sha256
from diffjax.encoders.clip.encoder import Clip
from diffjax.encoders.t5 import TextEncoder
from diffjax.generation.chain import Cascade
from diffjax.generation.recipe import Recipe
from diffjax.generation.telling import Teller, is_told_vectors
from diffjax.images import read, square

FLAG = "--vector"
# The values of --vector beside a picture.
TEXT, NONE, PRIOR = WORDS = ("text", "none", "prior")


def clip_of(dirs: Sequence[Path]) -> Clip:
    """The CLIP of the vectors that stages of these places make or are told.

    Raises:
      ConfigError: there are none, or vectors of several CLIPs; or the CLIP is not here, or is
        another than the one of the training.
    """
    found = [(place, places.options_of(place)) for place in dirs if not places.is_others(place)]
    told = [(place, options) for place, options in found if vectors.SECTION in options]
    require(bool(told), "--stages", [str(place) for place in dirs], "none has vectors of a CLIP")
    vectors.check_same(told)
    place, options = told[0]
    with config.interpreting(place):
        return clip_columns.clip_of(options)


def seeing_clip(cascade: Cascade, dirs: Sequence[Path]) -> Clip | None:
    """The CLIP that sees pictures for a decoder; None if the first stage is none, or lacks one.

    dirs: of all stages. The folder of a whole Karlo has no network for pictures.

    Raises as `clip_of` does.
    """
    reads = cascade.encoder
    alone = isinstance(reads, TextEncoder) and reads.vectors is not None
    if alone or not is_told_vectors(cascade.stages[0].task):
        return None
    return clip_of(dirs)


def told(
    cascade: Cascade, dirs: Sequence[Path], vector: str | None, like: Recipe | None = None
) -> Cascade:
    """The cascade whose decoder is told what the flag --vector says.

    vector: "text", "none", "prior", or a picture; None for what the recipe `like` says, or else
    for the prior, which must then be there.

    Raises:
      ConfigError: the flag has no effect; or there is no prior, CLIP or picture of this name.
    """
    first = cascade.stages[0].task
    if not is_told_vectors(first):
        what = f"has no effect: {first.name} is told no vector of a picture"
        require(vector is None, FLAG, vector, what)
        return cascade
    if vector is None and like is not None:
        vector = of_recipe(like)
    if vector in (None, PRIOR):
        named = (FLAG, vector) if vector else ("--stages", first.name)
        what = f"no prior makes its vectors: add one to --stages, or give {FLAG} {TEXT}, {NONE} or "
        require(cascade.teller is not None, *named, f"{what}a picture")
        return cascade
    if vector == NONE:
        return dataclasses.replace(cascade, teller=None)
    assert vector is not None
    reads = cascade.encoder
    own = reads if isinstance(reads, TextEncoder) and reads.vectors is not None else None
    if vector == TEXT:
        clip = own or clip_of(dirs)
        return dataclasses.replace(cascade, teller=Teller("text", clip))
    what = "this model has no network for pictures: give text, none or prior"
    require(own is None, FLAG, vector, what)
    return dataclasses.replace(cascade, teller=of_picture(path(vector), clip_of(dirs)))


def of_picture(place: Path, clip: Clip) -> Teller:
    """What a picture tells: the vector of its middle square.

    Raises:
      ConfigError: there is no picture.
    """
    try:
        picture = read.read(place)
    except ValueError as error:
        wrong = str(error).removeprefix(f"{place}: ").removeprefix(f"{str(place)!r}: ")
        raise ConfigError(FLAG, str(place)[:200], wrong) from None
    given = square.fit_square(picture, clip.side_px)
    return Teller("picture", clip, vector=clip.of_pictures(given[None]), picture=sha256(given))


def of_recipe(recipe: Recipe) -> str:
    """The value of --vector with which a picture was made.

    Raises:
      ConfigError: it was a picture, whose name is not in the recipe.
    """
    if recipe.told is None:
        return NONE
    by = recipe.told.by
    require(by != "picture", "--like", by, f"gave its vector: name that picture with {FLAG}")
    return by


def check_like(recipe: Recipe, cascade: Cascade) -> None:
    """Checks that the vector of a picture is made as it was.

    Raises:
      ConfigError: it is by another prior, CLIP or picture.
    """
    here = None if cascade.teller is None else cascade.teller.said()
    was = recipe.told
    if was is None or here is None:
        return
    for name, then, now in (("CLIP", was.clip, here.clip), ("picture", was.picture, here.picture)):
        what = f"is the {name} of its vector, here is {str(now)[:12]}; --anyway takes this one"
        require(then == now, "--like", str(then)[:12], what)
    if was.prior and here.prior:
        then, now = (one[0].checkpoint[:12] for one in (was.prior, here.prior))
        what = f"is the prior of the picture, here is {now}; --anyway takes this one"
        require(then == now, "--like", then, what)
