"""Merges LoRA files into loaded stages, and exports what a run has trained as such a file."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from diffjax.build import tasks
from diffjax.build.inputs import texts
from diffjax.build.kinds import lora
from diffjax.build.options import config
from diffjax.build.stages import places
from diffjax.core import trees
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.core.files import storing
from diffjax.encoders import lora_files
from diffjax.encoders.lora_files import Layer, LoraFile
from diffjax.encoders.stable_diffusion import names, unet
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.recipe import LORA_WEIGHT, MAX_LORAS, Lora, Recipe
from diffjax.models import lora as matrices
from diffjax.models.latent_unet import LatentUNet
from diffjax.tasks.task import Params, Task

FLAG = "--lora"
NO_FILE = "there is no such file; python -m diffjax.lora export WORKDIR --out FILE writes one"
# What our own files say of themselves in the metadata.
ABOUT = "diffjax_lora"


class Given(NamedTuple):
    """A file as a flag names it. weight: None if the flag has none."""

    path: Path
    weight: float | None


def parse(text: str) -> Given:
    """Parses "FILE" or "FILE:WEIGHT".

    Raises:
      ConfigError: the weight is out of range.
    """
    name, colon, end = text.rpartition(":")
    try:
        weight = float(end) if colon else None
    except ValueError:
        weight = None
    if weight is None:
        return Given(path(text), None)
    low, high = LORA_WEIGHT
    fits = math.isfinite(weight) and low <= weight <= high
    require(fits, FLAG, text, f"want a weight from {low:g} to {high:g}, as in FILE:0.8")
    return Given(path(name), weight)


def read(given: Sequence[Given]) -> list[LoraFile]:
    """The files.

    Raises:
      ConfigError: there are too many, or one is no LoRA file or is damaged.
    """
    require(len(given) <= MAX_LORAS, FLAG, len(given), f"at most {MAX_LORAS}")
    return [_read(one.path) for one in given]


def _read(place: Path) -> LoraFile:
    try:
        return lora_files.read(place)
    except (ValueError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, FileNotFoundError):
            why = NO_FILE
        raise ConfigError(FLAG, str(place), why.removeprefix(f"{place}: ")) from None


def merged(cascade: Cascade, given: Sequence[Given], like: Recipe | None = None) -> Cascade:
    """The cascade with W + sum_i weight_i alpha_i / r_i B_i A_i in the place of each W.

    A file goes into the stage that has all of its layers. like: the recipe of a picture, which
    says the weights that `given` does not; else these are 1.

    Raises:
      ConfigError: a file is no LoRA file, is damaged, or is of another network.
    """
    if not given:
        return cascade
    known = {} if like is None else {x.digest: x.weight for o, _ in like.stages for x in o.loras}
    stages, origins = list(cascade.stages), list(cascade.origins)
    sums: dict[int, dict[str, np.ndarray]] = {}
    for one, file in zip(given, read(given), strict=True):
        weight = known.get(file.digest, 1.0) if one.weight is None else one.weight
        at, changes = _fitting(file, stages)
        if file.of_text:
            print(f"{file.path}: {file.of_text} layers of a text encoder are left out", flush=True)
        total = sums.setdefault(at, {})
        for name, change in changes.items():
            total[name] = total.get(name, 0.0) + weight * change
        used = (*origins[at].loras, Lora(file.digest, weight))
        origins[at] = dataclasses.replace(origins[at], loras=used)
        print(f"{stages[at].task.name}: {file.path} * {weight:g}", flush=True)
    for at, total in sums.items():
        stages[at] = dataclasses.replace(stages[at], params=_added(stages[at].params, total))
    return dataclasses.replace(cascade, stages=tuple(stages), origins=tuple(origins))


def check_like(recipe: Recipe, cascade: Cascade) -> None:
    """Checks that the files merged into the stages are those of the picture.

    Raises:
      ConfigError: they are others, or have other weights; names one.
    """
    for (was, _), now in zip(recipe.stages, cascade.origins, strict=True):
        if was.loras == now.loras:
            continue
        told = [f"{one.digest[:12]} * {one.weight:g}" for one in was.loras]
        here = [f"{one.digest[:12]} * {one.weight:g}" for one in now.loras]
        raise ConfigError(
            "--like",
            " + ".join(told) or "no LoRA",
            f"was merged into {was.name}, here is {' + '.join(here) or 'none'}; name the files in "
            f"their order with {FLAG} FILE, or --anyway takes these",
        )


def _fitting(file: LoraFile, stages: Sequence[TrainedStage]) -> tuple[int, dict[str, np.ndarray]]:
    """The first stage that has all layers of the file, and what changes there."""
    faults = []
    for at, stage in enumerate(stages):
        try:
            found = lora_files.changes(file, kernels_of(stage.params), sources_of(stage.task))
        except ValueError as error:
            faults.append(f"{stage.task.name}: {str(error).removeprefix(f'{file.path}: ')}")
        else:
            return at, found
    raise ConfigError(FLAG, str(file.path), f"is of another network; {'; '.join(faults)}")


def kernels_of(params: Params) -> dict[str, tuple[int, ...]]:
    """The shapes of the kernels that a file may change, by their paths."""
    leaves = trees.named_leaves(params).items()
    return {name: tuple(x.shape) for name, x in leaves if matrices.is_kernel(name, x.shape)}


def sources_of(task: Task) -> lora_files.Sources:
    """What the layers of a network are called in files: those of latent U-Nets as in diffusers."""
    model = getattr(task, "model", None)
    if not isinstance(model, LatentUNet):
        return lora_files.ours
    shape = unet.shape_of(model, linear=not model.num_heads)
    return lambda name, _: names.source_of("diffusers", name, shape)


def _added(params: Params, changes: Mapping[str, np.ndarray]) -> Params:
    """The parameters with these changes, where they lay before."""

    def one(name: str, leaf: jax.Array) -> jax.Array:
        if name not in changes:
            return leaf
        summed = np.asarray(leaf, np.float64) + changes[name]
        return jax.device_put(summed.astype(leaf.dtype), leaf.sharding)

    return trees.map_named(one, params)


def export(
    place: Path, out: Path, layout: lora_files.Layout, name: str | None, step: int | None
) -> str:
    """Writes what a run of configs/lora.py has trained as a file; returns a line about it.

    The base is not read. name, step: of the average and the checkpoint, see `places.params_of`.

    Raises:
      ConfigError: the run trains no LoRA, or has no such average or no checkpoint.
      StorageError: the checkpoint is damaged, or the disk is full.
    """
    options = places.options_of(place)
    is_one = lora.SECTION in options
    require(is_one, "WORKDIR", str(place), "trains no LoRA, but a whole network")
    with config.interpreting(place):
        task = tasks.trained_task_of(options, texts.text_width_of(options))
        changes = lora.without_base(options, task)
    params, found, average = places.params_of(options, place, changes, name, step=step)
    shapes = trees.named_leaves(places.params_shape(task))
    flat = trees.named_leaves(params)
    layers: dict[str, Layer] = {}
    for target in changes.targets:
        a, b = (np.asarray(flat[f"{target}/{part}"]) for part in (matrices.A, matrices.B))
        shape = tuple(shapes[target].shape)
        layers |= lora_files.layers_of(target, a, b, shape, changes.alpha, sources_of(task))
    about = {
        "stage": options.stage, "base": changes.checkpoint, "step": str(found), "average": average
    }  # fmt: skip
    with storing(out):
        metadata = {ABOUT: json.dumps(about), **_for_kohya(changes.rank, changes.alpha)}
        digest = lora_files.write(out, layers, layout, metadata)
    return (
        f"{out}: {len(layers)} layers of {options.stage}, rank {changes.rank}, step {found}, "
        f"{average}, sha256 {digest[:12]}"
    )


def _for_kohya(rank: int, alpha: float) -> dict[str, str]:
    """What programs that read kohya's files show of one."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
    }


def described(file: LoraFile) -> list[str]:
    """Lines about a file, the first of the whole."""
    ranks = sorted({layer.rank for layer in file.layers.values()})
    lines = [f"{file.path}: {len(file.layers)} layers, rank {', '.join(map(str, ranks))}"]
    lines.append(f"sha256 {file.digest}")
    if about := file.metadata.get(ABOUT):
        lines.append(f"made by diffjax: {about[:400]}")
    if file.of_text:
        lines.append(f"{file.of_text} layers of a text encoder, which are left out")
    for name, layer in file.layers.items():
        size = float(np.linalg.norm(layer.change()))
        lines.append(f"  {name}: rank {layer.rank}, alpha {layer.alpha:g}, norm {size:.3g}")
    return lines
