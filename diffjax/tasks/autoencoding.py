"""The task of shortening pictures to latents from which they can be made again."""

import functools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core import rng
from diffjax.core.types import Image, PerExample, PRNGKey, PRNGKeys, Resized
from diffjax.devices.mesh import Rules
from diffjax.images import pixels
from diffjax.models.autoencoder.codebook import Quantised
from diffjax.models.autoencoder.network import LOG_VARIANCE, Autoencoder
from diffjax.models.perceptual import Perceptual
from diffjax.tasks.adversary import Adversary, balance, with_gradient
from diffjax.tasks.codes import Following
from diffjax.tasks.task import (
    ALONE,
    Columns,
    ExampleShapes,
    Losses,
    Memory,
    Params,
    Peers,
    register,
)


@dataclass(frozen=True)
class Weights:
    """How much each part of the loss counts (Rombach et al. 2022, app. G; its released configs).

    perceptual: times |x - x_hat|. kl: of the sum over the latent, against sums over the picture.
    codes, commitment: of the distance of codes to latents, and of latents to codes.
    """

    perceptual: float = 1.0
    kl: float = 1e-6
    codes: float = 1.0
    commitment: float = 0.25


@register
@dataclass(frozen=True)
class Autoencoding:
    """Learns an encoder and a decoder, and a discriminator beside them if there is an adversary.

    size_px: the side of the pictures, or crops, that training sees. perceptual: a distance whose
    parameters are `frozen["perceptual"]`. following: of a codebook. The parameters are
    `autoencoder`, `log_variance` and `discriminator`; one step moves them all, and `optim.groups`
    tells them apart.
    """

    name: str
    model: Autoencoder
    size_px: int
    weights: Weights = field(default_factory=Weights)
    perceptual: Perceptual | None = None
    adversary: Adversary | None = None
    following: Following = field(default_factory=Following)
    frozen: Params = field(default_factory=dict, compare=False)

    @property
    def whole_batch(self) -> bool:
        """The adversary is weighed by gradients of the whole batch."""
        return self.adversary is not None

    @property
    def sharding(self) -> Rules:
        """How each parameter is split over a mesh."""
        inside = lambda part, rules: tuple((f"(.*/)?{part}/{name}", how) for name, how in rules)  # noqa: E731
        judge = self.adversary.model.sharding if self.adversary else ()
        return (
            ("(.*/)?log_variance", (None,)),
            *inside("autoencoder", self.model.sharding),
            *inside("discriminator", judge),
        )

    @property
    def networks(self) -> tuple[str, ...]:
        """The parts that are counted by themselves."""
        return ("autoencoder", *(("discriminator",) if self.adversary else ()))

    def columns(self) -> ExampleShapes:
        """`image` in bytes."""
        return {"image": jax.ShapeDtypeStruct((self.size_px, self.size_px, 3), jnp.uint8)}

    def init(self, key: PRNGKey) -> Params:
        """Initial parameters. To be jitted."""
        image = jnp.zeros((1, self.model.stride, self.model.stride, 3))
        made = self.model.init(rng.stream(key, "autoencoder"), image)["params"]
        params = {"autoencoder": made}
        if not self.model.sizes.codes:
            params["log_variance"] = jnp.zeros((1,))
        if self.adversary:
            # large enough for all of its convolutions; no parameter depends on it
            large = jnp.zeros((1, 64, 64, 3))
            judge = self.adversary.model.init(rng.stream(key, "discriminator"), large)
            params["discriminator"] = judge["params"]
        return params

    def draw(
        self, key: PRNGKey, batch: Columns, step: Int[Array, ""], memory: Memory = None
    ) -> Columns:
        """`latent_eps` of a Gaussian latent; `judged` [b], 1 from the adversary's first step on."""
        count, height, width, _ = batch["image"].shape
        drawn: dict[str, Array] = {}
        if not self.model.sizes.codes:
            sides = (height // self.model.stride, width // self.model.stride)
            shape = (count, *sides, self.model.sizes.latent)
            drawn["latent_eps"] = jax.random.normal(rng.stream(key, "latent"), shape)
        elif self.following.restart:
            drawn["code_key"] = jax.random.split(rng.stream(key, "codes"), count)
        if self.adversary:
            judged = (step >= self.adversary.start).astype(jnp.float32)
            drawn["judged"] = jnp.broadcast_to(judged, (count,))
        return {**batch, **drawn}

    def first_memory(self) -> Memory:
        """Of how often codes are chosen; None if nothing depends on it."""
        sizes = self.model.sizes
        if not sizes.codes or not self.following.remembers:
            return None
        return self.following.first(sizes.codes, sizes.latent)

    def remember(self, memory: Memory, batch: Columns, losses: Losses) -> Memory:
        """With the latents of a batch and the codes that they chose."""
        latents = losses.seen["latent"].reshape(-1, self.model.sizes.latent)
        key = batch["code_key"][0] if self.following.restart else jax.random.key(0)
        return self.following.after(memory, latents, losses.seen["code"].reshape(-1), key)

    def bounded(self, params: Params, memory: Memory = None) -> Params:
        """With the codes that the memory has moved."""
        if memory is None:
            return params
        made = params["autoencoder"]
        codes = self.following.moved(made["codebook"]["codes"], memory)
        return {**params, "autoencoder": {**made, "codebook": {"codes": codes}}}

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """The loss of each row, per number of its picture, and the discriminator's own.

        sum_i (|x - x_hat| + w d(x, x_hat)) / e^v + v, plus the latent's part, minus the weighted
        verdict of the adversary; v is the learned log variance. With a codebook there is no v, and
        the sum is a mean, as in the paper's code. The discriminator's hinge loss moves it alone.
        """
        image = pixels.from_uint8(batch["image"])
        # losses are sums over the values of a picture, and means with a codebook
        unit = 1 if self.model.sizes.codes else image[0].size
        made = params["autoencoder"]
        latent, of_latent, metrics, seen = self._latent(made, image, batch, peers)
        features = self._apply(made, latent, method="features")
        rebuilt = self._apply(made, features, method="picture")
        fixed = jax.lax.stop_gradient(rebuilt)
        error, pull = jax.vjp(functools.partial(self._error, image), fixed)
        (d_error,) = pull(jnp.ones_like(error))
        total = unit * with_gradient(error, rebuilt, d_error)
        if "log_variance" in params:
            v = params["log_variance"][0]
            total, d_error = total * jnp.exp(-v) + unit * v, d_error * jnp.exp(-v)
            metrics["log_variance"] = jnp.broadcast_to(v, error.shape)
        total = total + of_latent
        metrics |= fidelity(image, fixed)
        if self.adversary is None:
            return Losses(total / unit, metrics, seen)
        judge, kernel = params["discriminator"], jax.lax.stop_gradient(made["last"]["kernel"])
        verdict, pull = jax.vjp(functools.partial(self.adversary.verdict, judge), fixed)
        (d_against,) = pull(-jnp.ones_like(verdict))

        def by_last(kernel: Float[Array, "i j f d"]) -> Image:
            used = {**still, "last": {**still["last"], "kernel": kernel}}
            return self._apply(used, shared, method="picture")

        still, shared = jax.lax.stop_gradient((made, features))
        ratio = balance(by_last, kernel, unit * d_error, d_against, peers)
        weight = batch["judged"] * self.adversary.weight * jax.lax.stop_gradient(ratio)
        total = total + weight * with_gradient(-verdict, rebuilt, d_against)
        hinge = self.adversary.hinge(judge, image, fixed)
        metrics |= {"verdict": verdict, "hinge": hinge, "adversary_weight": weight}
        return Losses(total / unit + batch["judged"] * hinge, metrics, seen)

    def _apply(self, params: Params, *inputs: Array, method: str) -> Array:
        found: Array = self.model.apply({"params": params}, *inputs, method=method)  # type: ignore[assignment]
        return found

    def _error(self, image: Image, rebuilt: Image) -> PerExample:
        """The mean of |x - x_hat| over the values of a picture, plus w d(x, x_hat)."""
        error = jnp.mean(jnp.abs(image - rebuilt), axis=(1, 2, 3))
        if self.perceptual is None:
            return error
        distance = self.perceptual.distance(self.frozen["perceptual"], image, rebuilt)
        return error + self.weights.perceptual * distance

    def _latent(
        self, params: Params, image: Image, batch: Columns, peers: Peers
    ) -> tuple[Resized, PerExample, dict[str, PerExample], Columns]:
        """(the latent, its part of the loss, metrics, what the memory reads)."""
        encoded = self._apply(params, image, method="encode")
        if not self.model.sizes.codes:
            latent, kl = drawn_latent(encoded, batch["latent_eps"])
            by_channel = {f"kl_{i}": kl[:, i] for i in range(kl.shape[-1])}
            part = self.weights.kl * jnp.sum(kl, axis=-1)
            return latent, part, {**by_channel, **spread_of(latent, peers)}, {}
        found: Quantised = self.model.apply({"params": params}, encoded, method="quantise")  # type: ignore[assignment]
        part = self.weights.commitment * found.to_latent
        if not self.following.average:
            part = part + self.weights.codes * found.to_code
        used = jnp.zeros(self.model.sizes.codes).at[peers.all(found.code)].set(1.0)
        metrics = {
            "to_latent": found.to_latent,
            "codes_used": jnp.broadcast_to(jnp.mean(used), part.shape),
            **spread_of(encoded, peers),
        }
        seen = {"latent": jax.lax.stop_gradient(encoded), "code": found.code}
        return found.vector, part, metrics, seen if self.following.remembers else {}

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """`made`: the pictures after the middle of their latents."""
        image = pixels.from_uint8(batch["image"])
        rebuilt = self._apply(params["autoencoder"], image, method="__call__")
        return {"made": jnp.clip(rebuilt, -1.0, 1.0)}


def drawn_latent(
    moments: Float[Array, "b h w zz"], eps: Float[Array, "b h w z"]
) -> tuple[Image, Float[Array, "b z"]]:
    """(mean + deviation eps, the nats KL(N(mean, variance) | N(0, 1)) of each channel).

    moments: the means, then the log variances.
    """
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    log_variance = jnp.clip(log_variance, *LOG_VARIANCE)
    kl = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
    return mean + jnp.exp(0.5 * log_variance) * eps, jnp.sum(kl, axis=(1, 2))


def spread_of(latent: Image, peers: Peers) -> dict[str, PerExample]:
    """`latent_mean_I` and `latent_std_I` of each channel, over the whole batch."""
    fixed = jax.lax.stop_gradient(latent)
    mean = jnp.mean(peers.all(jnp.mean(fixed, axis=(1, 2))), axis=0)
    square = jnp.mean(peers.all(jnp.mean(jnp.square(fixed - mean), axis=(1, 2))), axis=0)
    rows, std = len(latent), jnp.sqrt(square)
    named = {f"latent_mean_{i}": mean[i] for i in range(len(mean))}
    named |= {f"latent_std_{i}": std[i] for i in range(len(std))}
    return {name: jnp.broadcast_to(value, (rows,)) for name, value in named.items()}


def fidelity(image: Image, rebuilt: Image) -> dict[str, PerExample]:
    """`error`, the mean of |x - x_hat|, and `psnr` in dB, of pictures clipped to [-1, 1]."""
    away = image - jnp.clip(rebuilt, -1.0, 1.0)
    square = jnp.mean(jnp.square(away), axis=(1, 2, 3))
    return {
        "error": jnp.mean(jnp.abs(away), axis=(1, 2, 3)),
        "psnr": 10 * jnp.log10(4.0 / jnp.maximum(square, 1e-10)),
    }
