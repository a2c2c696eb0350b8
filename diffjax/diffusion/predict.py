"""What a network may predict, eps, v or x_0, and the way from each to each."""

from typing import TypeAlias

from diffjax.diffusion.process import alpha_sigma
from diffjax.types import Denoiser, Image, LogSnr, Network

Kind: TypeAlias = str
KINDS = ("eps", "v", "x_0")


def to_x_0(output: Image, x_t: Image, logsnr_t: LogSnr, kind: Kind) -> Image:
    """x_0 = (x_t - sigma_t eps) / alpha_t = alpha_t x_t - sigma_t v."""
    alpha_t, sigma_t = alpha_sigma(logsnr_t)
    if kind == "x_0":
        return output
    if kind == "eps":
        return (x_t - sigma_t * output) / alpha_t
    return alpha_t * x_t - sigma_t * output


def to_eps(output: Image, x_t: Image, logsnr_t: LogSnr, kind: Kind) -> Image:
    """eps = (x_t - alpha_t x_0) / sigma_t = sigma_t x_t + alpha_t v."""
    alpha_t, sigma_t = alpha_sigma(logsnr_t)
    if kind == "eps":
        return output
    if kind == "x_0":
        return (x_t - alpha_t * output) / sigma_t
    return sigma_t * x_t + alpha_t * output


def to_v(output: Image, x_t: Image, logsnr_t: LogSnr, kind: Kind) -> Image:
    """v = alpha_t eps - sigma_t x_0  (Salimans & Ho 2022, sec. 4), from either and x_t alone."""
    alpha_t, sigma_t = alpha_sigma(logsnr_t)
    if kind == "v":
        return output
    if kind == "eps":
        return (output - sigma_t * x_t) / alpha_t
    return (alpha_t * x_t - output) / sigma_t


def target(x_0: Image, eps: Image, logsnr_t: LogSnr, kind: Kind) -> Image:
    """What the network should have said; a function of data and noise, never of parameters."""
    alpha_t, sigma_t = alpha_sigma(logsnr_t)
    return {"x_0": x_0, "eps": eps, "v": alpha_t * eps - sigma_t * x_0}[kind]


def as_denoiser(network: Network, kind: Kind) -> Denoiser:
    """The denoiser x_0_hat(x_t, logsnr_t) of a network that predicts `kind`."""
    if kind not in KINDS:
        raise ValueError(f"predict={kind!r}: allowed are {', '.join(KINDS)}")

    def denoise(x_t: Image, logsnr_t: LogSnr) -> Image:
        return to_x_0(network(x_t, logsnr_t), x_t, logsnr_t, kind)

    return denoise
