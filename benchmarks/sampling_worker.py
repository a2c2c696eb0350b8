"""Samples our cascade of `benchmarks.cascades` on demand, as `diffjax.sample` does it.

Its parameters are random. They are read in like those of a checkpoint and not initialised by the
network, so that the time to the first picture is that of a user.
"""

import argparse
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cascades import AUG_LEVEL, GUIDANCE, SIZES, serve
from benchmarks.works import Work
from diffjax.generation import rows
from diffjax.generation.chain import Cascade, TrainedStage, read_by
from diffjax.generation.jobs import Job
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.layers import convolve
from diffjax.models.unet import UNet
from diffjax.planning import jaxprs
from diffjax.tasks.conditions import Condition, LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.sampling import compiled, sample
from diffjax.tasks.settings import SampleSettings

COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX measures XLA's time by this name


@dataclasses.dataclass(frozen=True)
class Given:
    """Stands for an encoder: its embeddings are computed before."""

    text: Any
    max_length: int

    @property
    def width(self) -> int:
        """The numbers of a token."""
        return self.text.shape[-1]

    def encode(self, prompts, max_length):
        """The same embeddings for every prompt."""
        return self.text, jnp.ones((1, max_length), bool)


def task_of(name: str, work: Work, low_res_px: int | None) -> Denoising:
    """The task of that shape."""
    assert work.text
    levels = tuple(level for level, attends in enumerate(work.attends) if attends)
    given: dict[str, Any] = dict(
        width=work.width,
        mults=work.mults,
        attention_levels=levels,
        convolution=convolve.fastest_convolution(),
    )
    if low_res_px:
        model: Any = EfficientUNet(num_blocks=work.blocks, **given)
    else:
        model = UNet(num_blocks=work.blocks[0], **given)
    length, width = work.text
    conditions: list[Condition] = [Text(width, length)]
    if low_res_px:
        conditions.append(LowRes(low_res_px, work.side // low_res_px))
    shape = (work.side, work.side, 3)
    return Denoising(name, model, shape, tuple(conditions), predict="eps")


def filled(task: Denoising, rng: np.random.Generator) -> Any:
    """Random parameters, small enough for finite pictures."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    fill = lambda leaf: 0.02 * rng.standard_normal(leaf.shape, np.float32)  # noqa: E731
    return jax.device_put(jax.tree.map(fill, shapes), jax.devices()[0])


def cascade_of(size: str) -> Cascade:
    """The cascade of that size."""
    shape, rng = SIZES[size]["diffjax"], np.random.default_rng(0)
    assert shape.base.text
    tasks = (task_of("base", shape.base, None), task_of("sr", shape.sr, shape.base.side))
    settings = (
        SampleSettings(num_steps=steps, guidance_weight=GUIDANCE, aug_level=AUG_LEVEL)
        for steps in shape.steps
    )
    trained = tuple(
        TrainedStage(task, filled(task, rng), how)
        for task, how in zip(tasks, settings, strict=True)
    )
    text = jnp.asarray(rng.standard_normal((1, *shape.base.text), np.float32))
    encoder: Any = Given(text, shape.base.text[0])
    return Cascade(trained, (), encoder)


def flops_of(cascade: Cascade) -> int:
    """FLOPs of one picture: all steps of all stages."""
    columns, seeds = rows.inputs_of(
        [Job("", 0)], lambda prompt: rows.embedded(cascade.encoder, [prompt])
    )
    keys, flops = jax.vmap(jax.random.key)(seeds), 0
    for stage in cascade.stages:
        run = compiled(sample, stage.settings)
        told = read_by(stage.task, columns)
        flops += jaxprs.flops(run.trace(stage.params, told, keys, task=stage.task).jaxpr)
        columns["low_res"] = jnp.zeros((1, *stage.task.shape))
    return flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=("diffjax",))
    parser.add_argument("--size", choices=SIZES, default="race")
    parser.add_argument("--started", type=float, default=time.time())
    flags = parser.parse_args()
    compiled_s: list[float] = []

    def note(event: str, seconds: float, **_) -> None:
        if event == COMPILED:
            compiled_s.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(note)
    cascade = cascade_of(flags.size)

    def make(count: int):
        made = list(rows.make(cascade, [Job("", seed) for seed in range(count)]))
        assert all(np.ptp(row[-1]) > 0 for row in made), "pictures of one colour"

    def facts() -> dict[str, Any]:
        compile_s = round(sum(compiled_s), 2)
        params = [leaf for one in cascade.stages for leaf in jax.tree.leaves(one.params)]
        return {
            "flops_picture": flops_of(cascade),
            "params": sum(leaf.size for leaf in params),
            "framework": f"jax {jax.__version__}",
            "compile_s": compile_s,
        }

    serve(make, facts, started=flags.started)


if __name__ == "__main__":
    main()
