"""A prior whose answer is one line: the vector of the text, turned by one place."""

import jax.numpy as jnp

from diffjax.encoders.clip.encoder import Clip
from diffjax.generation import telling
from diffjax.generation.chain import Cascade
from diffjax.generation.recipe import Origin
from diffjax.tasks.conditions import Text
from diffjax.tasks.prior import DiffusionPrior
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.vectors import IMAGE_VECTOR, TextVector
from tests.tiny_cascade import Told


def answer(x_t, logsnr_t, *, text, text_mask, text_vector):
    return jnp.roll(text_vector, 1, axis=-1) + 0.0 * x_t


def teller(cascade: Cascade, clip: Clip) -> telling.Teller:
    """It, for the texts of a cascade of `tiny_cascade`."""
    conditions = (Text(16, 16), TextVector(clip.width))
    task = DiffusionPrior(
        "prior", Told(answer), (clip.width,), conditions, predict="x_0", of=IMAGE_VECTOR
    )
    settings = SampleSettings(num_steps=2, threshold="none", guidance_weight=1.0)
    origin = Origin("prior", 0, 5, "decay_0.9", "e" * 64)
    prior = telling.Prior(task, {}, settings, origin, cascade.text_encoder())
    return telling.Teller("prior", clip, prior)
