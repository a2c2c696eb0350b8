"""Self-conditioning: a network that sees its own last guess of x_0  (Chen et al. 2022).

Such a network takes 2c channels: x_t, then x_0_hat of the evaluation before, zeros if none.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.core.types import Data, Denoiser, LogSnr, Network, PRNGKey, Reshaped
from diffjax.diffusion import predict
from diffjax.diffusion.sampling.step import Multistep, Step, remembering


def with_guess(network: Network, x_0_hat: Data) -> Network:
    """network(x_t, x_0_hat): the self-conditioned network bound to one guess; zeros mean none."""
    return lambda x_t, logsnr_t: network(jnp.concatenate([x_t, x_0_hat], axis=-1), logsnr_t)


def as_denoiser(network: Network, kind: predict.Kind, x_0_hat: Data) -> Denoiser:
    """The denoiser of a self-conditioned network, given the guess of the step before.

    A sampler carries x_0_hat: zeros at first, then what this denoiser said last.
    """
    return predict.as_denoiser(with_guess(network, x_0_hat), kind)


def for_training(
    network: Network, kind: predict.Kind, *, key: PRNGKey, probability: float = 0.5
) -> Network:
    """The network given zeros, or, with `probability`, its own first guess (Chen et al. 2022).

    The guess is the network's output for zeros at the same x_t, and no gradient goes through it.
    One coin is thrown for the whole batch, so that a step without a guess does not compute one.
    The result is a plain network, which any loss takes; the target does not depend on the guess.
    A network with a learned variance returns 2c channels: the guess is of the first c.

    Raises:
      ValueError: for an unknown kind or a probability outside [0, 1].
    """
    if kind not in predict.KINDS:
        raise ValueError(f"predict={kind!r}: allowed are {', '.join(predict.KINDS)}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability}: between 0 and 1")

    def conditioned(x_t: Data, logsnr_t: LogSnr) -> Reshaped:
        nothing = jnp.zeros_like(x_t)

        def guess() -> Data:
            output = with_guess(network, nothing)(x_t, logsnr_t)[..., : x_t.shape[-1]]
            x_0_hat = predict.to_x_0(output, x_t, logsnr_t, kind)
            return jax.lax.stop_gradient(x_0_hat).astype(x_t.dtype)

        coin = jax.random.bernoulli(key, probability)
        x_0_hat = jax.lax.cond(coin, guess, lambda: nothing)
        return with_guess(network, x_0_hat)(x_t, logsnr_t)

    return conditioned


def for_sampling(step: Step | Multistep, bind: Callable[[Data], Denoiser]) -> Multistep:
    """The sampler's rule with the denoiser `bind(x_0_hat)`, x_0_hat being its own last answer.

    bind: a guess -> the denoiser that sees it, as `as_denoiser` makes; guidance may be around it.
    The guess handed on is that of a rung's first evaluation. The denoiser that `sample` hands to
    the rule is not called.
    """
    rule = remembering(step)

    def start(x_T: Data):
        return rule.start(x_T), jnp.zeros_like(x_T)

    def conditioned(denoise, x_t, logsnr_t, logsnr_s, memory, *, key):
        inner, x_0_hat = memory
        said: list[Data] = []

        def listening(x: Data, logsnr: LogSnr):
            guess = bind(x_0_hat)(x, logsnr)
            said.append(predict.x_0_of(guess))
            return guess

        x_s, inner = rule.step(listening, x_t, logsnr_t, logsnr_s, inner, key=key)
        return x_s, (inner, said[0])

    return Multistep(start, conditioned)
