"""Conditions on pictures: the smaller picture of the stage before, and a picture with a hole."""

from dataclasses import dataclass

import einops
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffjax.core import rng
from diffjax.core.types import Image, PRNGKey, PRNGKeys, Resized, Schedule
from diffjax.diffusion.schedule import cosine
from diffjax.diffusion.training.augment import augment
from diffjax.images import pixels
from diffjax.images.degrade import Degradation, degrade
from diffjax.tasks.condition import share_of
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, ExampleShapes

# Points of the line that is a hole, and its width as a share of the picture's side.
POINTS, THINNEST, THICKEST = 5, 0.06, 0.3
# One object for all, so that equal conditions and tasks compare as equal.
COSINE = cosine()


@dataclass(frozen=True)
class LowRes:
    """The picture of the stage before, noised (Ho et al. 2022, "Cascaded Diffusion Models").

    size_px: its side. factor: how many times larger the stage's own picture is. schedule: of the
    noise on it. max_level: training noises it to a level uniform in [0, max_level], in u. noised:
    False for ADM's upsamplers (Dhariwal & Nichol 2021): the network gets the picture itself, which
    is the mean of each block of pixels in training, enlarged bilinearly. degrade: what training
    does to the small picture before that (Ramesh et al. 2022, sec. 2.3); None for nothing. cubic:
    also without noise, enlarge bicubically.
    """

    size_px: int
    factor: int
    schedule: Schedule = COSINE
    max_level: float = 1.0
    noised: bool = True
    degrade: Degradation | None = None
    cubic: bool = False

    def columns(self) -> ExampleShapes:
        """None of its own: training shrinks the picture that is learned."""
        return {}

    def prompts(self) -> ExampleShapes:
        """`low_res` [s s 3] in [-1, 1]."""
        shape = (self.size_px, self.size_px, 3)
        return {"low_res": jax.ShapeDtypeStruct(shape, jnp.float32)}

    def nothing(self, rows: int) -> Columns:
        """{}: there must be a picture."""
        return {}

    def shown(self, batch: Columns) -> Columns:
        """The shrunk picture that is learned."""
        return {"low_res": self.shrunk(batch["image"])}

    def shrunk(self, image: Image) -> Resized:
        """The small picture of one that is learned."""
        if self.noised:
            return shrink(image, self.factor)
        block = "b (h p) (w q) c -> b h w c"
        return einops.reduce(image, block, "mean", p=self.factor, q=self.factor)

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """`aug_level` [b] in u, and `aug_key` [b], a key for each row's noise, if it is noised.

        `degrade_key` [b], a key for each row, if it is degraded.
        """
        level = self.max_level * share_of(key, "aug_level", batch)
        keys = lambda name: jax.random.split(rng.stream(key, name), len(level))  # noqa: E731
        spoiled = {"degrade_key": keys("degrade")} if self.degrade else {}
        noised = {"aug_level": level, "aug_key": keys("aug_noise")} if self.noised else {}
        return {**spoiled, **noised}

    def told(self, batch: Columns) -> Columns:
        """The target shrunk, degraded and noised; `image` is it as float32 in [-1, 1]."""
        low_res = self.shrunk(batch["image"])
        if self.degrade:
            low_res = degrade(low_res, self.degrade, batch["degrade_key"])
        if not self.noised:
            return {"low_res": self.enlarged(low_res)}
        return self.with_noise(low_res, batch["aug_level"], batch["aug_key"])

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """`low_res` noised to `settings.aug_level`, once for all steps and both halves."""
        low_res = columns["low_res"]
        if not self.noised:
            return {"low_res": self.enlarged(low_res)}
        level = jnp.full(low_res.shape[:1], settings.aug_level)
        return self.with_noise(low_res, level, rng.stream(keys, "aug_noise"))

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """The same: guidance acts on the other conditions alone."""
        return {name: given[name] for name in ("low_res", "aug_logsnr") if name in given}

    def with_noise(
        self, low_res: Image, level: Float[Array, " b"], key: PRNGKey | PRNGKeys
    ) -> Columns:
        """The network's inputs from a small picture in [-1, 1]: it noised and enlarged, its level.

        Training and sampling both use this, so noise, filter and level are the same. The noise is
        drawn once, at the small size, and not again at every step.
        """
        noised, aug_logsnr = augment(low_res, level, key=key, schedule=self.schedule)
        return {"low_res": self.enlarged(noised), "aug_logsnr": aug_logsnr}

    def enlarged(self, low_res: Image) -> Resized:
        """A small picture at the size of the stage's own."""
        height, width = (self.factor * side for side in low_res.shape[1:3])
        if self.noised or self.cubic:
            return pixels.resize(low_res, height, width)
        return jax.image.resize(low_res, (len(low_res), height, width, low_res.shape[3]), "linear")


