"""The mathematics written a second time, in float64 NumPy and as plainly as it goes.

Random numbers are drawn with jax by the documented keys; all else is done by hand.
"""

import functools
import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.generation.chain import TrainedStage
from diffjax.images import pixels
from diffjax.tasks.conditions import LowRes, Text
from diffjax.tasks.denoising import Denoising
from tests.tiny_cascade import Told


def stream(key, name, step=0):
    """The key of (root, name, step)."""
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), step)


def normal(key, shape):
    return np.asarray(jax.random.normal(key, shape), np.float64)


def uniform(key, shape):
    return np.asarray(jax.random.uniform(key, shape), np.float64)


def levels(logsnr):
    """alpha and sigma, [b 1 1 1]."""
    logsnr = np.asarray(logsnr, np.float64).reshape(-1, 1, 1, 1)
    return 1 / np.sqrt(1 + np.exp(-logsnr)), 1 / np.sqrt(1 + np.exp(logsnr))


def noised(x_0, eps, logsnr):
    alpha, sigma = levels(logsnr)
    return alpha * x_0 + sigma * eps


def cosine(u):
    """-2 log tan of an angle that goes evenly between those of logsnr 20 and -20."""
    first, last = (np.arctan(np.exp(-end / 2)) for end in (20.0, -20.0))
    return -2 * np.log(np.tan(first + np.asarray(u, np.float64) * (last - first)))


