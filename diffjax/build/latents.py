"""Opens the frozen autoencoder of a stage that learns latents, and makes their space."""

import functools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from diffjax.build import autoencoding, config
from diffjax.checkpoint.portable import FROZEN, FROZEN_PREFIX, frozen_of
from diffjax.core import digest, tensorfile
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.core.files import parse_json_object
from diffjax.core.trees import Params, map_named, named_leaves
from diffjax.encoders.autoencoder import weights
from diffjax.models.autoencoder.network import Autoencoder, Sizes
from diffjax.models.layers import convolve
from diffjax.tasks.space import WEIGHTS, Space

# The section that only stages of latents have.
SECTION, KEY = "latent", "latent.autoencoder"
# Instead of a place: random weights, for tests.
UNTRAINED = "untrained"
SHIPPED = "shipped"
# As `keep` writes it; tools/ship_autoencoder.py makes it.
SHIPPED_FILE = Path(__file__).parent.parent / "encoders/autoencoder/emoji/model.safetensors"
DIFFUSERS = "diffusers:"
SIZES = "autoencoder"  # in the metadata of the copy that lies in the workdir of a run
PREFIX = f"{FROZEN_PREFIX}{WEIGHTS}/"  # of its tensors there, and in an exported stage
# Levels of the paper's autoencoders by how many times they shorten a side, for plans.
PAPERS = {
    4: Sizes(mults=(1, 2, 4), latent=3),
    8: Sizes(mults=(1, 2, 4, 4), latent=4),
    16: Sizes(mults=(1, 1, 2, 2, 4), attention=(4,), latent=16),
    32: Sizes(mults=(1, 1, 2, 2, 4, 4), attention=(4, 5), latent=64),
}
# The keys of the space that a run is trained in: measured once, and then written down.
MEASURED = ("mark", "scale", "shift")


class Opened(NamedTuple):
    """A frozen autoencoder. mark: of its weights and sizes. scale: for diffusion, if it says one.

    Without weights, params are shapes.
    """

    name: str
    sizes: Sizes
    params: Params
    mark: str
    scale: float | None = None


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
        return _paper(factor, channels)
    if where == UNTRAINED:
        return _untrained(factor, channels)
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


@functools.lru_cache(maxsize=4)
def opened(where: str) -> Opened:
    """The autoencoder at a place, as `latent.autoencoder` names it.

    Raises:
      ConfigError: there is none.
    """
    if where == SHIPPED and not path(where).exists():
        none = "none came along: train one with configs/autoencoder.py"
        require(SHIPPED_FILE.is_file(), KEY, where, none)
        where = str(SHIPPED_FILE)
    if where.startswith(DIFFUSERS):
        return _of_others(path(where.removeprefix(DIFFUSERS)), where)
    place = path(where)
    require(place.exists(), KEY, where, "there is no such workdir, folder or file")
    if place.is_file():
        copied = _of_copy(place)
        if copied is not None:
            return copied
    if _is_ours(place):
        return _trained(place)
    return _of_others(place, where)


def _trained(place: Path) -> Opened:
    """That of a workdir or an export of configs/autoencoder.py."""
    from diffjax.build import places  # which itself asks what this module reads

    options = places.options_of(place)
    no = "was trained to do something else: want a workdir of configs/autoencoder.py"
    require(autoencoding.SECTION in options, KEY, str(place), no)
    with config.interpreting(place):
        # what training measures distances with is not needed
        task = autoencoding.task_of(_without_distance(options))
    params, _, _ = places.params_of(options, place, task, None)
    return _marked(options.stage, task.model.sizes, params["autoencoder"])


def _without_distance(options: ConfigDict) -> ConfigDict:
    plain = options.copy_and_resolve_references().unlock()
    plain.autoencoding.perceptual = ""
    return plain


def _of_others(place: Path, where: str) -> Opened:
    try:
        loaded = weights.load(place)
    except (ValueError, OSError) as error:
        raise ConfigError(KEY, where, str(error)) from None
    return _marked(place.stem, loaded.sizes, loaded.params, loaded.scale)


def _of_copy(file: Path) -> Opened | None:
    """That in a copy that `keep` wrote, or in an exported stage of latents; None if it has none.

    Raises:
      ConfigError: the file is damaged.
    """
    try:
        said = tensorfile.read_metadata(file).get(SIZES, "")
        if not said:
            return None
        tensorfile.verify(file)
        found = parse_json_object(said)
        name = str(found.pop("name", file.stem))
        sizes = Sizes(**found)  # type: ignore[arg-type]
        names = [name for name in tensorfile.shapes(file) if name.startswith(PREFIX)]
        # the shipped one has 16 bits
        flat = {
            tuple(n.removeprefix(PREFIX).split("/")): tensorfile.read(file, n).astype(np.float32)
            for n in names
        }
    except (ValueError, OSError, TypeError) as error:
        raise ConfigError(KEY, str(file), f"{error}") from None
    return _marked(name, sizes, unflatten_dict(flat))


def _is_ours(place: Path) -> bool:
    """Whether it is a workdir, or the file of an export."""
    if place.is_dir():
        return (place / "checkpoints").is_dir()
    try:
        return bool(tensorfile.read_metadata(place).get("config"))
    except (ValueError, OSError):
        return False  # `weights.load` says what is wrong with it


def _marked(name: str, sizes: Sizes, params: Params, scale: float | None = None) -> Opened:
    sizes, usual = _plain(sizes), asdict(Sizes())
    # without what is as usual, so that a further field of sizes changes no mark
    said = {name: value for name, value in asdict(sizes).items() if value != usual[name]}
    mark = digest.digest_of(params, {"sizes": repr(said)})
    return Opened(name, sizes, jax.tree.map(np.asarray, params), mark, scale)


def _plain(sizes: Sizes) -> Sizes:
    """The sizes with tuples in place of lists, so that equal ones have equal marks."""
    return replace(sizes, mults=tuple(sizes.mults), attention=tuple(sizes.attention))


def _paper(factor: int, channels: int) -> Opened:
    """The shapes of the paper's autoencoder of this scale."""
    levels = factor.bit_length() - 1
    paper = PAPERS.get(
        factor, Sizes(mults=(1,) * max(levels - 1, 0) + (4,) * min(levels, 1) + (4,))
    )
    sizes = replace(paper, latent=channels)
    return Opened("paper", sizes, _shapes(sizes), "")


@functools.lru_cache(maxsize=4)
def _untrained(factor: int, channels: int) -> Opened:
    """A small network with random weights, which need no compilation."""
    sizes = Sizes(channels=8, mults=(1,) * factor.bit_length(), num_blocks=1, latent=channels)
    random = np.random.default_rng(0)

    def leaf(name: str, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if not name.endswith("kernel"):
            return np.full(shape.shape, float(name.endswith("scale")), np.float32)
        fan_in = int(np.prod(shape.shape[:-1]))
        return (random.standard_normal(shape.shape) / np.sqrt(fan_in)).astype(np.float32)

    return _marked(UNTRAINED, sizes, map_named(leaf, _shapes(sizes)))


def _shapes(sizes: Sizes) -> Params:
    image = jnp.zeros((1, sizes.factor, sizes.factor, 3))
    return jax.eval_shape(Autoencoder(sizes).init, jax.random.key(0), image)["params"]


def tensors_of(opened: Opened) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(its tensors, metadata) as they are written into a safetensors file."""
    said = asdict(opened.sizes)
    tensors = {f"{PREFIX}{name}": np.asarray(x) for name, x in named_leaves(opened.params).items()}
    return tensors, {SIZES: json.dumps({**said, "name": opened.name})}


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
