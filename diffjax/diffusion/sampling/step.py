"""What a step of a sampler is: a rule that goes one rung down the ladder of noise levels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax.numpy as jnp

from diffjax.core.types import Data, Denoiser, Factor, LogSnr
from diffjax.diffusion.predict import x_0_of
from diffjax.diffusion.process import Like, alpha_sigma, per_example

# A rule without memory: step(denoise, x_t, logsnr_t, logsnr_s, *, key) -> x_s, s < t.
Step: TypeAlias = Callable[..., Data]


@dataclass(frozen=True)
class Multistep:
    """A rule that remembers earlier rungs.

    start(x_T) -> memory, a pytree of arrays, before the first rung;
    step(denoise, x_t, logsnr_t, logsnr_s, memory, *, key) -> (x_s, memory).
    """

    start: Callable[[Data], Any]
    step: Callable[..., tuple[Data, Any]]


def remembering(rule: Step | Multistep) -> Multistep:
    """Any rule in the form of those with memory; one without keeps nothing."""
    if isinstance(rule, Multistep):
        return rule
    return Multistep(lambda x_T: (), lambda *args, key: (rule(*args[:-1], key=key), ()))


def half_step(logsnr_t: LogSnr, logsnr_s: LogSnr, like: Like = None) -> Factor:
    """h = (l_s - l_t) / 2, the step in log(alpha / sigma); +inf on the way to the clean data."""
    return per_example(0.5 * (logsnr_s - logsnr_t), like)


def towards(x_0_hat: Data, x_t: Data, logsnr_t: LogSnr, logsnr_s: LogSnr) -> Data:
    """x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - e^-h) x_0_hat.

    The exact solution of the probability-flow ODE for an x_0_hat that does not change on the way
    (Lu et al. 2022, DPM-Solver++, eq. 9): DDIM's step. Every deterministic solver here is this
    step with a better x_0_hat. logsnr_s may be +inf, logsnr_t may not.
    """
    _, sigma_t = alpha_sigma(logsnr_t, x_t)
    alpha_s, sigma_s = alpha_sigma(logsnr_s, x_t)
    gain = -jnp.expm1(-half_step(logsnr_t, logsnr_s, x_t))
    return (sigma_s / sigma_t) * x_t + alpha_s * gain * x_0_hat


def image_of(denoise: Denoiser, x_t: Data, logsnr_t: LogSnr) -> Data:
    """The denoiser's x_0_hat, for a rule that needs no variance."""
    return x_0_of(denoise(x_t, logsnr_t))
