"""Loads the stages that made a picture, by its recipe."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from diffjax.build.stages import loading, places
from diffjax.core.errors import require
from diffjax.encoders.unclip.texts import is_whole
from diffjax.generation.chain import Cascade
from diffjax.generation.recipe import FROM_A_FILE, Origin, Recipe


def load_like(
    recipe: Recipe, dirs: Sequence[Path], ema: str | None, verify: str, anyway: bool
) -> Cascade:
    """The stages that made a picture, with its settings, and with its step and average if possible.

    Raises:
      ConfigError: the stages are others; or their parameters or the encoder are, unless `anyway`.
      StorageError: see `load`.
    """
    count, priors = len(recipe.stages), [place for place in dirs if places.is_prior(place)]
    dirs = [place for place in dirs if place not in priors]
    there_are = sum(map(places.num_stages, dirs))
    require(there_are >= count, "--like", count, f"stages made the picture, here are {there_are}")
    whole = is_whole(dirs[0])
    there = [origin for origin, _ in recipe.stages]
    by = recipe.told.prior if recipe.told else None
    needed = [by[0]] if by else []
    require(
        whole or bool(priors) or not needed,
        "--like",
        "a prior",
        "made its vector: add it to --stages",
    )
    names = [None if one.average == FROM_A_FILE else one.average for one in (*needed, *there)]
    used = [*(priors if needed else []), *dirs[:count]]
    if whole:
        cascade = loading.load(dirs, ema, verify)
        stages, origins = cascade.stages[:count], cascade.origins[:count]
        cascade = dataclasses.replace(cascade, stages=stages, origins=origins)
    else:
        cascade = loading.load(used, ema or names, verify, [one.step for one in (*needed, *there)])
    if cascade.stages[0].task.space is not None and count == 1:
        cascade = cascade.at_size(there[0].size_px, "--like")
    for was, now in zip(there, cascade.origins, strict=True):
        same = (was.name, was.size_px) == (now.name, now.size_px)
        shown = f"{was.name}, {was.size_px} px"
        require(same, "--like", shown, f"here is {now.name}, {now.size_px} px")
        require(
            anyway or was.checkpoint == now.checkpoint,
            "--like",
            said(was),
            f"made the picture, here is another checkpoint: {said(now)}; give the workdir and "
            "--ema that made it, or --anyway to take this one",
        )
    here = None if cascade.encoder is None else cascade.encoder.fingerprint
    require(
        anyway or recipe.encoder == here,
        "--like",
        str(recipe.encoder)[:12],
        f"is the text encoder of the picture, here is {str(here)[:12]}; --anyway takes this one",
    )
    if by and cascade.teller:
        cascade = dataclasses.replace(cascade, teller=cascade.teller.sampled_by(by[1]))
    return cascade.with_settings([settings for _, settings in recipe.stages])


def said(origin: Origin) -> str:
    """A short description of an origin."""
    step = "unknown" if origin.step is None else origin.step
    return f"{origin.name} step {step} {origin.average} {origin.checkpoint[:12]}"
