"""The task of telling which text belongs to which picture (CLIP; SigLIP)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core import rng
from diffjax.core.types import Image, LogSnr, PerExample, PRNGKey, PRNGKeys
from diffjax.devices.mesh import Rules
from diffjax.diffusion.process import diffuse
from diffjax.images import pixels
from diffjax.models.clip.backbone import BACKBONES, States
from diffjax.models.clip.clip import CLIP, WHOLE, Dropped, Features, Pair
from diffjax.tasks.pictures import COSINE
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
from diffjax.tasks.text import mask_from_length

Kind = Literal["softmax", "sigmoid"]
# The column of what a frozen backbone makes of the picture.
VECTOR = "vector"
KINDS: tuple[Kind, ...] = ("softmax", "sigmoid")
# What the logarithm of the scale is held in after each step (Radford et al. 2021, sec. 2.5).
LOG_SCALE_LIMITS = (0.0, math.log(100.0))
# Features of this device's rows, those of all devices, and the places of the former in the latter.
Rows: TypeAlias = tuple[Features, Features, Int[Array, " b"]]


@register
@dataclass(frozen=True)
class Contrastive:
    """Learns features of pictures and texts, with large products for those that belong together.

    kind: "softmax" is CLIP's loss, "sigmoid" SigLIP's. chunk: so many rows of logits are in memory
    at a time, each against the whole batch; the backward pass computes them again. So their memory
    grows linearly with the batch. shift_px: in training a picture is moved by up to so many pixels.
    If the model takes noised pictures, training noises them, at levels uniform in u. If the model
    has a backbone, training reads its vectors and no pictures, and if it is told states, these and
    no tokens; drop: the share of the numbers of a vector, and of a mean state, that training leaves
    out.
    """

    name: str
    model: CLIP
    kind: Kind = "softmax"
    chunk: int = 512
    shift_px: int = 0
    drop: float = 0.0
    whole_batch: bool = True
    frozen: Params = field(default_factory=dict, compare=False)

    @property
    def sharding(self) -> Rules:
        """The model's rules of how parameters are split over a mesh."""
        return self.model.sharding

    @property
    def size_px(self) -> int:
        """The side of the pictures."""
        return self.model.config.size_px

    def columns(self) -> ExampleShapes:
        """`image` in bytes or `vector`; and the ids `tokens` of a text, zero after its end, or its
        states `text`, zero beyond `text_length`.
        """
        config = self.model.config
        whole = lambda *shape, of=jnp.float32: jax.ShapeDtypeStruct(shape, of)  # noqa: E731
        found = {"image": whole(self.size_px, self.size_px, 3, of=jnp.uint8)}
        if config.backbone:
            found = {VECTOR: whole(BACKBONES[config.backbone])}
        if config.told:
            text = whole(config.length, config.told.width, of=jnp.bfloat16)
            return {**found, "text": text, "text_length": whole(of=jnp.int32)}
        return {**found, "tokens": whole(config.length, of=jnp.int32)}

    def init(self, key: PRNGKey) -> Params:
        """Initial parameters. To be jitted."""
        config = self.model.config
        zeros = {k: jnp.zeros((1, *v.shape), v.dtype) for k, v in self.columns().items()}
        image = zeros[VECTOR] if config.backbone else pixels.from_uint8(zeros["image"])
        return self.model.init(key, image, self._words(zeros))["params"]

    def draw(self, key: PRNGKey, batch: Columns, step: Int[Array, ""]) -> Columns:
        """With `shift` [b 2], in pixels, if pictures are moved; `u` and `eps` of noise; `kept`."""
        count, most, drawn = rows_of(batch), self.shift_px, {}
        if most:
            key_shift = rng.stream(key, "shift")
            drawn["shift"] = jax.random.randint(key_shift, (count, 2), -most, most + 1)
        if self.model.config.noised:
            drawn["u"] = jax.random.uniform(rng.stream(key, "level"), (count,))
            drawn["eps"] = jax.random.normal(rng.stream(key, "noise"), batch["image"].shape)
        if self.drop and VECTOR in batch:
            key_drop, shape = rng.stream(key, "drop"), batch[VECTOR].shape
            drawn["kept"] = jax.random.bernoulli(key_drop, 1 - self.drop, shape)
        if self.drop and "text" in batch:
            key_drop, shape = rng.stream(key, "drop_text"), (count, batch["text"].shape[-1])
            drawn["text_kept"] = jax.random.bernoulli(key_drop, 1 - self.drop, shape)
        return {**batch, **drawn}

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """Of each row, against the pictures and texts of the whole batch.

        metrics: whether the own text is the likeliest of all, whether the own picture is, and the
        scale.
        """
        pair = self.pair(params, batch)
        of_rows = symmetric if self.kind == "softmax" else pairwise
        loss, text_found, image_found = of_rows(pair, peers, self.chunk)
        scale = jnp.broadcast_to(jnp.exp(pair.log_scale), loss.shape)
        found = {"text_found": text_found, "image_found": image_found}
        return Losses(loss, {**found, "scale": scale})

    def pair(self, params: Params, batch: Columns) -> Pair:
        """The unit vectors of the pictures and texts of a batch; x_t if the batch has noise."""
        dropped = Dropped(batch.get("kept"), batch.get("text_kept"))
        if self.model.config.backbone:
            return self._pair(params, batch[VECTOR], batch, dropped=dropped)
        image, logsnr = pixels.from_uint8(batch["image"]), None
        if "shift" in batch:
            image = shifted(image, batch["shift"], self.shift_px)
        if "eps" in batch:
            logsnr = COSINE(batch["u"])
            image = diffuse(image, batch["eps"], logsnr)
        return self._pair(params, image, batch, logsnr, dropped)

    def _pair(
        self,
        params: Params,
        image: Image | Float[Array, "b d"],
        batch: Columns,
        logsnr: LogSnr | None = None,
        dropped: Dropped = WHOLE,
    ) -> Pair:
        found: Pair = self.model.apply(  # type: ignore[assignment]
            {"params": params}, image, self._words(batch), logsnr, dropped
        )
        return found

    def _words(self, batch: Columns) -> Int[Array, "b l"] | States:
        """The token ids of a batch, or the states that stand for them."""
        if not self.model.config.told:
            return batch["tokens"]
        mask = mask_from_length(batch["text_length"], batch["text"].shape[1])
        return States(batch["text"].astype(jnp.float32), mask)

    def bounded(self, params: Params, memory: Memory = None) -> Params:
        """The scale held in its limits, as CLIP holds it after each step; SigLIP does not."""
        if self.kind == "sigmoid":
            return params
        return {**params, "log_scale": jnp.clip(params["log_scale"], *LOG_SCALE_LIMITS)}

    def loss_by_chance(self, batch_size: int) -> float:
        """The loss of features that tell nothing: the best constant answer.

        log b for the softmax. For the sigmoid, where 1 of b answers is yes: b H(1/b), of which
        H is the entropy in nats.
        """
        b = float(batch_size)
        if self.kind == "softmax" or b < 2:
            return math.log(b)
        return math.log(b) - (b - 1) * math.log1p(-1 / b)

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """`made`: for each text, the picture of the batch that fits best; and the unit vectors."""
        pair = self.pair(params, batch)
        found = {"clip_image": pair.image, "clip_text": pair.text}
        if "image" not in batch:  # only the vectors of pictures were read
            return found
        best = jnp.argmax(pair.text @ pair.image.T, axis=-1)
        return {"made": pixels.from_uint8(batch["image"])[best], **found}


