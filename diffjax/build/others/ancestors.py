"""Makes stages of DDPMs of others: OpenAI's files, and folders of diffusers' UNet2DModel.

OpenAI's are those of improved DDPM, ADM and GLIDE.
"""

import json
from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffjax.build import models, tasks
from diffjax.build.options import config
from diffjax.core import digest, tensorfile
from diffjax.core.errors import ConfigError, require
from diffjax.core.json_types import JsonObject
from diffjax.core.trees import Params
from diffjax.devices import mesh
from diffjax.diffusion import table
from diffjax.diffusion.sampling import spacing
from diffjax.encoders import tokens
from diffjax.encoders.ancestors import diffusers, openai
from diffjax.encoders.ancestors.openai import Facts
from diffjax.encoders.t5 import default_dtype
from diffjax.encoders.tokens import TokenReader
from diffjax.generation.chain import TrainedStage
from diffjax.generation.recipe import FROM_A_FILE, Origin
from diffjax.models.layers import convolve
from diffjax.models.layers.attention import fastest_implementation
from diffjax.models.unet import UNet
from diffjax.tasks.conditions import Class, Tokens
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import Learning
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Model

FLAG = "--checkpoint"
NAME = "ddpm"
# The configs whose presets OpenAI's released files are tried with, in this order.
KNOWN = ("adm", "iddpm", "ddpm", "glide64", "glide256", "glide_inpaint")


class Place(NamedTuple):
    """A file or folder, and the config that a person said for it; "" for none."""

    spec: str
    path: Path


def place_of(place: Path) -> Place:
    """CONFIG=FILE as its parts: "configs/adm.py:64=model.pt"."""
    spec, equals, file = str(place).partition("=")
    if not equals or place.exists():
        return Place("", place)
    return Place(spec, Path(file).expanduser())


def is_one(place: Path) -> bool:
    """Whether the place is such a file or folder, as far as its name or first bytes say."""
    path = place_of(place).path
    if path.is_dir():
        return diffusers.is_one(path)
    if path.suffix in openai.SUFFIXES:
        return True
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        return openai.STEM in tensorfile.shapes(path)
    except (ValueError, OSError):
        return False


