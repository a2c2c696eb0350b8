"""Samplers: a step rule, scanned down the rungs of a ladder of noise levels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import Data, Denoiser, PRNGKey, PRNGKeys
from diffjax.diffusion.predict import x_0_of
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.sampling.ancestral import Push, ddim, ddpm, ddpm_learned
from diffjax.diffusion.sampling.pseudo import pndm
from diffjax.diffusion.sampling.solver import (
    Churn,
    dpmpp_1s,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    euler,
    heun,
    unipc,
)
from diffjax.diffusion.sampling.step import Multistep, Step, remembering


@dataclass(frozen=True)
class Sampler:
    """A step rule by its name, and what is known of its noise.

    knob: what one number of added noise sets, "gamma", "eta" or "churn" per step; "" for none.
    draws: whether the rule draws noise on its way, given that number. pushed: whether a classifier
    moves the mean that the rule draws about, by the variance; otherwise it moves the x_0_hat.
    """

    name: str
    make: Callable[..., Step | Multistep]
    knob: str = ""
    draws: Callable[[float], bool] = lambda noise: noise > 0
    pushed: bool = False


SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler
    for sampler in (
        Sampler("ddpm", ddpm, "gamma", draws=lambda noise: True, pushed=True),
        Sampler("ddpm_learned", ddpm_learned, draws=lambda noise: True, pushed=True),
        Sampler("ddim", ddim, "eta"),
        Sampler("euler", euler, "churn"),
        Sampler("heun", heun, "churn"),
        Sampler("dpmpp_1s", dpmpp_1s),
        Sampler("dpmpp_2s", dpmpp_2s),
        Sampler("dpmpp_2m", dpmpp_2m),
        Sampler("dpmpp_2m_sde", dpmpp_2m_sde, "eta"),
        Sampler("unipc", unipc),
        Sampler("pndm", pndm),
    )
}
__all__ = [
    "SAMPLERS", "Churn", "Path", "Sampler", "by_name", "guesses", "invert", "sample", "trajectory",
    *SAMPLERS,
]  # fmt: skip


def by_name(name: str, noise: float = 0.0, push: Push | None = None) -> Step | Multistep:
    """The sampler called `name`, with its gamma, eta or churn per step set to `noise`.

    push: the scaled gradient of a classifier, for a sampler that is `pushed`.

    Raises:
      ValueError: for an unknown name, or noise or a push for a sampler that takes none.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler={name!r}: allowed are {', '.join(SAMPLERS)}")
    found = SAMPLERS[name]
    if push is not None and not found.pushed:
        raise ValueError(f"push: {name} draws about no mean; guide its x_0_hat instead")
    options = {} if push is None else {"push": push}
    if not found.knob:
        if noise:
            able = ", ".join(name for name, other in SAMPLERS.items() if other.knob)
            raise ValueError(f"noise={noise}: {name} adds none; those that do: {able}")
        return found.make(**options)
    return found.make(Churn(noise) if found.knob == "churn" else noise, **options)


class Path(NamedTuple):
    """Every x_t on the way, x_T first, and the level of each."""

    x: Float[Array, "n b *shape"]
    logsnr: Float[Array, " n"]


def sample(
    denoise: Denoiser,
    x_T: Data,
    *,
    logsnrs: Float[Array, " n"],
    step: Step | Multistep,
    key: PRNGKey | PRNGKeys | None,
) -> Data:
    """x_0 from noise x_T, one `step` per pair of rungs, as one `lax.scan`.

    logsnrs: n rungs from noise to clean, see `spacing`; the last may be +inf. With one key per
    example, example i depends on its own key alone, not on the batch. A rule that draws no noise
    takes None for a key.
    """
    return _scan(denoise, x_T, logsnrs, step, key)[0]


def trajectory(
    denoise: Denoiser,
    x_T: Data,
    *,
    logsnrs: Float[Array, " n"],
    step: Step | Multistep,
    key: PRNGKey | PRNGKeys | None,
) -> Path:
    """Every x_t that `sample` goes through, from x_T to its answer, in memory all at once."""
    _, x = _scan(denoise, x_T, logsnrs, step, key, keep=lambda x_s, memory: x_s)
    return Path(jnp.concatenate([x_T[None], x]), logsnrs)


def guesses(
    denoise: Denoiser,
    x_T: Data,
    *,
    logsnrs: Float[Array, " n"],
    step: Step | Multistep,
    key: PRNGKey | PRNGKeys | None,
) -> tuple[Data, Float[Array, "n-1 b *shape"]]:
    """The result of `sample`, and the first x_0_hat of each step, in memory all at once."""
    watched = _watched(remembering(step))
    return _scan(denoise, x_T, logsnrs, watched, key, keep=lambda x_s, memory: memory[1])


def _watched(rule: Multistep) -> Multistep:
    """The rule; its memory holds, after its own, the x_0_hat of the step's first evaluation."""

    def step(denoise, x_t, logsnr_t, logsnr_s, memory, *, key):
        seen = []

        def watched(x, logsnr):
            guess = denoise(x, logsnr)
            seen.append(x_0_of(guess))
            return guess

        x_s, own = rule.step(watched, x_t, logsnr_t, logsnr_s, memory[0], key=key)
        return x_s, (own, seen[0])

    return Multistep(lambda x_T: (rule.start(x_T), jnp.zeros_like(x_T)), step)


def _scan(denoise, x_T, logsnrs, step, key, *, keep=None):
    rule = remembering(step)

    def body(carry, rung):
        x_t, memory = carry
        logsnr_t, logsnr_s, key = rung
        at = lambda logsnr: jnp.broadcast_to(logsnr, x_t.shape[:1])  # noqa: E731
        x_s, memory = rule.step(denoise, x_t, at(logsnr_t), at(logsnr_s), memory, key=key)
        return (x_s, memory), keep(x_s, memory) if keep else None

    keys = None if key is None else rng.split(key, logsnrs.shape[0] - 1)
    rungs = (logsnrs[:-1], logsnrs[1:], keys)
    (x_0, _), path = jax.lax.scan(body, (x_T, rule.start(x_T)), rungs)
    return x_0, path


def invert(
    denoise: Denoiser,
    x_0: Data,
    *,
    logsnrs: Float[Array, " n"],
    step: Step | Multistep | None = None,
) -> Data:
    """The noise x_T from which a deterministic sampler comes to x_0  (Song et al. 2021, sec. 4.3).

    logsnrs: the rungs to sample with, noise first; `invert` climbs them from the cleanest finite
    one, where x_0 stands for x_t. step: a rule that draws nothing, `ddim()` if None. Sampling from
    x_T returns x_0 exactly in the limit of small steps.

    Raises:
      ValueError: when traced, if the rule draws noise, which cannot be undone.
    """
    climb = logsnrs[::-1]
    # the last rung, if finite, leads to itself: that step changes nothing
    climb = climb.at[0].set(jnp.where(jnp.isposinf(climb[0]), climb[1], climb[0]))
    alpha, _ = alpha_sigma(climb[:1], x_0)
    return _scan(denoise, alpha * x_0, climb, step or ddim(), None)[0]
