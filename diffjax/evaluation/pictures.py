"""Scores of pictures: how near they are to the true ones, and whether they show the prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from diffjax.evaluation import fidelity, retrieval
from diffjax.evaluation.examples import Examples
from diffjax.images import pixels


@dataclass(frozen=True)
class Fidelity:
    """PSNR and SSIM of enlarged pictures and of bicubic ones, both against the true pictures."""

    def __call__(
        self, made: Mapping[str, np.ndarray], examples: Examples
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """`psnr`, `ssim`, `psnr_bicubic`, `ssim_bicubic`; no SSIM of too small pictures."""
        real = examples.columns["image"]
        plain = pixels.resize(jnp.asarray(made["low_res"]), *real.shape[1:3])
        enlarged = {f"{name}_bicubic": rows for name, rows in likeness(plain, real).items()}
        return {**likeness(made["made"], real), **enlarged}


@dataclass(frozen=True)
class Rebuilt:
    """PSNR and SSIM of pictures that were made from latents of the true ones."""

    def __call__(
        self, made: Mapping[str, np.ndarray], examples: Examples
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """`psnr`, `ssim`; no SSIM of too small pictures."""
        return likeness(made["made"], examples.columns["image"])


def likeness(
    made: np.ndarray | Array, real: UInt8[np.ndarray, "b h w c"]
) -> dict[str, Float[np.ndarray, "..."]]:
    """`psnr` and `ssim` of pictures in [-1, 1], rounded to bytes; no SSIM of too small ones."""
    bytes_ = np.asarray(pixels.to_uint8(jnp.asarray(made)))
    numbers = {"psnr": fidelity.psnr(bytes_, real)}
    if min(real.shape[1:3]) >= fidelity.WINDOW:
        numbers["ssim"] = fidelity.ssim(bytes_, real)
    return numbers


@dataclass(frozen=True, eq=False)
class Gallery:
    """Real pictures, as the means of 16 x 16 squares, among which the nearest is looked for.

    names, captions: of each. The picture of an example is the one with its name and caption.
    """

    features: Float[np.ndarray, "n d"]
    names: Sequence[str]
    captions: Sequence[str]


def gallery_of(
    images: UInt8[np.ndarray, "n h w c"], names: Sequence[str], captions: Sequence[str]
) -> Gallery:
    """The gallery of these pictures."""
    return Gallery(retrieval.small_pixels(images), names, captions)


@dataclass(frozen=True, eq=False)
class Nearest:
    """Whether the real picture nearest to a sample is the one of its prompt."""

    gallery: Gallery

    def __call__(
        self, made: Mapping[str, np.ndarray], examples: Examples
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """`retrieval_nearest` and `retrieval_first_five`: 1 if it is, else 0."""
        pairs = zip(self.gallery.names, self.gallery.captions, strict=True)
        place = {pair: i for i, pair in enumerate(pairs)}
        wanted = [place[pair] for pair in zip(examples.names, examples.captions, strict=True)]
        bytes_ = np.asarray(pixels.to_uint8(jnp.asarray(made["made"])))
        rows = retrieval.small_pixels(bytes_)
        rank = retrieval.ranks(rows, self.gallery.features, np.array(wanted))
        shares = {"retrieval_nearest": rank == 0, "retrieval_first_five": rank < 5}
        return {name: hit.astype(np.float64) for name, hit in shares.items()}
