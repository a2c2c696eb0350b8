"""LoRA: makes the task that changes a trained base, and the parameters that come of it."""

import dataclasses
import re
from pathlib import Path

import jax
from ml_collections import ConfigDict

from diffjax.build.stages import bases, places
from diffjax.core import trees
from diffjax.core.errors import require
from diffjax.models import lora
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.lora import OF_THE_BASE, PICTURES, Adapted
from diffjax.tasks.task import Params, Task

# The section that only such configs have.
SECTION, BASE = "lora", "lora.base"
# Words of lora.targets that stand for patterns of paths.
TARGETS = {
    "attention": r"(.*/)?(\w*attention\w*|self|cross|pixels|text)/(?!proj_)(\w+_)?"
    r"(q|k|v|kv|qkv|out)/kernel",
    "feed_forward": r"(.*/)?(feed\w*|mlp\w*)/(.*/)?kernel",
}
MOST_NAMED = 6  # kernels that a message lists


def adapted(config: ConfigDict, task: Task) -> Task:
    """The task that trains low-rank changes of `task`; `task` itself if the config has none.

    Raises:
      ConfigError: the base is missing, of another network or another one than the run began with,
        or a target matches no kernel.
      StorageError: the base is damaged.
    """
    if SECTION not in config:
        return task
    bare = without_base(config, task)
    base = bases.base_of(config, task, BASE, read)
    bases.check_known(config, BASE, base, config.lora.checkpoint)
    frozen = {"base": base.params, "own": task.frozen}
    return dataclasses.replace(bare, checkpoint=base.checkpoint, frozen=frozen)


def without_base(config: ConfigDict, task: Task) -> Adapted:
    """The task of `adapted` before it has a base, which only knows the shapes of what is trained.

    Raises:
      ConfigError: a target matches no kernel, or the class shall lead to what no base says.
    """
    options = config.lora
    require(
        options.prior_target == PICTURES or isinstance(task, Denoising),
        "lora.prior_target",
        options.prior_target,
        f"is of stages that denoise, and {task.name} is none: want {PICTURES}",
    )
    return Adapted(
        of=dataclasses.replace(task, frozen={}),  # type: ignore[type-var]
        rank=options.rank,
        alpha=options.alpha or float(options.rank),
        targets=targets_of(config, task),
        prior_weight=options.prior_weight if options.prior else None,
        keeps=options.prior_target == OF_THE_BASE,
        checkpoint=options.checkpoint,
    )


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


def read(options: ConfigDict, place: Path, task: Task) -> Params:
    """The parameters of a base of our own, which may be a LoRA itself."""
    params, _, _ = params_of(options, place, task, None)
    return params


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
