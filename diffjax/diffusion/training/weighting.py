"""How much an error counts at each noise level: log w(logsnr), the weight of |error in x_0|^2.

All weightings are written for the error in x_0, L = E[w(logsnr_t) |x_0 - x_0_hat|^2], so that one
means the same whatever the network predicts. They are logs, since w spans forty powers of ten.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp

from diffjax.core.types import LogSnr
from diffjax.diffusion import predict
from diffjax.diffusion.made import by_value

LogWeight: TypeAlias = Callable[[LogSnr], LogSnr]
Weighting: TypeAlias = str | LogWeight
# Beyond e^40 to one, either way, a weight stays as it is there: products of any two stay finite
# in float32 at both ends of any schedule, infinite ones included.
LOGSNR_BOUND = 40.0


@by_value
def min_snr(gamma: float = 5.0) -> LogWeight:
    """w = min(SNR, gamma)  (Hang et al. 2023).

    For a network of eps that is min(SNR, gamma) / SNR, of v min(SNR, gamma) / (SNR + 1).
    """
    if not gamma > 0:
        raise ValueError(f"gamma={gamma}: a signal-to-noise ratio, above 0")
    return lambda logsnr: jnp.minimum(logsnr, math.log(gamma))


def truncated_snr(logsnr: LogSnr) -> LogSnr:
    """w = max(SNR, 1), which forgets no level  (Salimans & Ho 2022, sec. 4)."""
    return jnp.maximum(logsnr, 0.0)


@by_value
def p2(k: float = 1.0, gamma: float = 1.0) -> LogWeight:
    """w = SNR / (k + SNR)^gamma: 1 / (k + SNR)^gamma on the error in eps  (Choi et al. 2022)."""
    if not k > 0:
        raise ValueError(f"k={k}: above 0")
    return lambda logsnr: logsnr - gamma * jnp.logaddexp(logsnr, math.log(k))


@by_value
def sigmoid(bias: float = 2.0) -> LogWeight:
    """w = SNR sigmoid(bias - logsnr): sigmoid(bias - logsnr) on the error in eps.

    Kingma & Gao 2023, who call the bias k; Hoogeboom et al. 2024 lower it for larger images. Both
    integrate over logsnr: see `over` of `diffusion_loss`.
    """
    return lambda logsnr: logsnr + jax.nn.log_sigmoid(bias - logsnr)


NAMED: dict[str, LogWeight] = {
    **{kind: partial(predict.log_weight, kind) for kind in predict.KINDS},
    "min_snr": min_snr(),
    "truncated_snr": truncated_snr,
    "p2": p2(),
    "sigmoid": sigmoid(),
}
NAMES = tuple(NAMED)


def log_weight(weighting: Weighting, logsnr_t: LogSnr) -> LogSnr:
    """log w(logsnr_t) of a weighting: a name, or any function logsnr -> log w.

    A kind of prediction names the weighting under which errors in that space count alike; "edm"
    is EDM's lambda (Karras et al. 2022, table 1). min_snr, p2 and sigmoid have their papers'
    constants; for others hand in `min_snr(gamma=...)` and so on.

    Raises:
      ValueError: names the weighting and those allowed.
    """
    return named(weighting)(jnp.clip(logsnr_t, -LOGSNR_BOUND, LOGSNR_BOUND))


def named(weighting: Weighting) -> LogWeight:
    """The weighting of that name; a function is itself.

    Raises:
      ValueError: names the weighting and those allowed.
    """
    if not isinstance(weighting, str):
        return weighting
    if weighting not in NAMED:
        raise ValueError(
            f"weighting={weighting!r}: allowed are {', '.join(NAMES)}, or a function of logsnr"
        )
    return NAMED[weighting]


def relative_weight(weighting: Weighting, kind: predict.Kind, logsnr_t: LogSnr) -> LogSnr:
    """What |error in `kind`|^2 is multiplied by to count as w |error in x_0|^2."""
    return jnp.exp(log_weight(weighting, logsnr_t) - log_weight(kind, logsnr_t))
