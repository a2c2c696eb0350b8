"""Learned uncertainty: each noise level's loss divided by what it usually is  (EDM2).

With u(logsnr) learned beside the network, L / e^u + u is least at u = log E[L]; there every level
pulls on the network alike, whatever its share of the loss was.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffjax.core.types import LogSnr, Scalar
from diffjax.diffusion.training.loss import LossAux, mean_over

Params = dict[str, Float[Array, " n"]]


def init(num_features: int = 128) -> Params:
    """Zeros, so that training starts from the plain loss."""
    if num_features < 1:
        raise ValueError(f"num_features={num_features}: at least 1")
    return {"weight": jnp.zeros(num_features)}


def apply(params: Params, logsnr: LogSnr) -> LogSnr:
    """u(logsnr) = w . features / sqrt(n)  (Karras et al. 2024, app. B)."""
    weight = params["weight"]
    return features(logsnr, weight.shape[0]) @ weight / np.sqrt(weight.shape[0])


def features(logsnr: LogSnr, num_features: int) -> Float[Array, "b n"]:
    """sqrt(2) cos(2 pi (f_i c + phase_i)), c = log(sigma / alpha) / 4 = -logsnr / 8.

    Frequencies as N(0, 1) and phases as U(0, 1), of mean square 1 (Karras et al. 2024, app. B).
    They are constants, the same in every run, so that they are never decayed nor averaged.
    """
    draw = np.random.default_rng(0)
    frequency = draw.standard_normal(num_features)
    phase = draw.uniform(size=num_features)
    turns = -logsnr[:, None] / 8.0 * frequency.astype(np.float32) + phase.astype(np.float32)
    return np.sqrt(2.0) * jnp.cos(2.0 * np.pi * turns)


def uncertain(per_example: Float[Array, " b"], u: Float[Array, " b"]) -> Float[Array, " b"]:
    """L / e^u + u  (Karras et al. 2024, app. B)."""
    return per_example * jnp.exp(-u) + u


def uncertain_loss(params: Params, aux: LossAux) -> Scalar:
    """The mean of L / e^u + u over a loss's examples; differentiate by network and params both."""
    return mean_over(aux.times, uncertain(aux.per_example, apply(params, aux.logsnr_t)))
