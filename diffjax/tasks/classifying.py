"""The task of telling the class of a noised picture (Dhariwal & Nichol 2021, sec. 4)."""

import itertools
import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffjax.core import rng
from diffjax.core.types import Image, LogSnr, PerExample, PRNGKey, PRNGKeys, Schedule
from diffjax.devices.mesh import Rules
from diffjax.diffusion.process import diffuse
from diffjax.images import pixels
from diffjax.tasks.pictures import COSINE
from diffjax.tasks.task import (
    ALONE,
    Columns,
    ExampleShapes,
    Losses,
    Model,
    Params,
    Peers,
    register,
)

# Ends of the bins of logsnr in which answers are counted, from noise to clean.
EDGES = (-12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0)
# The share of the largest, for a row: how sure the network is of its answer.
CONFIDENCE, RIGHT = "confidence", "right"


@register
@dataclass(frozen=True)
class Classifying:
    """Learns log p(label | x_t), with x_t at levels uniform in u.

    model: (x_t, logsnr_t) -> logits [b num_classes]. names: of the classes, if they have some.
    """

    name: str
    model: Model
    size_px: int
    num_classes: int
    names: tuple[str, ...] = ()
    schedule: Schedule = COSINE
    whole_batch: bool = False
    frozen: Params = field(default_factory=dict, compare=False)

    @property
    def sharding(self) -> Rules:
        """The model's rules of how parameters are split over a mesh."""
        return self.model.sharding

    def columns(self) -> ExampleShapes:
        """`image` in bytes, and its class `label`."""
        sides = (self.size_px, self.size_px, 3)
        return {
            "image": jax.ShapeDtypeStruct(sides, jnp.uint8),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
        }

    def init(self, key: PRNGKey) -> Params:
        """Initial parameters. To be jitted."""
        image = jnp.zeros((1, self.size_px, self.size_px, 3))
        return self.model.init(key, image, jnp.zeros(1))["params"]

    def draw(self, key: PRNGKey, batch: Columns, step: Int[Array, ""]) -> Columns:
        """The times `u` and the noise `eps`."""
        return {
            **batch,
            "u": jax.random.uniform(rng.stream(key, "level"), batch["label"].shape),
            "eps": jax.random.normal(rng.stream(key, "noise"), batch["image"].shape),
        }

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """-log p(label | x_t). metrics: the share of right answers, also by noise level."""
        logsnr_t = self.schedule(batch["u"])
        x_t = diffuse(pixels.from_uint8(batch["image"]), batch["eps"], logsnr_t)
        log_p = self.log_probs(params, x_t, logsnr_t)
        found = right(log_p, batch["label"])
        loss = -jnp.take_along_axis(log_p, batch["label"][:, None], axis=-1)[:, 0]
        levels = zip(names_of(RIGHT), inside(logsnr_t), strict=True)
        by_level = {name: jnp.where(here, found, jnp.nan) for name, here in levels}
        return Losses(loss, {RIGHT: found, **by_level})

    def log_probs(self, params: Params, x_t: Image, logsnr_t: LogSnr) -> Float[Array, "b k"]:
        """log p(k | x_t) of each class k, in float32."""
        logits = self.model.apply({"params": params}, x_t, logsnr_t)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def loss_by_chance(self, batch_size: int) -> float:
        """The loss of the answer that all classes are equally likely."""
        return math.log(self.num_classes)

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """`made`: the pictures, noised to levels spread over the rows; and how sure answers are.

        `confidence` and `right` [b levels]: of each picture at a level drawn in each bin of EDGES,
        NaN where the schedule does not go.
        """
        image, rows = pixels.from_uint8(batch["image"]), len(batch["image"])
        ends = [self.schedule(jnp.float32(u)) for u in (1.0, 0.0)]
        key_level, key_eps = rng.split(rng.stream(keys, "levels"), 2)
        share = jax.scipy.special.ndtr(rng.normal(key_level, (rows,)))  # uniform

        def at(_: None, one: tuple[Array, Array, PRNGKeys]) -> tuple[None, tuple[Array, Array]]:
            low, high, key = one
            logsnr_t = low + (high - low) * share
            log_p = self.log_probs(
                params, diffuse(image, rng.normal(key, image.shape), logsnr_t), logsnr_t
            )
            there = (ends[0] <= logsnr_t) & (logsnr_t <= ends[1])
            sure = jnp.exp(jnp.max(log_p, axis=-1))
            answers = (sure, right(log_p, batch["label"]))
            sure, found = (jnp.where(there, answer, jnp.nan) for answer in answers)
            return None, (sure, found)

        bins = (jnp.array(EDGES[:-1]), jnp.array(EDGES[1:]), rng.split(key_eps, len(EDGES) - 1))
        _, (sure, found) = jax.lax.scan(at, None, bins)
        shown = jnp.linspace(ends[1], ends[0], rows)
        noised = diffuse(image, rng.normal(rng.stream(keys, "shown"), image.shape), shown)
        return {"made": jnp.clip(noised, -1.0, 1.0), CONFIDENCE: sure.T, RIGHT: found.T}


def right(log_p: Float[Array, "b k"], label: Int[Array, " b"]) -> PerExample:
    """1 where the likeliest class is the label, else 0."""
    return (jnp.argmax(log_p, axis=-1) == label).astype(jnp.float32)


def names_of(what: str) -> list[str]:
    """`WHAT_logsnr_LOW_HIGH` for each bin of EDGES."""
    ends = itertools.pairwise(EDGES)
    return [f"{what}_logsnr_{low:g}_{high:g}" for low, high in ends]


def inside(logsnr: LogSnr) -> list[Bool[Array, " b"]]:
    """For each bin of EDGES, which rows are in it; the first and the last have no outer end."""
    place = jnp.digitize(logsnr, jnp.array(EDGES[1:-1]))
    return [place == i for i in range(len(EDGES) - 1)]
