"""The trained network that a run begins from: the base of a LoRA, the teacher of a student."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from diffjax.build.options import config as config_lib
from diffjax.build.options import resume
from diffjax.build.options.identity import identity
from diffjax.build.others import stable_diffusion
from diffjax.build.stages import places
from diffjax.core import digest
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.tasks.task import Params, Task

# The sections that name one, and have its digest in `checkpoint`.
SECTIONS = ("lora", "distil")
# Values of a key that names a network, which are no places.
SHIPPED, UNTRAINED = "shipped", "untrained"
# Keys of the sections of a network that may differ from those it was trained with.
MAY_DIFFER = (
    "text.drop", "text.width", "tokens.drop", "classes.drop", "embedding.drop", "mask.drop",
    "mask.strokes", "low_res.max_aug_level", "low_res.degrade",
    "diffusion.weighting", "diffusion.times", "diffusion.num_levels",
    *resume.FREE,
)  # fmt: skip
# Keys to which a checkpoint is bound that say nothing of the network.
OF_THE_RUN = ("train.", "optim.", "rehearsal.", *(f"{section}." for section in SECTIONS))


class Base(NamedTuple):
    """A trained network: NumPy arrays, and a digest of them and of its config."""

    params: Params
    checkpoint: str


def base_of(
    config: ConfigDict, task: Task, key: str, read: Callable[[ConfigDict, Path, Task], Params]
) -> Base:
    """The network that `key` of the config names, and its digest.

    read: (its config, its place, the task) -> its parameters, for one of our own.

    Raises:
      ConfigError: there is none, or it is another network than the config's.
      StorageError: it is damaged.
    """
    if named_by(config, key) == UNTRAINED:
        params = jax.jit(task.init)(jax.random.key(config.seed))
        whose = identity(config)
    else:
        place = place_of(config, key)
        options = options_of(place, config, key)
        check_same(config, options, place)
        if places.is_others(place):
            params, whose = stable_diffusion.params_of(place, key)
        else:
            params, whose = read(options, place, task), identity(options)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    return Base(params, digest.digest_of(params, whose))


def as_begun(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config with the digest of what a run in the workdir was begun from, if any."""
    for section in SECTIONS:
        if section in config and not config[section].checkpoint:
            known = resume.begun(workdir).get(f"{section}.checkpoint", "")
            config = with_checkpoint(config, section, str(known))
    return config


def with_checkpoint(config: ConfigDict, section: str, checkpoint: str) -> ConfigDict:
    """The config with this digest of the network that the section names."""
    new = config.copy_and_resolve_references()
    with new.unlocked():
        new[section].checkpoint = checkpoint
    return new


def check_known(config: ConfigDict, key: str, base: Base, known: str) -> None:
    """Checks that the network is the one that the run began with, of the digest `known`.

    Raises:
      ConfigError: it is another one.
    """
    require(
        known in ("", base.checkpoint),
        key,
        named_by(config, key),
        f"is another one than the run began with: its digest is {base.checkpoint[:12]}, that one's "
        f"was {known[:12]}; bring it back, or begin in a new workdir",
    )


def place_of(config: ConfigDict, key: str) -> Path:
    """The workdir or the export of the network: the stage of the same name, if there are several.

    Raises:
      ConfigError: there is none.
    """
    where = named_by(config, key)
    named = f"name a workdir, an export, a Stable Diffusion or {SHIPPED}"
    require(bool(where.strip()), key, where, named)
    try:
        found = places.stage_dirs(None if where == SHIPPED else path(where))
    except ConfigError as error:
        raise ConfigError(key, where, str(error).rpartition(": ")[2]) from None
    same = [one for one in found if options_of(one, config, key).stage == config.stage]
    require(bool(same), key, where, f"has no stage {config.stage}")
    return same[0]


def first_of(where: str) -> ConfigDict:
    """The config of the first stage of a place, to be changed by the config file that names it.

    It does not say what that stage began with. where: a workdir, an export, or SHIPPED.

    Raises:
      ConfigError: there is no stage.
    """
    place = places.stage_dirs(None if where == SHIPPED else path(where), flag="--config")[0]
    config = places.options_of(place).copy_and_resolve_references().unlock()
    if "start" in config:
        del config["start"]
    return config


def named_by(config: ConfigDict, key: str) -> str:
    """The value of a key such as "lora.base"."""
    section, _, name = key.partition(".")
    return str(config[section][name])


def options_of(place: Path, like: ConfigDict, key: str) -> ConfigDict:
    """The config of a network. like: has what a Stable Diffusion of others does not say."""
    if places.is_others(place):
        return stable_diffusion.as_config(place, like, key)
    return places.options_of(place)


def check_same(config: ConfigDict, base: ConfigDict, place: Path) -> None:
    """Checks that the config has the network of the base.

    Raises:
      ConfigError: names the first key that differs.
    """
    theirs = dict(config_lib.leaves(base))
    for key, value in config_lib.leaves(config):
        if not resume.is_bound(key) or key in MAY_DIFFER or key.startswith(OF_THE_RUN):
            continue
        there = theirs.get(key, value)
        require(there == value, key, value, f"the base {place} was trained with {there!r}")
