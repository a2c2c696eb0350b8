"""What a network is trained for: functions (network, x_0, eps, u) -> the error of each example.

They draw nothing: the noise eps [b *shape] and the times u [b] are arguments, so that an error
depends neither on the devices nor on micro-batches. Training lowers the mean over u ~ U(0, 1);
errors at times drawn from another density are weighted by `Times.weight`.

Objectives made from equal arguments are equal and have one hash, as a compiled program's key needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffjax.core.types import Data, Denoiser, Guess, LogSnr, Network, PerExample, Schedule
from diffjax.diffusion.predict import (
    Kind,
    as_denoiser,
    as_denoiser_with_variance,
    known,
    to_x_0,
    variance_fraction,
)
from diffjax.diffusion.process import diffuse, mean_of_each
from diffjax.diffusion.schedule import dlogsnr_du
from diffjax.diffusion.training.terms import Ladder, num_steps, rung_at, vlb_term, weighted_error
from diffjax.diffusion.training.weighting import Weighting, named

BITS = 1.0 / np.log(2.0)  # per nat
# A ladder as an array, or as numbers that compare by value.
Rungs: TypeAlias = Ladder | tuple[float, ...]
AnyLadder: TypeAlias = Sequence[float] | Float[np.ndarray, " n"] | Ladder
OVER = ("u", "logsnr")


@runtime_checkable
class Objective(Protocol):
    """An error per example, and the level at which it is taken."""

    def __call__(self, network: Network, x_0: Data, eps: Data, u: PerExample) -> PerExample:
        """The error of each example at x_t = diffuse(x_0, eps, logsnr(u))."""
        ...

    def logsnr(self, u: PerExample) -> LogSnr:
        """The noise level of the time u in [0, 1]."""
        ...


def simple(
    schedule: Schedule, predict: Kind = "eps", weighting: Weighting = "eps", over: str = "u"
) -> "Simple":
    """w |x_0 - x_0_hat|^2, a mean over dimensions, of a network that says `predict`.

    With both "eps" this is L_simple (Ho et al. 2020, eq. 14). The arguments are those of
    `loss.diffusion_loss`.

    Raises:
      ValueError: names the argument, its value and those allowed.
    """
    return Simple(schedule, predict, weighting, over)


def hybrid(
    logsnrs: AnyLadder,
    predict: Kind = "eps",
    weighting: Weighting = "eps",
    vlb_weight: float = 0.001,
    eight_bit: bool = True,
) -> "Hybrid":
    """L_simple + lambda L_vlb of a network with 2c channels  (Nichol & Dhariwal 2021, eq. 16).

    The arguments are those of `variational.hybrid_loss`.

    Raises:
      ValueError: names the argument, its value and those allowed.
    """
    return Hybrid(_numbers(logsnrs), predict, weighting, vlb_weight, eight_bit)


def vlb(
    logsnrs: AnyLadder,
    predict: Kind = "eps",
    gamma: float | None = 0.0,
    eight_bit: bool = True,
) -> "Vlb":
    """T times a term of L_0 + ... + L_{T-1}, in bits per dimension  (Ho et al. 2020, eq. 5).

    gamma: 0 is the small and 1 the large variance; None is the learned one, of a network with 2c
    channels. The other arguments are those of `variational.vlb_loss`.

    Raises:
      ValueError: names the argument, its value and those allowed.
    """
    if gamma is not None and not 0 <= gamma <= 1:
        raise ValueError(
            f"gamma={gamma}: between 0 (small variance) and 1 (large), or None (learned)"
        )
    return Vlb(_numbers(logsnrs), predict, gamma, eight_bit)


@dataclass(frozen=True)
class Simple:
    """See `simple`."""

    schedule: Schedule
    predict: Kind
    weighting: Weighting
    over: str

    def __post_init__(self):
        """Raise a ValueError for arguments that are not allowed."""
        known(self.predict)
        named(self.weighting)
        if self.over not in OVER:
            raise ValueError(f"over={self.over!r}: allowed are {', '.join(OVER)}")

    def __call__(self, network: Network, x_0: Data, eps: Data, u: PerExample) -> PerExample:
        """w |x_0 - x_0_hat|^2 of each example, times -dlogsnr/du if over logsnr."""
        logsnr_t = self.schedule(u)
        output = network(diffuse(x_0, eps, logsnr_t), logsnr_t)
        error = weighted_error(output, x_0, eps, logsnr_t, self.predict, self.weighting)
        return error if self.over == "u" else error * -dlogsnr_du(self.schedule, u)

    def logsnr(self, u: PerExample) -> LogSnr:
        """The schedule's level."""
        return self.schedule(u)


