"""Makes the stage of a Stable Diffusion of others: its task, parameters, settings and text."""

import dataclasses
import json
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp

from diffjax.build import latents, places
from diffjax.core import digest
from diffjax.core.errors import ConfigError
from diffjax.core.trees import Params, PyTree
from diffjax.devices import mesh
from diffjax.diffusion import table
from diffjax.diffusion.sampling import spacing
from diffjax.encoders.stable_diffusion import checkpoint, encoder
from diffjax.encoders.stable_diffusion.checkpoint import Checkpoint
from diffjax.encoders.t5 import TextEncoder, default_dtype
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.recipe import FROM_A_FILE, Origin
from diffjax.models.layers import convolve
from diffjax.models.layers.attention import fastest_implementation
from diffjax.tasks.conditions import NO_TEXT, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.space import LATENT, WEIGHTS, Space
from diffjax.tasks.task import Model

FLAG = "--checkpoint"
NAME = "stable_diffusion"
# Those of diffusers' pipeline; and captions were left out in this share of its training.
STEPS, GUIDANCE, DROP = 50, 7.5, 0.1
TILE_PX = 1024  # larger pictures are decoded in tiles


def check_place(where: Path) -> None:
    """Checks that there is a checkpoint of Stable Diffusion, before anything is loaded.

    Raises:
      ConfigError: there is something else, or nothing.
    """
    if places.is_others(where):
        return
    load_checkpoint(where)  # it says what is wrong
    raise ConfigError(FLAG, str(where), "is no checkpoint of Stable Diffusion")


def load_checkpoint(where: Path) -> Checkpoint:
    """The checkpoint, with errors as those of a flag.

    Raises:
      ConfigError: there is none; one line that says what is wrong.
    """
    try:
        return checkpoint.load(where)
    except (ValueError, OSError) as error:
        raise ConfigError(FLAG, str(where), str(error).removeprefix(f"{where}: ")) from None


def load(where: Path) -> Cascade:
    """The stage of a checkpoint, with its parameters on every device that samples.

    Raises:
      ConfigError: as `load_checkpoint`.
    """
    one = load_checkpoint(where)
    texts = encoder.text_encoder(one, f"{encoder.PREFIX}{where.name}")
    made = {"unet": one.unet.params, WEIGHTS: one.autoencoder.params}
    said = json.loads(json.dumps(dataclasses.asdict(one.scheduler)))
    origin = Origin(
        name=NAME,
        size_px=one.size_px,
        step=None,
        average=FROM_A_FILE,
        checkpoint=digest.digest_of(made, said),
    )
    everywhere = mesh.replicated(mesh.make_mesh(devices=mesh.sampling_devices()))
    frozen = {WEIGHTS: one.autoencoder.params, NO_TEXT: no_text(texts)}
    task = task_of(one, jax.device_put(single(frozen), everywhere))
    params: Params = jax.device_put(single(one.unet.params), everywhere)
    print(f"{NAME}: {where}, {one.size_px} px, {task.predict}")
    return Cascade((TrainedStage(task, params, task.settings),), (origin,), texts)


def task_of(one: Checkpoint, frozen: PyTree) -> Denoising:
    """The task that a checkpoint was trained for."""
    side, channels = one.unet.side, one.unet.model.out_channels
    return Denoising(
        name=NAME,
        model=model_of(one),
        shape=(side, side, channels),
        conditions=(Text(one.unet.text, one.tokens.length, DROP, embeds_blank=True),),
        schedule=one.scheduler.schedule(),
        predict=one.scheduler.predict,
        weighting=one.scheduler.predict,
        settings=settings_of(one),
        of=LATENT,
        space=Space(
            latents.model_of(one.autoencoder.sizes), scale=(one.autoencoder.scale,), tile_px=TILE_PX
        ),
        frozen=frozen,
    )


def model_of(one: Checkpoint) -> Model:
    """The network, which is told the steps of the checkpoint's own noise schedule."""
    dtype = jnp.dtype(default_dtype(mesh.sampling_devices()[0].platform))
    steps = table.steps_of(spacing.on_grid(one.scheduler.schedule()))
    made = one.unet.model.clone(
        steps=steps,
        dtype=dtype,
        attention_implementation=fastest_implementation(dtype),
        convolution=convolve.fastest_convolution(),
    )
    return cast(Model, made)


def settings_of(one: Checkpoint) -> SampleSettings:
    """How diffusers samples it by default, but for its PNDM, whose place DDIM takes."""
    return SampleSettings(
        num_steps=STEPS,
        sampler=one.scheduler.sampler,
        noise=one.scheduler.noise,
        spacing=one.scheduler.spacing,
        guidance_weight=GUIDANCE,
        threshold="none",
    )


def no_text(texts: TextEncoder) -> jax.Array:
    """The embedding [l d] of the empty text."""
    return texts.encode([""], texts.max_length)[0][0].astype(jnp.float32)


def single(params: PyTree) -> PyTree:
    """The parameters in float32, also those that are stored in half precision."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
