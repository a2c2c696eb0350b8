"""Guidance as combinators: Denoiser -> Denoiser, in x_0.

x_0, eps, v and the score are affine in each other at fixed x_t, so a combination of guesses whose
weights add up to one is the same combination in all of them. A learned variance is never
extrapolated: it stays that of the network that saw the condition. `Weight` lists what a weight may
be. A Python number that turns guidance off saves the second evaluation of the network; a function
of the noise level saves it at the levels where it is off for the whole batch.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffjax.core.types import Data, Denoised, Denoiser, LogSnr, PerExample, Scalar
from diffjax.diffusion.predict import KINDS, Kind, convert, to_x_0, with_x_0, x_0_of
from diffjax.diffusion.process import alpha_sigma, axes_of_each, per_example
from diffjax.diffusion.sampling.threshold import dynamic_threshold as dynamic_threshold
from diffjax.diffusion.sampling.threshold import static_threshold as static_threshold

# A number, one per example, or a function of the noise level.
Weight: TypeAlias = float | Scalar | PerExample | Callable[[LogSnr], PerExample]
# (x, logsnr_t) -> log p(y | x at that level) up to a constant, row by row.
LogProb: TypeAlias = Callable[[Data, LogSnr], PerExample]
Tree = TypeVar("Tree")


def classifier_free(
    conditional: Denoiser,
    unconditional: Denoiser,
    weight: Weight,
    *,
    rescale: float = 0.0,
    kind: Kind = "x_0",
) -> Denoiser:
    """w x_0(x_t, c) + (1 - w) x_0(x_t)  (Ho & Salimans 2022; Imagen eq. 2): w = 1 is off.

    A Python 1 is `conditional` itself and a Python 0 `unconditional` itself, so the network runs
    once. For a negative prompt hand over the network that sees it as `unconditional`.

    rescale is phi in `1 + phi (std(cond) / std(guided) - 1)`, the factor on each guided x_0
    against over-exposure, 0.7 in the paper (Lin et al. 2023, eq. 15 and 16). The deviation is that
    of each example's prediction of `kind`: the paper takes what its network predicts, v.

    Raises:
      ValueError: rescale outside [0, 1], an unknown kind, a weight of another shape.
    """
    _check_rescale(rescale, kind)
    if _is_number(weight, 1):
        return conditional
    if _is_number(weight, 0) and rescale == 0:
        return unconditional

    def denoise(x_t: Data, logsnr_t: LogSnr) -> Denoised:
        w = _at(weight, logsnr_t)
        guess = conditional(x_t, logsnr_t)
        other = _unless_off(
            weight,
            jnp.all(w == 1),
            lambda: x_0_of(unconditional(x_t, logsnr_t)).astype(x_0_of(guess).dtype),
            instead=x_0_of(guess),
        )
        return with_x_0(guess, _guide(x_0_of(guess), other, w, rescale, kind, x_t, logsnr_t))

    return denoise


def classifier_free_doubled(
    denoise_both: Denoiser, weight: Weight, *, rescale: float = 0.0, kind: Kind = "x_0"
) -> Denoiser:
    """`classifier_free` from one call: rows [0, b) of `denoise_both` see the prompt, [b, 2b) none.

    Both halves get the same x_t, so every other condition of the network must be doubled too. Both
    are computed whatever the weight is.
    """
    _check_rescale(rescale, kind)

    def denoise(x_t: Data, logsnr_t: LogSnr) -> Denoised:
        both = denoise_both(jnp.concatenate([x_t, x_t]), jnp.concatenate([logsnr_t, logsnr_t]))
        conditional, unconditional = jnp.split(x_0_of(both), 2)
        w = _at(weight, logsnr_t)
        guided = _guide(conditional, unconditional, w, rescale, kind, x_t, logsnr_t)
        return with_x_0(jax.tree.map(lambda rows: rows[: len(x_t)], both), guided)

    return denoise


def autoguidance(
    good: Denoiser,
    bad: Denoiser,
    weight: Weight,
    *,
    rescale: float = 0.0,
    kind: Kind = "x_0",
) -> Denoiser:
    """w x_0_good(x_t, c) + (1 - w) x_0_bad(x_t, c)  (Karras et al. 2024b): w = 1 is off.

    `bad` is a smaller or less trained version of `good` that sees the same condition, so that
    their difference points away from the errors they share and not towards the condition. rescale,
    kind: as in `classifier_free`.
    """
    return classifier_free(good, bad, weight, rescale=rescale, kind=kind)


def composed(null: Denoiser, *terms: tuple[Denoiser, Weight]) -> Denoiser:
    """x_0(x_t) + sum_i w_i (x_0(x_t, c_i) - x_0(x_t))  (Liu et al. 2022): w_i = 0 is off.

    terms: pairs (denoiser under c_i, w_i). A negative weight moves away from its condition. One
    term is `classifier_free`; a learned variance is that of the first term.

    Raises:
      ValueError: no terms, or a weight of another shape.
    """
    if not terms:
        raise ValueError("terms=(): at least one pair (denoiser, weight) is needed")

    def denoise(x_t: Data, logsnr_t: LogSnr) -> Denoised:
        nothing = null(x_t, logsnr_t)
        x_0_null = x_0_of(nothing)
        x_0_hat, guesses = x_0_null, []
        for conditional, weight in terms:
            w = _at(weight, logsnr_t)
            run = lambda conditional=conditional: conditional(x_t, logsnr_t)  # noqa: E731
            guesses.append(_unless_off(weight, jnp.all(w == 0), run, instead=nothing))
            x_0_hat = x_0_hat + per_example(w, x_t) * (x_0_of(guesses[-1]) - x_0_null)
        return with_x_0(guesses[0], x_0_hat)

    return denoise


def interval(
    weight: Weight, lo: float, hi: float, outside: float = 1.0
) -> Callable[[LogSnr], PerExample]:
    """w where lo <= logsnr <= hi, elsewhere `outside`  (Kynkäänniemi et al. 2024).

    A weight for the combinators here. The paper's interval of EDM's sigma = e^(-logsnr / 2) is
    lo = -2 log sigma_hi, hi = -2 log sigma_lo. `outside` is the weight that turns guidance off: 1
    for `classifier_free` and `autoguidance`, 0 for `composed` and `classifier_guidance`.

    Raises:
      ValueError: lo above hi.
    """
    if not lo <= hi:
        raise ValueError(f"lo={lo}, hi={hi}: log SNRs, lo at most hi")

    def limited(logsnr_t: LogSnr) -> PerExample:
        inside = (lo <= logsnr_t) & (logsnr_t <= hi)
        return jnp.where(inside, _at(weight, logsnr_t), outside)

    return limited


def classifier_guidance(denoise: Denoiser, log_prob: LogProb, weight: Weight = 1.0) -> Denoiser:
    """x_0_hat + w (sigma_t^2 / alpha_t) grad log p(y | x_t): w = 0 is off.

    The score shifted by w grad log p, written in x_0 = (x_t + sigma^2 score) / alpha, or the eps
    shifted by -w sigma_t grad log p (Dhariwal & Nichol 2021, alg. 2). w = 1 is Bayes' rule.
    log_prob gets x_t and logsnr_t; its row i may depend on row i of x_t alone.
    """
    if _is_number(weight, 0):
        return denoise
    push = gradient_of(log_prob, weight)

    def guided(x_t: Data, logsnr_t: LogSnr) -> Denoised:
        shift = push(x_t, logsnr_t)
        return _shift_score(denoise(x_t, logsnr_t), shift, logsnr_t)

    return guided


def gradient_of(log_prob: LogProb, weight: Weight = 1.0) -> Callable[[Data, LogSnr], Data]:
    """(x_t, logsnr_t) -> w grad log p(y | x_t), the shift of the score.

    For `ancestral.ddpm`, which moves its mean by variance times this (Dhariwal & Nichol 2021, alg.
    1), and for `classifier_guidance`.
    """

    def push(x_t: Data, logsnr_t: LogSnr) -> Data:
        w = _at(weight, logsnr_t)
        gradient = _unless_off(
            weight,
            jnp.all(w == 0),
            lambda: jax.grad(lambda x: jnp.sum(log_prob(x, logsnr_t)))(x_t),
            instead=jnp.zeros_like(x_t),
        )
        return per_example(w, x_t) * gradient

    return push


def guided_by(
    denoise: Denoiser, log_prob: LogProb, scale: Weight, *, of_clean: bool = False
) -> Denoiser:
    """Guidance by the gradient of any log_prob, such as a CLIP's or a classifier's: 0 is off.

    of_clean: `log_prob` knows only clean data, so it is asked about x_0_hat(x_t)
    (`reconstruction_guidance`); otherwise about x_t itself (`classifier_guidance`).
    """
    make = reconstruction_guidance if of_clean else classifier_guidance
    return make(denoise, log_prob, scale)


def reconstruction_guidance(denoise: Denoiser, log_prob: LogProb, weight: Weight = 1.0) -> Denoiser:
    """x_0_hat + w (sigma_t^2 / alpha_t) grad_{x_t} log p(y | x_0_hat(x_t)): w = 0 is off.

    For a log-probability that knows clean data: log_prob gets x_0_hat, and the gradient goes
    through the denoiser (Ho et al. 2022, video diffusion; DPS, Chung et al. 2023). It
    also gets logsnr_t, from which it can tell how uncertain x_0_hat is.
    """
    if _is_number(weight, 0):
        return denoise

    def guided(x_t: Data, logsnr_t: LogSnr) -> Denoised:
        def objective(x: Data) -> tuple[Scalar, Denoised]:
            guess = denoise(x, logsnr_t)
            return jnp.sum(log_prob(x_0_of(guess), logsnr_t)), guess

        gradient, guess = jax.grad(objective, has_aux=True)(x_t)
        return _shift_score(guess, per_example(_at(weight, logsnr_t), x_t) * gradient, logsnr_t)

    return guided


def _guide(
    conditional: Data,
    unconditional: Data,
    w: PerExample,
    phi: float,
    kind: Kind,
    x_t: Data,
    logsnr_t: LogSnr,
) -> Data:
    guided = per_example(w, x_t) * conditional + per_example(1.0 - w, x_t) * unconditional
    if phi == 0:
        return guided
    deviation, deviation_guided = (
        jnp.std(convert(x_0, x_t, logsnr_t, "x_0", kind), axis=axes_of_each(x_t), keepdims=True)
        for x_0 in (conditional, guided)
    )
    # An example of one value has no deviation to match.
    ratio = jnp.where(deviation_guided > 0, deviation / deviation_guided, 1.0)
    factor = 1.0 + phi * (ratio - 1.0)
    # The rescaled prediction, in x_0: converting to `kind` and back would cancel at the noisy end.
    zero = to_x_0(jnp.zeros_like(x_t), x_t, logsnr_t, kind)
    # Where guidance is off the result is exactly the conditional one, without rounding.
    return jnp.where(per_example(w, x_t) == 1, conditional, factor * guided + (1.0 - factor) * zero)


def _check_rescale(rescale: float, kind: Kind) -> None:
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale={rescale}: from 0, off, to 1")
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: allowed are {', '.join(KINDS)}")


def _shift_score(guess: Denoised, shift: Data, logsnr_t: LogSnr) -> Denoised:
    alpha_t, sigma_t = alpha_sigma(logsnr_t, shift)
    return with_x_0(guess, x_0_of(guess) + (jnp.square(sigma_t) / alpha_t) * shift)


def _is_number(weight: Weight, number: int) -> bool:
    return isinstance(weight, int | float) and weight == number


def _at(weight: Weight, logsnr_t: LogSnr) -> PerExample:
    w = jnp.asarray(weight(logsnr_t) if callable(weight) else weight, logsnr_t.dtype)
    if w.shape not in ((), logsnr_t.shape):
        raise ValueError(
            f"weight of shape {w.shape}: a number or one per example, {logsnr_t.shape}"
        )
    return jnp.broadcast_to(w, logsnr_t.shape)


def _unless_off(weight: Weight, off: Array, run: Callable[[], Tree], *, instead: Tree) -> Tree:
    """run(), but `instead` where a weight that depends on the level is off for all examples."""
    return jax.lax.cond(off, lambda: instead, run) if callable(weight) else run()
