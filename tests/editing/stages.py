"""Two stages, 4 -> 16 px, of networks whose every answer is known in closed form."""

import dataclasses

import jax.numpy as jnp

from diffjax.diffusion.process import alpha_sigma
from diffjax.editing import img2img
from diffjax.generation.chain import TrainedStage
from diffjax.tasks.conditions import LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from tests.diffusion.helpers import gaussian_denoiser
from tests.tiny_cascade import Told

SEEDS = jnp.arange(6)
VARIANCE = 0.09
SETTINGS = SampleSettings(
    num_steps=16, sampler="ddpm", guidance_weight=1.0, threshold="none", aug_level=0.0
)


def independent(x_t, logsnr_t, **told):
    """The best network for pixels that are N(0, VARIANCE), each on its own."""
    return gaussian_denoiser(0.0, VARIANCE)(x_t, logsnr_t)


def one_colour(x_t, logsnr_t, **told):
    """The best network for pictures of one colour, N(0, 0.25) a channel."""
    alpha, sigma = alpha_sigma(logsnr_t)
    mean = jnp.mean(x_t, axis=(1, 2), keepdims=True)
    noise = sigma**2 / (x_t.shape[1] * x_t.shape[2])
    return jnp.broadcast_to(alpha * 0.25 / (alpha**2 * 0.25 + noise) * mean, x_t.shape)


def enlarged(x_t, logsnr_t, *, low_res, **told):
    """The network that knows no detail: the small picture, enlarged."""
    return low_res


def stages_of(base, large, width=2, max_tokens=3, **settings):
    """Two stages that guess x_0 as `base` and `large` do."""
    how, text = dataclasses.replace(SETTINGS, **settings), Text(width, max_tokens)
    first = Denoising("base", Told(base), (4, 4, 3), (text,), predict="x_0")
    second = Denoising("sr", Told(large), (16, 16, 3), (text, LowRes(4, 4)), predict="x_0")
    return [TrainedStage(first, {}, how), TrainedStage(second, {}, how)]


COLOURS = stages_of(one_colour, enlarged)
GAUSSIAN = stages_of(independent, independent, sampler="ddim", num_steps=48)


def no_text(num):
    """The columns of no prompt."""
    return img2img.null_columns(COLOURS[0].task, num)