@functools.cache
def resizer(before, after):
    """The resizing of pictures of one side to another, as a matrix."""
    columns = np.eye(before, dtype=np.float32).reshape(before, before, 1, 1)
    columns = jnp.broadcast_to(columns, (before, before, after, 1))
    whole = np.asarray(pixels.resize(columns, after, after), np.float64)
    return whole[:, :, after // 2, 0].T


def resized(x, side):
    matrix = resizer(x.shape[1], side)
    return np.einsum("ih,bhwc,jw->bijc", matrix, x, matrix)


# --- a cascade of two stages, whose networks are linear in all that they are told

WEIGHTS = {
    "base": dict(x=0.5, level=0.3, text=0.35, low_res=0.0, aug=0.0),
    "sr": dict(x=0.35, level=0.1, text=0.25, low_res=0.5, aug=0.1),
}
KINDS = {"base": "v", "sr": "x_0"}
SIDES = {"base": 4, "sr": 8}
TOKENS, WIDTH = 3, 2


def said(name, x_t, logsnr_t, *, text, text_mask, low_res=None, aug_logsnr=None, xp=jnp):
    """What the network of a stage answers."""
    plane = lambda rows: rows.reshape(-1, 1, 1, 1) * xp.ones_like(x_t)  # noqa: E731
    weight = WEIGHTS[name]
    out = weight["x"] * x_t + weight["level"] * plane(xp.tanh(logsnr_t / 8))
    out = out + weight["text"] * plane(xp.sum(text * text_mask[..., None], axis=(1, 2)))
    if low_res is not None:
        out = out + weight["low_res"] * low_res + weight["aug"] * plane(xp.tanh(aug_logsnr / 8))
    return out


def stages_of(base, sr):
    """The two stages with these settings, as the package has them."""
    text = Text(WIDTH, TOKENS)
    answers = {name: functools.partial(said, name) for name in WEIGHTS}
    first = Denoising("base", Told(answers["base"]), (4, 4, 3), (text,), predict="v")
    second = Denoising("sr", Told(answers["sr"]), (8, 8, 3), (text, LowRes(4, 2)), predict="x_0")
    return [TrainedStage(first, {}, base), TrainedStage(second, {}, sr)]


def prompts(seed, rows=2):
    """Embeddings and masks of some prompts, each of a length of its own."""
    random = np.random.default_rng(seed)
    mask = np.arange(TOKENS) < random.integers(1, TOKENS + 1, (rows, 1))
    return (0.6 * random.normal(size=(rows, TOKENS, WIDTH))).astype(np.float32), mask


def to_x_0(kind, out, x_t, logsnr):
    alpha, sigma = levels(logsnr)
    return {"v": alpha * x_t - sigma * out, "x_0": out}[kind]


def from_x_0(kind, x_0, x_t, logsnr):
    alpha, sigma = levels(logsnr)
    return {"v": (alpha * x_t - x_0) / sigma, "x_0": x_0}[kind]


def keys_of(seeds, *names):
    """A key for each row: that of its seed and of these names, one after the other."""
    keys = [jax.random.key(int(seed)) for seed in seeds]
    for name in names:
        keys = [stream(key, name) for key in keys]
    return keys


def drawn(keys, shape):
    return np.stack([normal(key, shape) for key in keys])


def ladder(num_steps, schedule=cosine):
    """Levels even in u, and then the clean picture."""
    return np.append(schedule(1 - np.arange(num_steps) / num_steps), np.inf)


def small_noised(low_res, seeds, level):
    """What the second stage is told of the small picture."""
    eps = drawn(keys_of(seeds, "sr", "aug_noise"), low_res.shape[1:])
    logsnr = cosine(np.full(len(low_res), level))
    made = resized(noised(low_res, eps, logsnr), 2 * low_res.shape[1])
    return {"low_res": made, "aug_logsnr": logsnr}


def denoiser(name, text, settings, negative=None, told=None):
    """(x_t, logsnr_t) -> x_0_hat, guided, rescaled and thresholded."""
    told, kind = told or {}, KINDS[name]
    nothing = np.zeros_like(text[0]), np.arange(TOKENS)[None] < np.ones((len(text[0]), 1))

    def guess(prompt, x_t, logsnr):
        at = np.full(len(x_t), logsnr)
        out = said(name, x_t, at, text=prompt[0], text_mask=prompt[1], **told, xp=np)
        return to_x_0(kind, out, x_t, logsnr)

    def denoise(x_t, logsnr):
        x_0 = guess(text, x_t, logsnr)
        inside = settings.guidance_from <= logsnr <= settings.guidance_to
        weight = settings.guidance_weight if inside else 1.0
        if weight != 1:
            other = guess(nothing if negative is None else negative, x_t, logsnr)
            guided = weight * x_0 + (1 - weight) * other
            one, two = (from_x_0(kind, x, x_t, logsnr) for x in (x_0, guided))
            ratio = one.std((1, 2, 3), keepdims=True) / two.std((1, 2, 3), keepdims=True)
            two = two * (1 + settings.guidance_rescale * (ratio - 1))
            x_0 = to_x_0(kind, two, x_t, logsnr)
        if settings.threshold == "dynamic":
            flat = np.abs(x_0).reshape(len(x_0), -1)
            s = np.maximum(np.percentile(flat, settings.percentile, axis=1), 1).reshape(-1, 1, 1, 1)
            return np.clip(x_0, -s, s) / s
        return np.clip(x_0, -1, 1) if settings.threshold == "static" else x_0

    return denoise


def step_of(settings):
    """step(denoise, x_t, t, s, past, keys) -> (x_s, past) of ddpm, ddim and dpmpp_2m."""

    def step(denoise, x_t, t, s, past, keys):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = levels(t), levels(s)
        x_0, noise, keep = denoise(x_t, t), settings.noise, np.exp(t - s)
        eps = (x_t - alpha_t * x_0) / sigma_t
        if settings.sampler == "dpmpp_2m":
            far = x_0
            if past is not None and np.isfinite(s):
                far = x_0 + (s - t) / (2 * (t - past[1])) * (x_0 - past[0])
            return sigma_s / sigma_t * x_t + alpha_s * (1 - np.exp((t - s) / 2)) * far, (x_0, t)
        z = drawn(keys, x_t.shape[1:]) if keys else 0.0
        if settings.sampler == "ddim":
            own = noise * np.sqrt(max(1 - keep, 0.0)) * sigma_s  # 0 on the way back
            return alpha_s * x_0 + np.sqrt(sigma_s**2 - own**2) * eps + own * z, None
        mean = keep * alpha_s / alpha_t * x_t + (1 - keep) * alpha_s * x_0
        variance = (1 - keep) * (sigma_s**2) ** (1 - noise) * (sigma_t**2) ** noise
        return mean + np.where(sigma_s > 0, np.sqrt(variance), 0.0) * z, None

    return step


def walked(denoise, x, rungs, settings, keys):
    """Down the rungs, each step with keys of its own."""
    step, past = step_of(settings), None
    own = [jax.random.split(key, len(rungs) - 1) for key in keys]
    for i, (t, s) in enumerate(itertools.pairwise(rungs)):
        x, past = step(denoise, x, t, s, past, [row[i] for row in own])
    return np.clip(x, -1, 1)


def sampled(name, text, seeds, settings, negative=None, low_res=None, x_T=None):
    """A stage's pictures."""
    told = {} if low_res is None else small_noised(low_res, seeds, settings.aug_level)
    denoise = denoiser(name, text, settings, negative, told)
    shape = (SIDES[name], SIDES[name], 3)
    x = drawn(keys_of(seeds, name, "x_T"), shape) if x_T is None else x_T
    return walked(denoise, x, ladder(settings.num_steps), settings, keys_of(seeds, name, "steps"))


def slerp(a, b, weight):
    """Between the rows of a and b by the rows' weights, along great circles."""
    flat = lambda x: x.reshape(len(x), -1)  # noqa: E731
    dot = np.sum(flat(a) * flat(b), 1) / np.sqrt(np.sum(flat(a) ** 2, 1) * np.sum(flat(b) ** 2, 1))
    angle = np.arccos(dot)
    shares = np.sin((1 - weight) * angle), np.sin(weight * angle)
    one, two = (s / np.sin(angle) for s in shares)
    wide = lambda s: s.reshape(-1, *[1] * (a.ndim - 1))  # noqa: E731
    return wide(one) * a + wide(two) * b