@dataclass(frozen=True)
class Hybrid:
    """See `hybrid`."""

    logsnrs: Rungs
    predict: Kind
    weighting: Weighting
    vlb_weight: float
    eight_bit: bool

    def __post_init__(self):
        """Raise a ValueError for arguments that are not allowed."""
        known(self.predict)
        named(self.weighting)
        num_steps(_ladder(self.logsnrs))

    def __call__(self, network: Network, x_0: Data, eps: Data, u: PerExample) -> PerExample:
        """L_simple + lambda L_vlb; no gradient goes from L_vlb to the prediction."""
        logsnrs = _ladder(self.logsnrs)
        rung = rung_at(u, logsnrs)
        logsnr_t = logsnrs[rung]
        x_t = diffuse(x_0, eps, logsnr_t)
        output, variance = jnp.split(network(x_t, logsnr_t), 2, axis=-1)
        x_0_hat = jax.lax.stop_gradient(to_x_0(output, x_t, logsnr_t, self.predict))
        guess = Guess(x_0_hat, variance_fraction(variance))
        terms = vlb_term(guess, x_0, logsnrs, rung, eight_bit=self.eight_bit)
        bound = num_steps(logsnrs) * BITS * mean_of_each(terms)
        error = weighted_error(output, x_0, eps, logsnr_t, self.predict, self.weighting)
        return error + self.vlb_weight * bound

    def logsnr(self, u: PerExample) -> LogSnr:
        """The level of the rung that u falls on."""
        return _level(self.logsnrs, u)


@dataclass(frozen=True)
class Vlb:
    """See `vlb`."""

    logsnrs: Rungs
    predict: Kind
    gamma: float | None
    eight_bit: bool

    def __post_init__(self):
        """Raise a ValueError for arguments that are not allowed."""
        known(self.predict)
        num_steps(_ladder(self.logsnrs))

    def __call__(self, network: Network, x_0: Data, eps: Data, u: PerExample) -> PerExample:
        """The bound's term of each example, times the number of terms."""
        bind = as_denoiser_with_variance if self.gamma is None else as_denoiser
        return self.of_denoiser(bind(network, self.predict), x_0, eps, u)

    def of_denoiser(self, denoise: Denoiser, x_0: Data, eps: Data, u: PerExample) -> PerExample:
        """The same for a denoiser; one that returns its own variance needs no gamma."""
        logsnrs = _ladder(self.logsnrs)
        rung = rung_at(u, logsnrs)
        guess = denoise(diffuse(x_0, eps, logsnrs[rung]), logsnrs[rung])
        gamma = 0.0 if self.gamma is None else self.gamma
        terms = vlb_term(guess, x_0, logsnrs, rung, gamma=gamma, eight_bit=self.eight_bit)
        return num_steps(logsnrs) * BITS * mean_of_each(terms)

    def logsnr(self, u: PerExample) -> LogSnr:
        """The level of the rung that u falls on."""
        return _level(self.logsnrs, u)


def _numbers(logsnrs: AnyLadder) -> Rungs:
    """The ladder as values that compare, or as it is while it is being traced."""
    if isinstance(logsnrs, jax.core.Tracer):
        return logsnrs
    return tuple(np.asarray(logsnrs).tolist())


def _ladder(logsnrs: Rungs) -> Ladder:
    return jnp.asarray(logsnrs) if isinstance(logsnrs, tuple) else logsnrs


def _level(logsnrs: Rungs, u: PerExample) -> LogSnr:
    logsnrs = _ladder(logsnrs)
    return logsnrs[rung_at(u, logsnrs)]
