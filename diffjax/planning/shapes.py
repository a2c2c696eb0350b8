"""A stage's steps with shapes in the place of arrays: all that a compiler needs to be told."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffjax.build import build
from diffjax.devices import mesh
from diffjax.diffusion.training.times import TIMES
from diffjax.tasks.denoising import Stage
from diffjax.tasks.sampling import compiled_stage
from diffjax.training import step
from diffjax.training.program import program_of
from diffjax.training.state import averaged


@dataclass(frozen=True)
class Work:
    """A jitted step, the shapes that it is called with, and what it is asked to compute.

    one_device: the jaxpr of what a device does at a time, on `rows` images, with nothing computed
    twice and not yet spread over devices.
    """

    jitted: Any
    arguments: tuple[Any, ...]
    batch: int
    place: build.Placement
    one_device: Any
    rows: int

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """What it runs on."""
        return self.place.mesh

    @property
    def params(self) -> Any:
        """The network's parameters, as shapes."""
        return self.place.state_shape.params


def training(options: ConfigDict, devices: list[Any]) -> Work:
    """The very step that training compiles: its function, its shardings, its donation."""
    program = program_of(options, text_width(options), devices)
    stage, place, batch = program.stage, program.place, options.data.batch_size
    side = options.data.crop_px or options.data.size_px
    shares = len(devices) // place.mesh.shape["tensor"]
    rows = batch // (shares * options.train.accumulate)
    loss = functools.partial(
        step.stage_loss,
        stage=dataclasses.replace(stage, model=_without_remat(options)),
        key=jax.random.key(0),
        weighting=options.diffusion.weighting,
        text_drop=options.text.drop,
        max_aug_level=options.low_res.max_aug_level,
        times=TIMES[options.diffusion.times],
    )
    gradient = jax.make_jaxpr(jax.grad(loss, has_aux=True))(
        _unplaced(place.state_shape.params), examples(stage, rows, side)
    )
    arguments = (place.state_shape, examples(stage, batch, side, program.batch_sharding))
    return Work(program.train_step, arguments, batch, place, gradient, rows)


def sampling(options: ConfigDict, devices: list[Any]) -> Work:
    """The sampler with the config's settings, a picture per device, parameters whole on each.

    So `diffjax.sample` does it: a guided step needs all of them for two rows of work, and to
    gather them anew for every step would take longer than the step.
    """
    options = options.copy_and_resolve_references()
    options.mesh.update(data=-1, fsdp=1, tensor=1)
    stage = build.stage_of(options, text_width(options))
    place = build.placement_of(options, stage, build.optimiser_of(options)[0], devices)
    sampler = compiled_stage(stage, build.settings_of(options))
    params, batch = averaged(place.state_shape, build.sampled_average(options)), len(devices)
    one_row = sampler.trace(_unplaced(params), *prompts(stage, 1)).jaxpr
    arguments = (params, *prompts(stage, batch, mesh.batch_sharding(place.mesh)))
    return Work(sampler, arguments, batch, place, one_row, 1)


def examples(stage: Stage, count: int, side: int, sharding=None) -> dict[str, Any]:
    """A training batch as shapes: pictures uint8, embeddings bfloat16, their lengths int32."""
    shape = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    return {
        "image": shape((count, side, side, 3), jnp.uint8),
        "text": shape((count, stage.max_tokens, stage.text_width), jnp.bfloat16),
        "text_length": shape((count,), jnp.int32),
    }


def prompts(stage: Stage, count: int, sharding=None) -> tuple[Any, ...]:
    """What `sampling.sample_stage` takes beside parameters: text, mask, keys, small pictures."""
    shape = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    side = stage.low_res_px
    return (
        shape((count, stage.max_tokens, stage.text_width), jnp.float32),
        shape((count, stage.max_tokens), jnp.bool_),
        shape((count,), jax.random.key(0).dtype),
        shape((count, side, side, 3), jnp.float32) if side else None,
    )


def text_width(options: ConfigDict) -> int:
    """The width of the text embeddings: as the config says, or as its encoder has it."""
    return options.text.width or build.encoder_of(options).width


def _without_remat(options: ConfigDict) -> Any:
    plain = options.copy_and_resolve_references()
    plain.model.remat = "none"
    return build.model_of(plain)


def _unplaced(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