def rows_of(batch: Columns) -> int:
    """How many examples there are."""
    return len(next(iter(batch.values())))


def shifted(image: Image, shift: Int[Array, "b 2"], most: int) -> Image:
    """Pictures moved down and right by `shift`, at most `most`; their edges are repeated."""
    wide = jnp.pad(image, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")

    def cut(one: Float[Array, "_ _ c"], by: Int[Array, "2"]) -> Float[Array, "h w c"]:
        return jax.lax.dynamic_slice(one, (most - by[0], most - by[1], 0), image.shape[1:])

    return jax.vmap(cut)(wide, shift)


def symmetric(pair: Pair, peers: Peers, chunk: int) -> tuple[PerExample, PerExample, PerExample]:
    """1/2 (-log softmax_j(s x_i y_j)_i - log softmax_j(s y_i x_j)_i).

    Radford et al. 2021, fig. 3: x are the unit vectors of the pictures, y those of the texts, s the
    scale; j runs over the whole batch. Also returns whether each row finds its text and its
    picture.
    """
    images, texts, scale = peers.all(pair.image), peers.all(pair.text), jnp.exp(pair.log_scale)

    def of_rows(rows: Rows) -> tuple[PerExample, PerExample, PerExample]:
        image, text, mine = rows
        to_text = _right(scale * products(image, texts) + pair.bias, mine)
        to_image = _right(scale * products(text, images) + pair.bias, mine)
        return 0.5 * (to_text[0] + to_image[0]), to_text[1], to_image[1]

    return in_chunks(of_rows, (pair.image, pair.text, peers.mine(len(pair.image))), chunk)


def pairwise(pair: Pair, peers: Peers, chunk: int) -> tuple[PerExample, PerExample, PerExample]:
    """-sum_j log sigmoid(z_ij (s x_i y_j + b)), z_ij = 1 if i = j else -1.

    Zhai et al. 2023, alg. 1. Also returns whether each row finds its text, and NaN, since no row
    looks for its picture.
    """
    texts, scale = peers.all(pair.text), jnp.exp(pair.log_scale)

    def of_rows(rows: Rows) -> tuple[PerExample, PerExample, PerExample]:
        image, _, mine = rows
        logits = scale * products(image, texts) + pair.bias
        sign = jnp.where(jnp.arange(len(texts)) == mine[:, None], 1.0, -1.0)
        loss = -jnp.sum(jax.nn.log_sigmoid(sign * logits), axis=-1)
        found = (jnp.argmax(logits, axis=-1) == mine).astype(jnp.float32)
        return loss, found, jnp.full_like(loss, jnp.nan)

    return in_chunks(of_rows, (pair.image, pair.text, peers.mine(len(pair.image))), chunk)


def products(rows: Features, others: Float[Array, "n e"]) -> Float[Array, "b n"]:
    """All scalar products, in full precision: a scale of 100 multiplies what rounding does."""
    return jnp.matmul(rows, others.T, precision=jax.lax.Precision.HIGHEST)


def _right(logits: Float[Array, "b n"], mine: Int[Array, " b"]) -> tuple[PerExample, PerExample]:
    """The cross-entropy of the places `mine`, and whether they have the largest logits."""
    own = jnp.take_along_axis(logits, mine[:, None], axis=-1)[:, 0]
    found = (jnp.argmax(logits, axis=-1) == mine).astype(jnp.float32)
    return jax.nn.logsumexp(logits, axis=-1) - own, found


def in_chunks(
    of_rows: Callable[[Rows], tuple[PerExample, PerExample, PerExample]], rows: Rows, chunk: int
) -> tuple[PerExample, PerExample, PerExample]:
    """A function of rows, `chunk` rows at a time; the backward pass computes each chunk again."""
    count = len(rows[0])
    if count <= chunk:
        return of_rows(rows)
    parts = -(-count // chunk)

    def split(x: Array) -> Array:
        filled = jnp.pad(x, [(0, parts * chunk - count), *[(0, 0)] * (x.ndim - 1)])
        return filled.reshape(parts, chunk, *x.shape[1:])

    found = jax.lax.map(jax.checkpoint(of_rows), jax.tree.map(split, rows))
    return jax.tree.map(lambda x: x.reshape(-1)[:count], found)
