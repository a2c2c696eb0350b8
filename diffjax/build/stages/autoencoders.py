"""Opens a frozen autoencoder: a workdir, an export, a file of others, or the one that ships."""

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

from diffjax.build.kinds import autoencoding
from diffjax.build.options import config
from diffjax.checkpoint.portable import FROZEN_PREFIX
from diffjax.core import digest, tensorfile
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.core.files import parse_json_object
from diffjax.core.trees import Params, map_named, named_leaves
from diffjax.encoders.autoencoder import weights
from diffjax.models.autoencoder.network import Autoencoder, Sizes
from diffjax.tasks.space import WEIGHTS

# The key that names an autoencoder.
KEY = "latent.autoencoder"
# Instead of a place: random weights, for tests.
UNTRAINED = "untrained"
SHIPPED = "shipped"
# As `latents.keep` writes it; tools/ship/autoencoder.py makes it.
SHIPPED_FILE = Path(__file__).parents[2] / "encoders/autoencoder/emoji/model.safetensors"
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


class Opened(NamedTuple):
    """A frozen autoencoder. mark: of what makes its latents, so that a better decoder for the same
    latents is no other autoencoder. scale: for diffusion, if it says one.

    Without weights, params are shapes.
    """

    name: str
    sizes: Sizes
    params: Params
    mark: str
    scale: float | None = None


@functools.lru_cache(maxsize=4)
def opened(where: str, average: str | None = None) -> Opened:
    """The autoencoder at a place, as `latent.autoencoder` names it.

    average: of the run in a workdir; by default the first that it kept.

    Raises:
      ConfigError: there is no such autoencoder, or none with this average.
    """
    if where == SHIPPED and not path(where).exists():
        none = "none came along: train one with configs/autoencoder.py"
        require(SHIPPED_FILE.is_file(), KEY, where, none)
        where = str(SHIPPED_FILE)
    if where.startswith(DIFFUSERS):
        others = _of_others(path(where.removeprefix(DIFFUSERS)), where)
        return _without_average(others, where, average)
    place = path(where)
    require(place.exists(), KEY, where, "there is no such workdir, folder or file")
    if place.is_file():
        copied = _of_copy(place)
        if copied is not None:
            return _without_average(copied, where, average)
    if _is_ours(place):
        return _trained(place, average)
    return _without_average(_of_others(place, where), where, average)


def _without_average(found: Opened, where: str, average: str | None) -> Opened:
    require(average is None, KEY, where, f"has no averages, so none is named {average}")
    return found


def _trained(place: Path, average: str | None) -> Opened:
    from diffjax.build.stages import places  # which itself asks what this module reads

    options = places.options_of(place)
    no = "was trained to do something else: want a workdir of configs/autoencoder.py"
    require(autoencoding.SECTION in options, KEY, str(place), no)
    with config.interpreting(place):
        # what training measures distances with is not needed
        task = autoencoding.task_of(_without_distance(options))
    params, _, _ = places.params_of(options, place, task, average)
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
    """That in a copy that `latents.keep` wrote, or in an exported stage; None if it has none.

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
    sizes, usual = plain(sizes), asdict(Sizes())
    # without what is as usual, so that a further field of sizes changes no mark
    said = {name: value for name, value in asdict(sizes).items() if value != usual[name]}
    encoder = {name: params[name] for name in ("encoder", "moments")}
    mark = digest.digest_of(encoder, {"sizes": repr(said)})
    return Opened(name, sizes, jax.tree.map(np.asarray, params), mark, scale)


def plain(sizes: Sizes) -> Sizes:
    """The sizes with tuples in place of lists, so that equal ones have equal marks."""
    return replace(sizes, mults=tuple(sizes.mults), attention=tuple(sizes.attention))


def paper(factor: int, channels: int) -> Opened:
    """The shapes of the paper's autoencoder of this scale."""
    levels = factor.bit_length() - 1
    paper = PAPERS.get(
        factor, Sizes(mults=(1,) * max(levels - 1, 0) + (4,) * min(levels, 1) + (4,))
    )
    sizes = replace(paper, latent=channels)
    return Opened("paper", sizes, _shapes(sizes), "")


@functools.lru_cache(maxsize=4)
def untrained(factor: int, channels: int) -> Opened:
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
