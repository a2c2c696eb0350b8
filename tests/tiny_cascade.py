"""A cascade of two stages whose networks are one line each: it compiles at once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from diffjax.encoders.t5 import load_encoder
from diffjax.generation.chain import Cascade
from diffjax.generation.recipe import Origin
from diffjax.tasks.denoising import Stage
from diffjax.tasks.sampling import SampleSettings, TrainedStage
from tests.tiny_t5 import save_tiny


@dataclasses.dataclass(frozen=True)
class OneLine:
    """A guess of x_0 that depends on all that a network is told."""

    def apply(self, variables, x_t, logsnr_t, *, text, text_mask, low_res=None, aug_logsnr=None):
        words = jnp.sum(text * text_mask[..., None], axis=(1, 2))[:, None, None, None]
        small = 0.0 if low_res is None else low_res
        told = 0.1 * jnp.sin(words) + jnp.tanh(logsnr_t)[:, None, None, None] / 10
        return 0.6 * jnp.tanh(variables["params"] * (x_t + small)) + told


def cascade(folder, **settings) -> Cascade:
    """8 px, then 16 px; the encoder's files go to `folder`."""
    encoder = load_encoder(save_tiny(folder), max_length=16)
    how: Any = SampleSettings(
        **{"num_steps": 2, "guidance_weight": 3.0, "threshold": "static", **settings}
    )
    shared: Any = dict(model=OneLine(), text_width=16, max_tokens=16, predict="x_0")
    params = jax.device_put(jnp.float32(0.7), jax.devices()[0])
    stages = (
        TrainedStage(Stage("small", size_px=8, **shared), params, how),
        TrainedStage(Stage("large", size_px=16, low_res_px=8, **shared), params, how),
    )
    origins = tuple(
        Origin(one.stage.name, one.stage.size_px, 7, "decay_0.9", f"{i}" * 64)
        for i, one in enumerate(stages)
    )
    return Cascade(stages, origins, encoder)
