"""Makes the stage of a Stable Diffusion of others: its task, parameters, settings and text."""

import dataclasses
import json
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax.build import noise as noises
from diffjax.build.kinds import latents
from diffjax.build.stages import autoencoders, places
from diffjax.core import digest
from diffjax.core.errors import ConfigError, require
from diffjax.core.json_types import JsonObject
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


def load_checkpoint(where: Path, key: str = FLAG) -> Checkpoint:
    """The checkpoint, with errors as those of a flag or a key of a config.

    Raises:
      ConfigError: there is none; one line that says what is wrong.
    """
    try:
        return checkpoint.load(where)
    except (ValueError, OSError) as error:
        raise ConfigError(key, str(where), str(error).removeprefix(f"{where}: ")) from None


def load(where: Path) -> Cascade:
    """The stage of a checkpoint, with its parameters on every device that samples.

    Raises:
      ConfigError: as `load_checkpoint`.
    """
    one = load_checkpoint(where)
    texts = encoder.text_encoder(one, f"{encoder.PREFIX}{where.name}")
    made = {"unet": one.unet.params, WEIGHTS: one.autoencoder.params}
    origin = Origin(
        name=NAME,
        size_px=one.size_px,
        step=None,
        average=FROM_A_FILE,
        checkpoint=digest.digest_of(made, noise_of(one)),
    )
    everywhere = mesh.replicated(mesh.make_mesh(devices=mesh.sampling_devices()))
    frozen = {WEIGHTS: one.autoencoder.params, NO_TEXT: no_text(texts)}
    task = task_of(one, jax.device_put(single(frozen), everywhere))
    params: Params = jax.device_put(single(one.unet.params), everywhere)
    print(f"{NAME}: {where}, {one.size_px} px, {task.predict}")
    return Cascade((TrainedStage(task, params, task.settings),), (origin,), texts)


def as_config(where: Path, like: ConfigDict, key: str) -> ConfigDict:
    """The config of a stage with the networks and the noise of a checkpoint, else as `like`.

    key: names the place, for messages.

    Raises:
      ConfigError: as `load_checkpoint`; or no config can say the noise of the checkpoint.
    """
    one = load_checkpoint(where, key)
    net, noise, sizes = one.unet.model, one.scheduler, one.autoencoder.sizes
    made = like.copy_and_resolve_references().unlock()
    made.stage = NAME
    made.data.update(size_px=one.size_px, crop_px=0)
    made.text.update(
        encoder=f"{encoder.PREFIX}{where}", width=one.unet.text, max_tokens=one.tokens.length
    )
    made.latent.update(
        autoencoder=f"{autoencoders.DIFFUSERS}{where / 'vae' if where.is_dir() else where}",
        factor=sizes.factor, channels=sizes.latent, scale=(one.autoencoder.scale,), shift=(0.0,),
    )  # fmt: skip
    made.model.update(
        kind="latent_unet", width=net.width, mults=tuple(net.mults), num_blocks=net.num_blocks,
        attention_levels=tuple(net.attention_levels), num_heads=net.num_heads,
        head_width=net.head_width, depth=net.depth, groups=net.groups,
    )  # fmt: skip
    made.diffusion.update(
        schedule=noise.betas, zero_snr=noise.zero_snr, predict=noise.predict,
        weighting=noise.predict,
    )  # fmt: skip
    said = dataclasses.asdict(settings_of(one))
    made.sample.update({name: value for name, value in said.items() if name in made.sample})
    u = jnp.linspace(0.0, 1.0, 5)
    same = np.allclose(noises.schedule_of(made)(u), noise.schedule()(u), atol=1e-3)
    betas = f"{noise.betas} betas from {noise.beta_min:g} to {noise.beta_max:g}"
    require(same, key, str(where), f"has {betas}, which no config can say: only draw with it")
    return made


def params_of(where: Path, key: str) -> tuple[Params, JsonObject]:
    """(the parameters of the network of a checkpoint, what pictures depend on beside them).

    Raises as `load_checkpoint` does.
    """
    one = load_checkpoint(where, key)
    return one.unet.params, noise_of(one)


def noise_of(one: Checkpoint) -> JsonObject:
    """The settings of its scheduler as JSON."""
    return json.loads(json.dumps(dataclasses.asdict(one.scheduler)))


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
    """How diffusers samples it by default."""
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
