"""What a network may predict, and how each kind is converted to every other.

Every kind is a combination a x_0 + b eps at a noise level. With x_t = alpha x_0 + sigma eps that
makes two equations in two unknowns, so one table of (a, b) holds all conversions.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Data, Denoised, Denoiser, Factor, Guess, LogSnr, Network
from diffjax.diffusion.process import Like, alpha_sigma

Kind: TypeAlias = str
KINDS = ("eps", "v", "x_0", "score", "flow", "edm")
# The data's standard deviation that "edm" assumes (Karras et al. 2022, table 1). Data of another
# are scaled to this one, as EDM2 does with its latents; then nothing else needs the number.
SIGMA_DATA = 0.5


class Coefficients(NamedTuple):
    """output = x_0_part x_0 + eps_part eps, and det = alpha eps_part - sigma x_0_part."""

    x_0_part: Factor
    eps_part: Factor
    det: Factor


def coefficients(kind: Kind, logsnr_t: LogSnr, like: Like = None) -> Coefficients:
    """How the network's output is made of x_0 and eps.

    eps     the noise (Ho et al. 2020)
    x_0     the clean data
    v       alpha eps - sigma x_0 (Salimans & Ho 2022, sec. 4)
    score   grad log q(x_t | x_0) = -eps / sigma (Song et al. 2021)
    flow    eps - x_0, the velocity of the straight path (1 - t) x_0 + t eps (Lipman et al. 2023)
    edm     F of D = c_skip x + c_out F (Karras et al. 2022, table 1), with the data's deviation
            SIGMA_DATA; for a deviation of 1 it is -v

    Shaped to multiply `like`; without it, pictures.

    Raises:
      ValueError: names the kind and those allowed.
    """
    known(kind)
    alpha, sigma = alpha_sigma(logsnr_t, like)
    zero, one = jnp.zeros_like(alpha), jnp.ones_like(alpha)
    if kind == "eps":
        return Coefficients(zero, one, alpha)
    if kind == "x_0":
        return Coefficients(one, zero, -sigma)
    if kind == "v":
        return Coefficients(-sigma, alpha, one)
    if kind == "score":
        return Coefficients(zero, -1.0 / sigma, -alpha / sigma)
    if kind == "flow":
        return Coefficients(-one, one, alpha + sigma)
    norm = jnp.sqrt(jnp.square(sigma) + jnp.square(SIGMA_DATA * alpha))  # of edm
    return Coefficients(sigma / (SIGMA_DATA * norm), -SIGMA_DATA * alpha / norm, -norm / SIGMA_DATA)


def known(kind: Kind) -> None:
    """Raise a ValueError for an unknown kind, with those allowed."""
    if kind not in KINDS:
        raise ValueError(f"predict={kind!r}: allowed are {', '.join(KINDS)}")


def to_x_0(output: Data, x_t: Data, logsnr_t: LogSnr, kind: Kind) -> Data:
    """x_0 = (x_t - sigma_t eps) / alpha_t = alpha_t x_t - sigma_t v, and so on for every kind."""
    if kind == "x_0":
        return output
    _, sigma_t = alpha_sigma(logsnr_t, x_t)
    _, eps_part, det = coefficients(kind, logsnr_t, x_t)
    return (eps_part / det) * x_t - (sigma_t / det) * output


def to_eps(output: Data, x_t: Data, logsnr_t: LogSnr, kind: Kind) -> Data:
    """eps = (x_t - alpha_t x_0) / sigma_t = sigma_t x_t + alpha_t v, and so on for every kind."""
    if kind == "eps":
        return output
    alpha_t, _ = alpha_sigma(logsnr_t, x_t)
    x_0_part, _, det = coefficients(kind, logsnr_t, x_t)
    return (alpha_t / det) * output - (x_0_part / det) * x_t


def to_v(output: Data, x_t: Data, logsnr_t: LogSnr, kind: Kind) -> Data:
    """v = alpha_t eps - sigma_t x_0  (Salimans & Ho 2022, sec. 4), from any kind and x_t."""
    return convert(output, x_t, logsnr_t, kind, "v")


def to_score(output: Data, x_t: Data, logsnr_t: LogSnr, kind: Kind) -> Data:
    """score = -eps / sigma_t, of the variance preserving x_t  (Song et al. 2021)."""
    return convert(output, x_t, logsnr_t, kind, "score")


def convert(output: Data, x_t: Data, logsnr_t: LogSnr, source: Kind, wanted: Kind) -> Data:
    """The prediction `output` of kind `source`, as a prediction of kind `wanted`.

    Straight from one to the other: wanted = p output + q x_t. Going through x_0 would divide a
    difference of near-equal numbers at one of the two ends. With u the unit roundoff,
    |error| <= (6 + |logsnr|) u (|p output| + |q x_t|), |q| before its two terms cancel. Infinite
    where the answer is: x_0 from eps or score at logsnr = -inf, eps from x_0 and any score at +inf.
    """
    if source == wanted:
        return output
    a, b, det = coefficients(source, logsnr_t, x_t)
    c, d, det_wanted = coefficients(wanted, logsnr_t, x_t)
    return (det_wanted / det) * output + ((b * c - a * d) / det) * x_t


def target(x_0: Data, eps: Data, logsnr_t: LogSnr, kind: Kind) -> Data:
    """The right output for the network: a function of data and noise, never of parameters."""
    x_0_part, eps_part, _ = coefficients(kind, logsnr_t, x_0)
    return x_0_part * x_0 + eps_part * eps


def log_weight(kind: Kind, logsnr_t: LogSnr) -> LogSnr:
    """log w in |error in `kind`|^2 = w |error in x_0|^2 at fixed x_t: w = (det / sigma)^2.

    eps: w = alpha^2 / sigma^2; v: 1 / sigma^2 (Salimans & Ho 2022, sec. 4); edm: EDM's lambda
    (Karras et al. 2022, table 1). In logs, since the weights span forty powers of ten.
    """
    log_alpha = 0.5 * jax.nn.log_sigmoid(logsnr_t)
    log_sigma = 0.5 * jax.nn.log_sigmoid(-logsnr_t)
    data = 2.0 * jnp.log(SIGMA_DATA)
    log_det = {
        "eps": log_alpha,
        "x_0": log_sigma,
        "v": jnp.zeros_like(logsnr_t),
        "score": log_alpha - log_sigma,
        "flow": jnp.logaddexp(log_alpha, log_sigma),
        "edm": 0.5 * (jnp.logaddexp(2.0 * log_sigma, data + 2.0 * log_alpha) - data),
    }[kind]
    return 2.0 * (log_det - log_sigma)


def as_denoiser(network: Network, kind: Kind) -> Denoiser:
    """The denoiser x_0_hat(x_t, logsnr_t) of a network that predicts `kind`."""
    known(kind)

    def denoise(x_t: Data, logsnr_t: LogSnr) -> Data:
        return to_x_0(network(x_t, logsnr_t), x_t, logsnr_t, kind)

    return denoise


def precondition(network: Network) -> Network:
    """The network handed c_in x / alpha, of unit variance for data of SIGMA_DATA, in place of x_t.

    c_in = 1 / sqrt(sigma^2 + sigma_data^2) in EDM's variance exploding x (table 1). Together with
    the kind "edm" this is the whole of EDM's preconditioning.
    """

    def preconditioned(x_t: Data, logsnr_t: LogSnr) -> Data:
        alpha_t, sigma_t = alpha_sigma(logsnr_t, x_t)
        norm = jnp.sqrt(jnp.square(sigma_t) + jnp.square(SIGMA_DATA * alpha_t))
        return network(x_t / norm, logsnr_t)

    return preconditioned


def as_denoiser_with_variance(network: Network, kind: Kind) -> Denoiser:
    """The denoiser of a network with 2c channels: the prediction, then the variance (IDDPM).

    The last c channels, nominally in [-1, 1], become the fraction (n + 1) / 2 of the way from the
    small to the large variance, in logs (Nichol & Dhariwal 2021, eq. 15).
    """
    known(kind)

    def denoise(x_t: Data, logsnr_t: LogSnr) -> Guess:
        output, variance = jnp.split(network(x_t, logsnr_t), 2, axis=-1)
        return Guess(to_x_0(output, x_t, logsnr_t, kind), variance_fraction(variance))

    return denoise


def variance_fraction(output: Float[Array, "..."]) -> Float[Array, "..."]:
    """(n + 1) / 2: the network's variance output as a fraction of the way from small to large."""
    return 0.5 * (output + 1.0)


def x_0_of(guess: Denoised) -> Data:
    """The data in what a denoiser returned, which may hold a variance too."""
    return guess.x_0 if isinstance(guess, Guess) else guess


def with_x_0(guess: Denoised, x_0: Data) -> Denoised:
    """The same guess with another x_0; the variance stays as it was."""
    return guess._replace(x_0=x_0) if isinstance(guess, Guess) else x_0