@dataclass(frozen=True)
class Masked:
    """A picture with a hole, and the hole: inpainting by training (Nichol et al. 2022, sec. 3.2).

    In training the hole is a random rectangle, in a share `strokes` a few thick lines, and in a
    share `drop` the whole picture. known: the network is told 1 where the picture is known, as by
    GLIDE's code, and not where it is not.
    """

    size_px: int
    channels: int = 3
    drop: float = 0.1
    strokes: float = 0.0
    known: bool = False

    def columns(self) -> ExampleShapes:
        """None of its own: training cuts the hole into the picture that is learned."""
        return {}

    def prompts(self) -> ExampleShapes:
        """`picture` [s s c] in [-1, 1] and `hole` [s s 1], True where it is to be painted."""
        square = (self.size_px, self.size_px)
        return {
            "picture": jax.ShapeDtypeStruct((*square, self.channels), jnp.float32),
            "hole": jax.ShapeDtypeStruct((*square, 1), jnp.bool_),
        }

    def nothing(self, rows: int) -> Columns:
        """A picture that consists of the hole."""
        square = (rows, self.size_px, self.size_px)
        return {
            "picture": jnp.zeros((*square, self.channels)),
            "hole": jnp.ones((*square, 1), bool),
        }

    def shown(self, batch: Columns) -> Columns:
        """The picture that is learned, with a hole of half its sides in the middle."""
        edge, image = self.size_px // 4, batch["image"]
        inside = (jnp.arange(self.size_px) >= edge) & (jnp.arange(self.size_px) < 3 * edge)
        hole = (inside[:, None] & inside[None, :])[None, :, :, None]
        return {"picture": image, "hole": jnp.broadcast_to(hole, (*image.shape[:-1], 1))}

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """`hole_box` [b 4]: top, bottom, left and right as shares of the sides.

        With strokes also `hole_line` [b n 2], the points of a line, `hole_width` [b], its width,
        and `hole_drawn` [b]: whether the line is the hole.
        """
        whole = share_of(key, "hole_drop", batch) < self.drop
        ends = jax.random.uniform(rng.stream(key, "hole_box"), (len(whole), 2, 2))
        box = jnp.sort(ends, axis=-1).reshape(-1, 4)
        drawn = {"hole_box": jnp.where(whole[:, None], jnp.array([0.0, 1.0, 0.0, 1.0]), box)}
        if not self.strokes:
            return drawn
        points = jax.random.uniform(rng.stream(key, "hole_line"), (len(whole), POINTS, 2))
        share = share_of(key, "hole_width", batch)
        by_line = share_of(key, "hole_strokes", batch) < self.strokes
        return drawn | {
            "hole_line": points,
            "hole_width": THINNEST + (THICKEST - THINNEST) * share,
            "hole_drawn": by_line & ~whole,
        }

    def told(self, batch: Columns) -> Columns:
        """The picture, 0 in the hole, and the hole as 1.0; or what is known as 1.0."""
        image = batch["image"]
        top, bottom, left, right = (batch["hole_box"][:, i, None] for i in range(4))
        y, x = ((jnp.arange(side) + 0.5) / side for side in image.shape[1:3])
        rows, columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
        hole = rows[:, :, None] & columns[:, None, :]
        if "hole_line" in batch:
            line = near_line(batch["hole_line"], batch["hole_width"] / 2, *image.shape[1:3])
            hole = jnp.where(batch["hole_drawn"][:, None, None], line, hole)
        return self._cut(image, hole[..., None])

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The picture, 0 in the hole, and the hole as 1.0; or what is known as 1.0."""
        return self._cut(columns["picture"], columns["hole"])

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """The same: guidance acts on the other conditions alone."""
        return {name: given[name] for name in ("masked", "mask")}

    def _cut(self, picture: Image, hole: Array) -> Columns:
        hole = hole.astype(picture.dtype)
        return {"masked": picture * (1.0 - hole), "mask": 1.0 - hole if self.known else hole}


def near_line(
    points: Float[Array, "b n 2"], distance: Float[Array, " b"], height: int, width: int
) -> Bool[Array, "b {height} {width}"]:
    """True where a pixel is at most so far from a line through points, in shares of a side."""
    y, x = ((jnp.arange(side) + 0.5) / side for side in (height, width))
    place = jnp.stack(jnp.meshgrid(y, x, indexing="ij"), axis=-1)[None, :, :, None]  # [1 h w 1 2]
    start, way = points[:, None, None, :-1], (points[:, 1:] - points[:, :-1])[:, None, None]
    along = jnp.sum((place - start) * way, axis=-1) / jnp.maximum(jnp.sum(way**2, -1), 1e-12)
    nearest = start + jnp.clip(along, 0.0, 1.0)[..., None] * way
    squared = jnp.min(jnp.sum((place - nearest) ** 2, axis=-1), axis=-1)
    return squared <= distance[:, None, None] ** 2


def shrink(image: Image, factor: int) -> Resized:
    """The picture at 1 / factor of its size, antialiased, as the stage before would make it."""
    return pixels.resize(image, image.shape[1] // factor, image.shape[2] // factor)
