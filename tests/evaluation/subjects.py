"""Things to evaluate that compile at once, and whose answers are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.devices import mesh as mesh_lib
from diffjax.diffusion.process import alpha_sigma
from diffjax.evaluation.evaluator import Evaluator, rows_for
from diffjax.evaluation.examples import Examples
from diffjax.tasks.conditions import LowRes
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from tests.tiny_cascade import Told

STD = 0.2  # of each number of x


def examples(columns):
    """Examples with these columns, without names and captions."""
    count = len(next(iter(columns.values())))
    return Examples({k: np.asarray(v) for k, v in columns.items()}, ("",) * count, ("",) * count)


def evaluator(task, found, measures=(), scores=(), devices=1, batch_size=10**6, seed=0):
    """All rows at once on one device, unless said otherwise."""
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:devices])
    rows = rows_for(len(found), batch_size, mesh, whole_batch=True)
    return Evaluator(task, found, tuple(measures), tuple(scores), mesh, rows, seed)


def exactly(x_t, logsnr_t):
    """E[x_0 | x_t] of x_0 ~ N(0, STD^2), for each number."""
    alpha, sigma = alpha_sigma(logsnr_t, x_t)
    return alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * x_t


def numbers_task(answer=exactly):
    """Denoises the column x [4]."""
    settings = SampleSettings(num_steps=2, threshold="none")
    return Denoising("numbers", Told(answer), (4,), predict="x_0", of="x", settings=settings)


# --- a cascade of one pixel and then 2 x 2, whose pixels are independent


def of_one_pixel(x_t, logsnr_t):
    """E[z_0 | z_t], z the mean of four."""
    alpha, sigma = alpha_sigma(logsnr_t, x_t)
    return alpha * STD**2 / (alpha**2 * STD**2 + 4 * sigma**2) * x_t


def left_of_mean(aug_logsnr):
    """Given the noised mean: the gain of what is seen, and the variance left of the mean."""
    alpha, sigma = jnp.sqrt(jax.nn.sigmoid(aug_logsnr)), jnp.sqrt(jax.nn.sigmoid(-aug_logsnr))
    variance = 1 / (4 / STD**2 + (alpha / sigma) ** 2)
    return variance * alpha / sigma**2, variance


def of_four_pixels(x_t, logsnr_t, low_res, aug_logsnr):
    """E[x_0 | x_t, noised mean]: the mean has a prior of its own, what is beside it STD's."""
    alpha, sigma = alpha_sigma(logsnr_t, x_t)
    gain, variance = (part[:, None, None, None] for part in left_of_mean(aug_logsnr))
    mean_t = x_t.mean((1, 2), keepdims=True)
    seen = gain * low_res.mean((1, 2), keepdims=True)
    mean = seen + alpha * variance / (alpha**2 * variance + sigma**2 / 4) * (mean_t - alpha * seen)
    return exactly(x_t - mean_t, logsnr_t) + mean


def cascade():
    """Both tasks, smallest first."""
    settings = SampleSettings(aug_level=0.5, num_steps=2, threshold="none")
    how = dict(predict="x_0", settings=settings)
    small = Denoising("small", Told(of_one_pixel), (1, 1, 3), **how)
    large = Denoising("large", Told(of_four_pixels), (2, 2, 3), (LowRes(1, 2),), **how)
    return small, large


def pictures(count, shape=(2, 2, 3), seed=0):
    """uint8 pictures whose numbers are normal with STD around grey."""
    x = STD * np.random.default_rng(seed).standard_normal((count, *shape))
    return np.clip(np.round((x + 1) * 127.5), 0, 255).astype(np.uint8)
