"""The weights that a run begins with: those of a trained stage of the same network.

A stage that fills holes may begin with one that does not (Nichol et al. 2022, sec. 3.2): its stem
has more input channels, whose weights begin at zero. A decoder may begin with a stage that is told
no vector (Ramesh et al. 2022 tell GLIDE's base one): the weights that read the vector begin at zero
too. A network whose answer is finished (`model.finish`) may begin with one whose answer is not: its
last layers are new, and say nothing at first. An autoencoder may begin with any that
`autoencoders.opened` knows; what is learned beside it, such as a discriminator, is new.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from diffjax.build import tasks
from diffjax.build.inputs import texts
from diffjax.build.kinds import autoencoding, lora
from diffjax.build.options import resume
from diffjax.build.others import ancestors
from diffjax.build.stages import autoencoders, bases, places
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.core.trees import Params, PyTree, named_leaves
from diffjax.tasks.autoencoding import Autoencoding
from diffjax.tasks.task import Task

# The section that only configs with such a choice have.
SECTION, BASE = "start", "start.base"
STEM = "stem/kernel"
FINISH = "finish"  # `models/layers/finish.py`
# What reads the vector of a picture (`layers/embedding.py: Conditioning`).
READS_VECTOR = re.compile(r"conditioning/vector(_norm|_tokens)?/(kernel|bias|scale)")
COLOURS = 3  # channels of a picture


def base_of(config: ConfigDict) -> str:
    """The place whose weights a run begins with; "" for new weights."""
    return str(config.start.base).strip() if SECTION in config else ""


def check(config: ConfigDict, workdir: Path | None) -> None:
    """Checks the base of a run that has not begun, before anything is loaded.

    Raises:
      ConfigError: there is no such place, or its stage has another network.
    """
    if not base_of(config) or (workdir is not None and resume.begun(workdir)):
        return
    if autoencoding.SECTION in config:
        autoencoder_of(config)
        return
    place = place_of(config)
    if not places.is_others(place):
        bases.check_same(config, places.options_of(place), place)


def place_of(config: ConfigDict) -> Path:
    """The workdir, export or file of the base: the stage of the same size, if there are several.

    Raises:
      ConfigError: there is none.
    """
    where = base_of(config)
    try:
        found = places.stage_dirs(None if where == bases.SHIPPED else path(where))
    except ConfigError as error:
        raise ConfigError(BASE, where, str(error).rpartition(": ")[2]) from None
    if places.is_others(found[0]):
        return found[0]
    sizes = [places.options_of(one).data.size_px for one in found]
    side = config.data.size_px
    require(side in sizes, BASE, where, f"makes pictures of {sizes} px, and this stage of {side}")
    return found[sizes.index(side)]


def params_of(config: ConfigDict, task: Task) -> Params:
    """The weights that the run of a task begins with, as NumPy arrays.

    Raises:
      ConfigError: there is none, or it has another network.
      StorageError: its checkpoint is damaged.
    """
    if isinstance(task, Autoencoding):
        return _with_autoencoder(config, task)
    place = place_of(config)
    if places.is_others(place):
        found, said = ancestors.load_stage(place)[0].params, f"begins with the weights of {place}"
    else:
        options = places.options_of(place)
        bases.check_same(config, options, place)
        of_base = tasks.trained_task_of(options, texts.text_width_of(options))
        found, step, average = lora.params_of(options, place, of_base, config.start.average or None)
        said = f"begins with the weights of step {step} of {place}, {average}"
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), found)
    wanted = jax.eval_shape(task.init, jax.random.key(0))
    if FINISH in wanted and FINISH not in params:
        new = jax.jit(lambda key: task.init(key)[FINISH])(jax.random.key(config.seed))
        params = {**params, FINISH: jax.tree.map(np.asarray, new)}
    try:
        begun = fitted(params, wanted, config.model.get("patch", 1))
    except ValueError as error:
        raise ConfigError(BASE, str(place), str(error)) from None
    print(said, flush=True)
    return begun


def autoencoder_of(config: ConfigDict) -> autoencoders.Opened:
    """The autoencoder that the training of one begins with.

    Raises:
      ConfigError: there is none, or it has other sizes.
    """
    where = base_of(config)
    try:
        found = autoencoders.opened(where, config.start.average or None)
    except ConfigError as error:
        raise ConfigError(BASE, where, str(error).split(": ", 2)[-1]) from None
    wanted = autoencoders.plain(autoencoding.model_of(config).sizes)
    for name, size in asdict(wanted).items():
        there = asdict(found.sizes)[name]
        require(
            there == size, BASE, where, f"is another network: its {name} is {there}, not {size}"
        )
    return found


def _with_autoencoder(config: ConfigDict, task: Autoencoding) -> Params:
    found = autoencoder_of(config)
    new = jax.jit(task.init)(jax.random.key(config.seed))
    print(f"begins with the weights of {found.name} in {base_of(config)}", flush=True)
    begun = jax.tree.map(lambda x: np.asarray(x, np.float32), found.params)
    return {**jax.tree.map(np.asarray, new), "autoencoder": begun}


def fitted(params: Params, wanted: PyTree, patch: int = 1) -> Params:
    """The parameters with the shapes `wanted`, the weights of what is new being zero.

    New channels lie behind those of the noisy picture and before those of a smaller one.

    Raises:
      ValueError: a parameter is missing, or has another shape than that allows; names it.
    """
    shapes = named_leaves(wanted)
    params = told_vectors(params, shapes)
    there = named_leaves(params)
    if missing := sorted(set(there) ^ set(shapes)):
        raise ValueError(f"is another network: only one of the two has {missing[0]}")
    if STEM in shapes and there[STEM].shape != shapes[STEM].shape:
        kernel = widened(there[STEM], shapes[STEM].shape, patch)
        params = {**params, "stem": {**params["stem"], "kernel": kernel}}
        there[STEM] = kernel
    for name, leaf in shapes.items():
        if there[name].shape != leaf.shape:
            raise ValueError(f"is another network: its {name} is {there[name].shape}, "
                             f"want {leaf.shape}")  # fmt: skip
    return params


def told_vectors(params: Params, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Params:
    """The parameters with those that read a vector, if `shapes` has them and they have not."""
    if any(READS_VECTOR.fullmatch(name) for name in named_leaves(params)):
        return params
    conditioning = dict(params.get("conditioning", {}))
    for name, leaf in shapes.items():
        if READS_VECTOR.fullmatch(name):
            _, layer, last = name.split("/")
            value = np.full(leaf.shape, last == "scale", np.float32)
            conditioning[layer] = {**conditioning.get(layer, {}), last: value}
    return {**params, "conditioning": conditioning} if conditioning else params


def widened(kernel: np.ndarray, wanted: tuple[int, ...], patch: int) -> np.ndarray:
    """A stem's kernel [3 3 c d] for more input channels; the kernel itself if it has as many.

    With patches, each of the patch x patch pixels has its channels one after the other.
    """
    height, width, inputs, out = kernel.shape
    more = (wanted[2] - inputs) // patch**2
    if more <= 0 or (height, width, out) != (wanted[0], wanted[1], wanted[3]):
        return kernel
    by_pixel = kernel.reshape(height, width, patch**2, -1, out)
    new = np.zeros((height, width, patch**2, more, out), kernel.dtype)
    parts = (by_pixel[..., :COLOURS, :], new, by_pixel[..., COLOURS:, :])
    return np.concatenate(parts, axis=3).reshape(height, width, -1, out)