def load_stage(place: Path) -> tuple[TrainedStage, Origin]:
    """The stage of a place, with its parameters on every device that samples.

    Raises:
      ConfigError: there is none, or its config is another network's; one line that says why.
    """
    spec, path = place_of(place)
    try:
        task, params = of_folder(path) if path.is_dir() else of_file(path, spec)
    except (ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(FLAG, str(place), str(error).removeprefix(f"{path}: ")) from None
    origin = Origin(
        name=task.name,
        size_px=task.size_px,
        step=None,
        average=FROM_A_FILE,
        checkpoint=digest.digest_of(params, said_of(task)),
    )
    everywhere = mesh.replicated(mesh.make_mesh(devices=mesh.sampling_devices()))
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    print(f"{task.name}: {path}, {task.size_px} px, {task.predict}")
    return TrainedStage(task, jax.device_put(single, everywhere), task.settings), origin


def reads_of(place: Path, task: Denoising) -> TokenReader | None:
    """What reads texts for such a stage: the vocabulary beside its file, or GPT-2's; None for none.

    Raises:
      ConfigError: there is no vocabulary, or it is another one.
    """
    told, words = task.condition(Tokens), cast(UNet, task.model).words
    if told is None or words is None:
        return None
    name = tokens.beside(place_of(place).path)
    try:
        units = tokens.load(name)
    except ValueError as error:
        raise ConfigError(FLAG, str(place), f"its vocabulary: {error}") from None
    right = units.vocabulary == words.vocabulary
    require(right, FLAG, str(place), f"knows {words.vocabulary:,} token ids, and the vocabulary "
            f"{name} has {units.vocabulary:,}; put {tokens.FILES[0]} beside it")  # fmt: skip
    return TokenReader(name, told.length, units)


def said_of(task: Denoising) -> JsonObject:
    """What beside the numbers of its parameters says what a network answers."""
    model = task.model
    assert isinstance(model, UNet)
    told = (model.num_heads, model.head_width, model.heads_first, model.norm_groups, model.norm_eps)
    made: JsonObject = json.loads(json.dumps([*told, repr(task.schedule), task.predict]))
    return {"told": made}


def of_file(path: Path, spec: str) -> tuple[Denoising, Params]:
    """The task and the parameters of a file of OpenAI's.

    Raises:
      ValueError: the file is damaged or of something else, or does not fit its config.
    """
    stored = openai.read(path)
    facts = openai.facts_of(stored, path)
    options = config.load(spec) if spec else preset_of(facts, path)
    options = options.copy_and_resolve_references()
    name = f"{options.stage} of {spec}" if spec else options.stage
    wanted = facts_of_config(options, name)
    if wrong := openai.difference(facts, wanted):
        raise ValueError(f"{path}: {wrong} ({name})")
    with options.unlocked():
        options.model.dtype = jnp.dtype(_dtype()).name
    task = tasks.task_of(options, 0)
    model = cast(UNet, task.model)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return task, openai.params_of(model, shapes, stored, path)


def preset_of(facts: Facts, path: Path) -> ConfigDict:
    """The first preset of KNOWN with a network of these facts.

    Raises:
      ValueError: there is none.
    """
    for name in KNOWN:
        for preset in config.presets_of(name):
            options = config.load(f"{name}:{preset}")
            if not openai.difference(facts, facts_of_config(options, name)):
                return options
    raise ValueError(
        f"{path}: has levels of {' '.join(map(str, facts.widths))} channels, as no preset of "
        f"configs/adm.py, iddpm.py or glide64.py; say its config: {FLAG} CONFIG.py:PRESET={path}"
    )


def facts_of_config(options: ConfigDict, name: str) -> Facts:
    """The facts of the network of a config.

    Raises:
      ValueError: the config has another kind of network, or is told a text.
    """
    if options.model.get("kind") != "unet" or "text" in options or "latent" in options:
        raise ValueError(f"{name}: its network is none of OpenAI's U-Nets: see configs/adm.py")
    channels = 3
    model = cast(UNet, models.model_of(options))
    small = "low_res" in options and options.low_res.size_px
    inputs = 2 * channels if small else channels
    inputs += channels + 1 if "mask" in options else 0
    return openai.facts_of_model(model, inputs, model.out_channels or channels)


def of_folder(path: Path) -> tuple[Denoising, Params]:
    """The task and the parameters of a folder of diffusers.

    Raises:
      ValueError: it is another network, or damaged.
    """
    one = diffusers.load(path)
    noise = one.scheduler
    schedule = noise.schedule()
    dtype = _dtype()
    model = one.model.clone(
        steps=table.steps_of(spacing.on_grid(schedule)),
        dtype=dtype,
        attention_implementation=fastest_implementation(dtype),
        convolution=convolve.fastest_convolution(),
    )
    learned = noise.sampler == "ddpm_learned"
    classes = (Class(model.num_classes, null=False),) if model.num_classes else ()
    task = Denoising(
        name=NAME,
        model=cast(Model, model),
        shape=(one.side, one.side, one.inputs),
        conditions=classes,
        schedule=schedule,
        predict=noise.predict,
        weighting=noise.predict,
        settings=SampleSettings(
            num_steps=spacing.table_steps(schedule) if noise.sampler.startswith("ddpm") else 50,
            sampler=noise.sampler,
            noise=noise.noise,
            spacing=noise.spacing,
            threshold="static" if one.clips else "none",
        ),
        learning=Learning(objective="hybrid" if learned else "simple"),
    )
    return task, one.params


def _dtype() -> jnp.dtype:
    return jnp.dtype(default_dtype(mesh.sampling_devices()[0].platform))
