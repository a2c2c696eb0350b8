"""LoRA: makes the task that changes a trained base, and the parameters that come of it."""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from diffjax.build import config as config_lib
from diffjax.build import places, resume, stable_diffusion
from diffjax.build.identity import identity
from diffjax.core import digest, trees
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.models import lora
from diffjax.tasks.lora import Adapted
from diffjax.tasks.task import Params, Task

# The section that only such configs have.
SECTION, BASE = "lora", "lora.base"
# Values of lora.base that are no places.
SHIPPED, UNTRAINED = "shipped", "untrained"
# Words of lora.targets that stand for patterns of paths.
TARGETS = {
    "attention": r"(.*/)?(\w*attention\w*|self|cross|pixels|text)/(?!proj_)(\w+_)?"
    r"(q|k|v|kv|qkv|out)/kernel",
    "feed_forward": r"(.*/)?(feed\w*|mlp\w*)/(.*/)?kernel",
}
# Keys of the sections of a network that may differ from the base's.
MAY_DIFFER = (
    "text.drop", "text.width", "tokens.drop", "classes.drop", "embedding.drop", "mask.drop",
    "mask.strokes",
    "low_res.max_aug_level", "diffusion.weighting", "diffusion.times", "diffusion.num_levels",
    *resume.FREE,
)  # fmt: skip
# Keys to which a checkpoint is bound that say nothing of the network.
OF_THE_RUN = ("train.", "optim.", "lora.")
MOST_NAMED = 6  # kernels that a message lists


class Base(NamedTuple):
    """The network that is changed: NumPy arrays, and a digest of them and of its config."""

    params: Params
    checkpoint: str


def adapted(config: ConfigDict, task: Task) -> Task:
    """The task that trains low-rank changes of `task`; `task` itself if the config has none.

    Raises:
      ConfigError: the base is missing, of another network or another one than the run began with,
        or a target matches no kernel.
      StorageError: the base is damaged.
    """
    if SECTION not in config:
        return task
    options, bare = config.lora, without_base(config, task)
    base = base_of(config, task)
    known = options.checkpoint
    require(
        known in ("", base.checkpoint),
        BASE,
        options.base,
        f"is another one than the run began with: its digest is {base.checkpoint[:12]}, that one's "
        f"was {known[:12]}; bring it back, or begin in a new workdir",
    )
    frozen = {"base": base.params, "own": task.frozen}
    return dataclasses.replace(bare, checkpoint=base.checkpoint, frozen=frozen)


def without_base(config: ConfigDict, task: Task) -> Adapted:
    """The task of `adapted` before it has a base, which only knows the shapes of what is trained.

    Raises:
      ConfigError: a target matches no kernel.
    """
    options = config.lora
    return Adapted(
        of=dataclasses.replace(task, frozen={}),  # type: ignore[type-var]
        rank=options.rank,
        alpha=options.alpha or float(options.rank),
        targets=targets_of(config, task),
        prior_weight=options.prior_weight if options.prior else None,
        checkpoint=options.checkpoint,
    )


def as_begun(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config with the digest of the base that a run in the workdir was begun with, if any."""
    if SECTION not in config or config.lora.checkpoint:
        return config
    return with_checkpoint(config, str(resume.begun(workdir).get("lora.checkpoint", "")))


def with_checkpoint(config: ConfigDict, checkpoint: str) -> ConfigDict:
    """The config with this digest of its base."""
    new = config.copy_and_resolve_references()
    with new.unlocked():
        new.lora.checkpoint = checkpoint
    return new


def targets_of(config: ConfigDict, task: Task) -> tuple[str, ...]:
    """The paths of the kernels that change, in the order of the network.

    Raises:
      ConfigError: a target matches none.
    """
    shapes = trees.named_leaves(jax.eval_shape(task.init, jax.random.key(0)))
    kernels = [name for name, leaf in shapes.items() if lora.is_kernel(name, leaf.shape)]
    found: set[str] = set()
    for target in config.lora.targets:
        pattern = TARGETS.get(target, target)
        matched = [name for name in kernels if re.fullmatch(pattern, name)]
        some = ", ".join(kernels[:: max(len(kernels) // MOST_NAMED, 1)][:MOST_NAMED])
        words = " or ".join(TARGETS)
        require(
            bool(matched),
            "lora.targets",
            target,
            f"matches no kernel of {task.name}; want {words}, or a pattern of whole paths such as "
            f"{some}",
        )
        found |= set(matched)
    return tuple(name for name in kernels if name in found)


def base_of(config: ConfigDict, task: Task) -> Base:
    """The parameters of the base, and their digest.

    Raises as `adapted` does.
    """
    where = config.lora.base
    if where == UNTRAINED:
        params = jax.jit(task.init)(jax.random.key(config.seed))
        whose = identity(config)
    else:
        place = place_of(config)
        options = options_of(place, config)
        check_same(config, options, place)
        if places.is_others(place):
            params, whose = stable_diffusion.params_of(place, BASE)
        else:
            params, _, _ = params_of(options, place, task, None)
            whose = identity(options)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    return Base(params, digest.digest_of(params, whose))


def place_of(config: ConfigDict) -> Path:
    """The workdir or the export of the base: the stage of the same name, if there are several.

    Raises:
      ConfigError: there is none.
    """
    where = config.lora.base
    named = f"name a workdir, an export, a Stable Diffusion or {SHIPPED}"
    require(bool(where.strip()), BASE, where, named)
    try:
        found = places.stage_dirs(None if where == SHIPPED else path(where))
    except ConfigError as error:
        raise ConfigError(BASE, where, str(error).rpartition(": ")[2]) from None
    same = [one for one in found if options_of(one, config).stage == config.stage]
    require(bool(same), BASE, where, f"has no stage {config.stage}")
    return same[0]


def options_of(place: Path, like: ConfigDict) -> ConfigDict:
    """The config of a base. like: has what a Stable Diffusion of others does not say."""
    if places.is_others(place):
        return stable_diffusion.as_config(place, like, BASE)
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


def params_of(
    options: ConfigDict,
    place: Path,
    task: Task,
    name: str | None,
    verify: str = "full",
    step: int | None = None,
) -> tuple[Params, int | str, str]:
    """`places.params_of`, merged into the parameters of the base if the stage is a LoRA.

    Raises what that does and what `adapted` does.
    """
    changes = adapted(options, task)
    params, found, average = places.params_of(options, place, changes, name, verify, step)
    if isinstance(changes, Adapted):
        params = jax.jit(lambda changes, params: changes.merged(params))(changes, params)
    return params, found, average
