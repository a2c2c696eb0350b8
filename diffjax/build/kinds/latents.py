"""Makes the space of a stage that learns latents, and keeps its autoencoder with the run."""

from pathlib import Path

from ml_collections import ConfigDict

from diffjax.build.options import config
from diffjax.build.stages.autoencoders import (
    KEY,
    UNTRAINED,
    Opened,
    opened,
    paper,
    tensors_of,
    untrained,
)
from diffjax.checkpoint.portable import FROZEN, frozen_of
from diffjax.core import tensorfile
from diffjax.core.command import path
from diffjax.core.errors import require
from diffjax.core.trees import Params
from diffjax.models.autoencoder.network import Autoencoder, Sizes
from diffjax.models.layers import convolve
from diffjax.tasks.space import WEIGHTS, Space

# The section that only stages of latents have.
SECTION = "latent"
# The keys of the space that a run is trained in: measured once, and then written down.
MEASURED = ("mark", "scale", "shift")


def space_of(options: ConfigDict) -> tuple[Space, Params]:
    """(the space of latents, the frozen weights with the autoencoder's).

    Without a place of an autoencoder the weights are shapes, which do for plans.

    Raises:
      ConfigError: there is no such autoencoder, or it is another than the config says.
    """
    latent, opened = options.latent, opened_for(options)
    space = Space(
        model=model_of(opened.sizes),
        scale=tuple(map(float, latent.scale)) or (1.0,),
        shift=tuple(map(float, latent.shift)) or (0.0,),
        cached=latent.cached,
        tile_px=latent.tile_px,
    )
    return space, {WEIGHTS: opened.params}


def model_of(sizes: Sizes) -> Autoencoder:
    """The network, in float32."""
    return Autoencoder(sizes, convolution=convolve.fastest_convolution())


def opened_for(options: ConfigDict) -> Opened:
    """The autoencoder of a config, after a check that it is the one that is meant.

    Raises:
      ConfigError: there is none, or it has another scale, other channels or other weights.
    """
    latent = options.latent
    where, factor, channels = latent.autoencoder, latent.factor, latent.channels
    if not where:
        return paper(factor, channels)
    if where == UNTRAINED:
        return untrained(factor, channels)
    found = opened(where)
    sizes = found.sizes
    for key, said, has in (("factor", factor, sizes.factor), ("channels", channels, sizes.latent)):
        what = "makes sides so many times shorter" if key == "factor" else "has so many channels"
        require(said == has, f"latent.{key}", said, f"{where} {what}: {has}; say {has}")
    mark = latent.mark
    require(
        mark in ("", found.mark),
        KEY,
        where,
        f"is another autoencoder, {found.mark[:12]}, than that of the latents that were learned, "
        f"{mark[:12]}: name that one",
    )
    return found


def keep(options: ConfigDict, workdir: Path) -> None:
    """Writes a copy of the autoencoder into the workdir, so that the run needs no other folder.

    Raises:
      StorageError: the disk is full or fails.
    """
    file = workdir / FROZEN
    if not file.exists():
        tensorfile.write(file, *tensors_of(opened_for(options)))


def placed(options: ConfigDict, place: Path) -> ConfigDict:
    """The config of a workdir, or of an exported file, with the autoencoder that lies there."""
    copy = place if place.is_file() else place / FROZEN
    if SECTION not in options or not frozen_of(copy)[1]:
        return options
    new = options.copy_and_resolve_references()
    with new.unlocked():
        new.latent.autoencoder = str(copy)
    return new


def check(options: ConfigDict, stride: int) -> None:
    """Checks what only a stage of latents has; stride: of its network.

    Raises:
      ConfigError: a value is not allowed.
    """
    latent, data = options.latent, options.data
    factor, size_px, crop_px = latent.factor, data.size_px, data.crop_px
    require(factor & (factor - 1) == 0, "latent.factor", factor, "must be a power of 2")
    what = f"must be a multiple of {factor * stride}: latent.factor x the network's {stride}"
    require(size_px % (factor * stride) == 0, "data.size_px", size_px, what)
    whole = "latents are of whole pictures: must be 0"
    require(crop_px in (0, size_px), "data.crop_px", crop_px, whole)
    low_res = options.low_res.size_px if "low_res" in options else 0
    require(low_res == 0, "low_res.size_px", low_res, "latents start from no smaller picture: 0")
    threshold = options.sample.threshold
    unbounded = 'latents are not bounded, as pictures are: want "none"'
    require(threshold == "none", "sample.threshold", threshold, unbounded)
    for key in ("scale", "shift"):
        value, channels = latent[key], latent.channels
        allowed = f"one number, {channels} numbers, or () to measure it"
        require(len(value) in (0, 1, channels), f"latent.{key}", value, allowed)
    tile_px = latent.tile_px
    tiles = f"0, or a multiple of {factor} and at least {4 * factor}"
    fits = tile_px % factor == 0 and (not tile_px or tile_px >= 4 * factor)
    require(fits, "latent.tile_px", tile_px, tiles)
    check_cached(options)


def check_cached(options: ConfigDict) -> None:
    """Checks that moments which are made once can be those of what is trained on."""
    cached, crops, aspect = options.latent.cached, options.latent.crops, options.data.aspect
    holes = "mask cuts holes anew in each step: want false"
    require(not (cached and "mask" in options), "latent.cached", cached, holes)
    unused = 'has an effect only with latent.cached and data.aspect="random": want 1'
    require(crops == 1 or (cached and aspect == "random"), "latent.crops", crops, unused)
    several = (
        'data.aspect="random" draws squares: say how many of each picture are kept, at least 2, or '
        "latent.cached=false"
    )
    require(not (cached and aspect == "random" and crops < 2), "latent.crops", crops, several)


def begun(options: ConfigDict, workdir: Path) -> ConfigDict:
    """The config with the mark, scale and shift that the run of the workdir was begun with.

    Those that the config names itself stay; `resume` compares them.
    """
    if SECTION not in options or not (workdir / "config.json").exists():
        return options
    before = config.restore(workdir / "config.json")
    if SECTION not in before:
        return options
    new = options.copy_and_resolve_references()
    with new.unlocked():
        for key in MEASURED:
            if not new.latent[key] and before.latent.get(key):
                new.latent[key] = before.latent[key]
        here = workdir / FROZEN
        where = new.latent.autoencoder
        if here.is_file() and where == before.latent.autoencoder and not path(where).exists():
            new.latent.autoencoder = str(here)
    return new
