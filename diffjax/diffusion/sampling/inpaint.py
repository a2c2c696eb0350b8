"""Editing with a denoiser: inpainting, image and prompt, interpolation, variations.

All pure, one scan each, and with one key per example independent of the batch, as sampling is.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffjax.core import rng
from diffjax.core.types import Data, Denoiser, LogSnr, PRNGKey, PRNGKeys
from diffjax.diffusion.process import diffuse, per_example, renoise, sum_of_each
from diffjax.diffusion.sampling.sampler import ddim, invert, sample
from diffjax.diffusion.sampling.step import Multistep, Step, remembering

# One of the data's own shape, or one that broadcasts to it: [b h w 1], [1 n 1] ...
Mask = Bool[Array, "#b *#shape"]


def inpaint(
    denoise: Denoiser,
    x_T: Data,
    *,
    known: Data,
    mask: Mask,
    logsnrs: Float[Array, " n"],
    step: Step | Multistep,
    key: PRNGKey | PRNGKeys,
    resample: int = 10,
    jump: int = 10,
) -> Data:
    """RePaint: fill where `mask` is True, keep `known` elsewhere  (Lugmayr et al. 2022, alg. 1).

    At every rung the known region is drawn anew from q(x_s | known), the rest is the sampler's.
    Every `jump` rungs x_t is noised back by as many, q(x_t | x_s), and sampled again, `resample`
    - 1 times, so that the two regions come to agree. resample = 1 is the Replacement method, which
    never goes back (Song et al. 2021, app. I.2). known in [-1, 1]; the answer equals it outside
    the mask.

    Raises:
      ValueError: for a `resample` or `jump` below 1.
    """
    at, to = inpainting_path(logsnrs.shape[0], resample, jump)
    never_back = bool((to > at).all())
    rule = remembering(step)

    def body(carry, rung):
        x_t, memory = carry
        level, next_level, is_down, key = rung
        logsnr, next_logsnr = (
            jnp.broadcast_to(scalar, x_t.shape[:1]) for scalar in (level, next_level)
        )
        key_step, key_known = rng.split(key, 2)

        def down():
            x_s, later = rule.step(denoise, x_t, logsnr, next_logsnr, memory, key=key_step)
            return merge(x_s, known, mask, next_logsnr, key_known), later

        def up():
            # the sampler's memory is of the path that is left here: it starts afresh
            eps = rng.normal(key_step, x_t.shape)
            return renoise(x_t, eps, logsnr, next_logsnr), rule.start(x_t)

        return down() if never_back else jax.lax.cond(is_down, down, up), None

    key_start, key_rungs = rng.split(key, 2)
    x_T = merge(x_T, known, mask, jnp.broadcast_to(logsnrs[0], x_T.shape[:1]), key_start)
    keys = rng.split(key_rungs, len(at))
    rungs = (logsnrs[at], logsnrs[to], jnp.asarray(to > at), keys)
    return jax.lax.scan(body, (x_T, rule.start(x_T)), rungs)[0][0]


def merge(x_s: Data, known: Data, mask: Mask, logsnr_s: LogSnr, key) -> Data:
    """x_s where the mask is True, elsewhere a draw from q(x_s | known)."""
    return jnp.where(mask, x_s, diffuse(known, rng.normal(key, known.shape), logsnr_s))


def inpainting_path(num_rungs: int, resample: int, jump: int) -> tuple[np.ndarray, np.ndarray]:
    """The rungs of RePaint's walk, as (from, to): down by one, and back up by `jump`.

    Jumps are counted from the last noisy rung; the clean rung is reached once, at the end.
    """
    for name, value in (("resample", resample), ("jump", jump)):
        if value < 1:
            raise ValueError(f"{name}={value}: at least 1")
    left = dict.fromkeys(range(num_rungs - 2, jump - 1, -jump), resample - 1)
    path = [0]
    while path[-1] < num_rungs - 1:
        here = path[-1]
        if left.get(here, 0) > 0:
            left[here] -= 1
            path.append(here - jump)
        else:
            path.append(here + 1)
    return np.array(path[:-1]), np.array(path[1:])


def sdedit(
    denoise: Denoiser,
    image: Data,
    *,
    logsnrs: Float[Array, " n"],
    step: Step | Multistep,
    key: PRNGKey | PRNGKeys,
) -> Data:
    """Image and prompt: noise the image to the first rung, sample from there  (Meng et al. 2022).

    logsnrs: a ladder that starts part of the way up; the higher the first logsnr, the more of the
    image is kept.
    """
    key_eps, key_steps = rng.split(key, 2)
    logsnr = jnp.broadcast_to(logsnrs[0], image.shape[:1])
    x_t = diffuse(image, rng.normal(key_eps, image.shape), logsnr)
    return sample(denoise, x_t, logsnrs=logsnrs, step=step, key=key_steps)


def slerp(x_a: Data, x_b: Data, weight: Float[Array, " b"]) -> Data:
    """Along the great circle from x_a (weight 0) to x_b (weight 1), each example  (Shoemake 1985).

    Gaussian noise of unit variance stays so on the way, which a straight line would shrink
    (Song et al. 2021, eq. 67).
    """
    dot = lambda x, y: per_example(sum_of_each(x * y), x_a)  # noqa: E731
    # zeros have no angle: any number will do
    cosine = dot(x_a, x_b) / jnp.sqrt(jnp.maximum(dot(x_a, x_a) * dot(x_b, x_b), 1e-30))
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    weight = per_example(weight, x_a)
    # for parallel x sin(w angle) / sin(angle) goes to w
    near = jnp.sin(angle) < 1e-4
    sine = jnp.where(near, 1.0, jnp.sin(angle))
    of = lambda w: jnp.where(near, w, jnp.sin(w * angle) / sine)  # noqa: E731
    return of(1.0 - weight) * x_a + of(weight) * x_b


def interpolate(
    denoise: Denoiser,
    image_a: Data,
    image_b: Data,
    weight: Float[Array, " b"],
    *,
    logsnrs: Float[Array, " n"],
    step: Step | Multistep | None = None,
) -> Data:
    """Images between two: invert both, `slerp` between the noises, sample  (Song et al. 2021).

    step: a rule that draws nothing, `ddim()` if None.
    """
    rule = step or ddim()
    noise_a, noise_b = (
        invert(denoise, image, logsnrs=logsnrs, step=rule) for image in (image_a, image_b)
    )
    return sample(denoise, slerp(noise_a, noise_b, weight), logsnrs=logsnrs, step=rule, key=None)


def vary(
    denoise: Denoiser,
    image: Data,
    *,
    logsnrs: Float[Array, " n"],
    eta: float,
    key: PRNGKey | PRNGKeys,
) -> Data:
    """Variations: invert, then sample with DDIM's eta  (Ramesh et al. 2022, sec. 3.1).

    eta = 0 gives the image back, eta = 1 keeps only what the denoiser's condition holds of it.
    """
    x_T = invert(denoise, image, logsnrs=logsnrs)
    return sample(denoise, x_T, logsnrs=logsnrs, step=ddim(eta), key=key)
