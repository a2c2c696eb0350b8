"""A cascade of two stages whose networks are one line each: it compiles at once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffjax.core.types import PRNGKey
from diffjax.devices.mesh import Rules
from diffjax.encoders.t5 import load_encoder
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.recipe import Origin
from diffjax.tasks.conditions import Condition, LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from tests.tiny_t5 import save_tiny


@dataclasses.dataclass(frozen=True)
class Told:
    """A network without parameters: answer(x_t, logsnr_t, **told).

    Two of one answer are equal, so that their stages share one compiled program.
    """

    answer: Callable[..., Array]

    @property
    def sharding(self) -> Rules:
        return ()

    def init(self, key: PRNGKey, *inputs: Array, **told: Array) -> dict[str, dict[str, Array]]:
        return {"params": {}}

    def apply(self, variables: object, x_t: Array, logsnr_t: Array, **told: Array) -> Array:
        return self.answer(x_t, logsnr_t, **told)


@dataclasses.dataclass(frozen=True)
class OneLine:
    """A guess of x_0 that depends on all that a network is told."""

    @property
    def sharding(self) -> Rules:
        return ()

    def init(self, key: PRNGKey, *inputs: Array, **told: Array) -> dict[str, dict[str, Array]]:
        return {"params": {"weight": jnp.float32(0.7)}}

    def apply(
        self, variables, x_t, logsnr_t, *, text, text_mask, vector=None, low_res=None,
        aug_logsnr=None,
    ):  # fmt: skip
        words = jnp.sum(text * text_mask[..., None], axis=(1, 2))[:, None, None, None]
        small = 0.0 if low_res is None else low_res
        told = 0.1 * jnp.sin(words) + jnp.tanh(logsnr_t)[:, None, None, None] / 10
        if vector is not None:
            told = told + 0.3 * vector[:, None, None, :3]
        return 0.6 * jnp.tanh(variables["params"]["weight"] * (x_t + small)) + told


def cascade(folder: Path, *conditions: Condition, **settings: object) -> Cascade:
    """8 px, then 16 px; the encoder's files go to `folder`. conditions: more of the first stage."""
    encoder = load_encoder(save_tiny(folder), max_length=16)
    usual = SampleSettings(num_steps=2, guidance_weight=3.0, threshold="static")
    how = dataclasses.replace(usual, **settings)
    params = jax.device_put({"weight": jnp.float32(0.7)}, jax.devices()[0])

    def stage(name: str, side_px: int, *conditions: Condition) -> TrainedStage:
        told = (Text(16, 16), *conditions)
        task = Denoising(name, OneLine(), (side_px, side_px, 3), told, predict="x_0")
        return TrainedStage(task, params, how)

    stages = (stage("small", 8, *conditions), stage("large", 16, LowRes(8, 2)))
    origins = tuple(
        Origin(one.task.name, one.task.size_px, 7, "decay_0.9", f"{i}" * 64)
        for i, one in enumerate(stages)
    )
    return Cascade(stages, origins, encoder)
