"""What a network may be told beside its noisy input: drawn, told, given and left out in one place.

Training calls `draw` and then `told`; sampling calls `given`, and guidance `absent`. Each returns
columns; those of `told`, `given` and `absent` are keyword arguments of the network.
"""

import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import Image, PRNGKey, PRNGKeys, Resized, Schedule
from diffjax.diffusion.schedule import cosine
from diffjax.diffusion.training.augment import augment
from diffjax.images import pixels
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, ExampleShapes
from diffjax.tasks.text import drop_text, mask_from_length, null_text

# A column of this name is what guidance leads away from, in place of nothing.
NEGATIVE = "negative_"
# The share of a further prompt, beside its own columns.
SHARE = "share"
# One object for all, so that conditions and tasks that are made alike are equal.
COSINE = cosine()


def also(index: int) -> str:
    """What the columns of a further prompt of a composed picture begin with."""
    return f"also_{index}_"


def unprefixed(column: str) -> str:
    """The column whose place this one takes: of a negative or a further prompt, or itself."""
    return re.sub(rf"^({NEGATIVE}|also_\d+_)", "", column)


@runtime_checkable
class Condition(Protocol):
    """One thing that a network is told. Its chance comes from keys of names of its own."""

    def columns(self) -> ExampleShapes:
        """What it reads of one example in training."""
        ...

    def prompts(self) -> ExampleShapes:
        """What it reads of one row when sampling."""
        ...

    def nothing(self, rows: int) -> Columns:
        """The columns of `prompts` where nothing is said; {} for what must be said."""
        ...

    def shown(self, batch: Columns) -> Columns:
        """The columns of `prompts` for a preview, of a training batch."""
        ...

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """Which rows are left out, at which level rows are noised: chance as columns."""
        ...

    def told(self, batch: Columns) -> Columns:
        """What the network is told in training, of a batch with its chance."""
        ...

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """What the network is told when sampling, from a key for each row."""
        ...

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """What the other half of guidance is told: nothing, or the negative in `columns`."""
        ...


def _share(key: PRNGKey, name: str, batch: Columns) -> Float[Array, " b"]:
    """A uniform number for each row of a batch."""
    rows = len(next(iter(batch.values())))
    return jax.random.uniform(rng.stream(key, name), (rows,))


@dataclass(frozen=True)
class Text:
    """Embeddings of a caption. A share `drop` of the rows trains without (Ho & Salimans 2022)."""

    width: int
    max_tokens: int
    drop: float = 0.0

    def columns(self) -> ExampleShapes:
        """`text` [l d] in bfloat16, zero beyond `text_length`."""
        return {
            "text": jax.ShapeDtypeStruct((self.max_tokens, self.width), jnp.bfloat16),
            "text_length": jax.ShapeDtypeStruct((), jnp.int32),
        }

    def prompts(self) -> ExampleShapes:
        """`text` [l d] and `text_mask` [l]."""
        return {
            "text": jax.ShapeDtypeStruct((self.max_tokens, self.width), jnp.float32),
            "text_mask": jax.ShapeDtypeStruct((self.max_tokens,), jnp.bool_),
        }

    def nothing(self, rows: int) -> Columns:
        """The null text."""
        text = jnp.zeros((rows, self.max_tokens, self.width))
        text, mask = null_text(text, jnp.zeros(text.shape[:2], bool))
        return {"text": text, "text_mask": mask}

    def shown(self, batch: Columns) -> Columns:
        """The text of each row."""
        return self.told({**batch, "keep_text": jnp.ones(len(batch["text"]), bool)})

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """`keep_text` [b]: False where the row trains without its text."""
        return {"keep_text": _share(key, "text_drop", batch) >= self.drop}

    def told(self, batch: Columns) -> Columns:
        """The text, or the null text where it is dropped."""
        mask = mask_from_length(batch["text_length"], batch["text"].shape[1])
        text, mask = drop_text(batch["text"].astype(jnp.float32), mask, batch["keep_text"])
        return {"text": text, "text_mask": mask}

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The text as it is."""
        return {"text": columns["text"], "text_mask": columns["text_mask"]}

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """The null text, or the negative prompt with its own mask."""
        if f"{NEGATIVE}text" in columns:
            text, mask = columns[f"{NEGATIVE}text"], columns[f"{NEGATIVE}text_mask"]
        else:
            text, mask = null_text(given["text"], given["text_mask"])
        return {"text": text, "text_mask": mask}


@dataclass(frozen=True)
class LowRes:
    """The picture of the stage before, noised (Ho et al. 2022, "Cascaded Diffusion Models").

    size_px: its side. factor: how many times larger the stage's own picture is. schedule: of the
    noise on it. max_level: training noises it to a level uniform in [0, max_level], in u.
    """

    size_px: int
    factor: int
    schedule: Schedule = COSINE
    max_level: float = 1.0

    def columns(self) -> ExampleShapes:
        """Nothing of its own: training shrinks the picture that is learned."""
        return {}

    def prompts(self) -> ExampleShapes:
        """`low_res` [s s 3] in [-1, 1]."""
        shape = (self.size_px, self.size_px, 3)
        return {"low_res": jax.ShapeDtypeStruct(shape, jnp.float32)}

    def nothing(self, rows: int) -> Columns:
        """There is always a picture."""
        return {}

    def shown(self, batch: Columns) -> Columns:
        """The picture that is learned, made small."""
        return {"low_res": shrink(batch["image"], self.factor)}

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """`aug_level` [b] in u, and `aug_key` [b], a key for the noise of each row."""
        level = self.max_level * _share(key, "aug_level", batch)
        return {
            "aug_level": level,
            "aug_key": jax.random.split(rng.stream(key, "aug_noise"), len(level)),
        }

    def told(self, batch: Columns) -> Columns:
        """The target made small and noised; `image` is the target as float32 in [-1, 1]."""
        low_res = shrink(batch["image"], self.factor)
        return self.noised(low_res, batch["aug_level"], batch["aug_key"])

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """`low_res` noised to `settings.aug_level`, once for all steps and both halves."""
        low_res = columns["low_res"]
        level = jnp.full(low_res.shape[:1], settings.aug_level)
        return self.noised(low_res, level, rng.stream(keys, "aug_noise"))

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """The same: guidance acts on the other conditions alone."""
        return {name: given[name] for name in ("low_res", "aug_logsnr")}

    def noised(self, low_res: Image, level: Float[Array, " b"], key: PRNGKey | PRNGKeys) -> Columns:
        """A small picture in [-1, 1] as the network wants it: noised, enlarged, its level beside.

        One function for training and for sampling: the same noise, filter and level on both
        sides. The noise is drawn once, at the small size, and not again at every step.
        """
        noised, aug_logsnr = augment(low_res, level, key=key, schedule=self.schedule)
        height, width = (self.factor * side for side in low_res.shape[1:3])
        return {"low_res": pixels.resize(noised, height, width), "aug_logsnr": aug_logsnr}


@dataclass(frozen=True)
class Class:
    """A class label in 0 ... num - 1; `num` itself stands for no class, in a share `drop`.

    names: of the classes, in their order, for people; () where they have none.
    """

    num: int
    drop: float = 0.0
    names: tuple[str, ...] = ()

    def columns(self) -> ExampleShapes:
        """`label`, int32."""
        return {"label": jax.ShapeDtypeStruct((), jnp.int32)}

    def prompts(self) -> ExampleShapes:
        """`label`, int32."""
        return self.columns()

    def nothing(self, rows: int) -> Columns:
        """The label of no class."""
        return {"label": jnp.full(rows, self.num, jnp.int32)}

    def shown(self, batch: Columns) -> Columns:
        """The label of each row."""
        return {"label": batch["label"]}

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """`keep_label` [b]: False where the row trains without its class."""
        return {"keep_label": _share(key, "label_drop", batch) >= self.drop}

    def told(self, batch: Columns) -> Columns:
        """The label, or `num` where it is dropped."""
        return {"label": jnp.where(batch["keep_label"], batch["label"], self.num)}

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The label as it is."""
        return {"label": columns["label"]}

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """No class, or the negative label."""
        return {"label": columns.get(f"{NEGATIVE}label", jnp.full_like(given["label"], self.num))}


@dataclass(frozen=True)
class Embedding:
    """A vector of another network, such as CLIP's of a picture (Ramesh et al. 2022, sec. 2.1).

    of: its column. The network is told the vector, and zeros where it is dropped or absent.
    """

    of: str
    width: int
    drop: float = 0.0

    def columns(self) -> ExampleShapes:
        """The vector [d]."""
        return {self.of: jax.ShapeDtypeStruct((self.width,), jnp.float32)}

    def prompts(self) -> ExampleShapes:
        """The vector [d]."""
        return self.columns()

    def nothing(self, rows: int) -> Columns:
        """Zeros."""
        return {self.of: jnp.zeros((rows, self.width))}

    def shown(self, batch: Columns) -> Columns:
        """The vector of each row."""
        return {self.of: batch[self.of]}

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """`keep_OF` [b]: False where the row trains without its vector."""
        return {f"keep_{self.of}": _share(key, f"{self.of}_drop", batch) >= self.drop}

    def told(self, batch: Columns) -> Columns:
        """The vector, or zeros where it is dropped."""
        keep = batch[f"keep_{self.of}"][:, None]
        return {"vector": jnp.where(keep, batch[self.of].astype(jnp.float32), 0.0)}

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The vector as it is."""
        return {"vector": columns[self.of]}

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """Zeros, or the negative vector."""
        return {"vector": columns.get(f"{NEGATIVE}{self.of}", jnp.zeros_like(given["vector"]))}


@dataclass(frozen=True)
class Masked:
    """A picture with a hole, and the hole: inpainting by training (Nichol et al. 2022, sec. 3.2).

    In training the hole is a random rectangle, or in a share `drop` the whole picture.
    """

    size_px: int
    channels: int = 3
    drop: float = 0.1

    def columns(self) -> ExampleShapes:
        """Nothing of its own: training cuts the hole into the picture that is learned."""
        return {}

    def prompts(self) -> ExampleShapes:
        """`picture` [s s c] in [-1, 1] and `hole` [s s 1], True where it is to be painted."""
        square = (self.size_px, self.size_px)
        return {
            "picture": jax.ShapeDtypeStruct((*square, self.channels), jnp.float32),
            "hole": jax.ShapeDtypeStruct((*square, 1), jnp.bool_),
        }

    def nothing(self, rows: int) -> Columns:
        """A picture that is all hole."""
        square = (rows, self.size_px, self.size_px)
        return {
            "picture": jnp.zeros((*square, self.channels)),
            "hole": jnp.ones((*square, 1), bool),
        }

    def shown(self, batch: Columns) -> Columns:
        """The picture that is learned, its middle a hole of half its sides."""
        edge, image = self.size_px // 4, batch["image"]
        inside = (jnp.arange(self.size_px) >= edge) & (jnp.arange(self.size_px) < 3 * edge)
        hole = (inside[:, None] & inside[None, :])[None, :, :, None]
        return {"picture": image, "hole": jnp.broadcast_to(hole, (*image.shape[:-1], 1))}

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """`hole_box` [b 4]: top, bottom, left and right as shares of the sides; all for no hole."""
        whole = _share(key, "hole_drop", batch) < self.drop
        ends = jax.random.uniform(rng.stream(key, "hole_box"), (len(whole), 2, 2))
        box = jnp.sort(ends, axis=-1).reshape(-1, 4)
        return {"hole_box": jnp.where(whole[:, None], jnp.array([0.0, 1.0, 0.0, 1.0]), box)}

    def told(self, batch: Columns) -> Columns:
        """The picture, black in the hole, and the hole as 1.0."""
        image = batch["image"]
        top, bottom, left, right = (batch["hole_box"][:, i, None] for i in range(4))
        y, x = ((jnp.arange(side) + 0.5) / side for side in image.shape[1:3])
        rows, columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
        return self._cut(image, rows[:, :, None, None] & columns[:, None, :, None])

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The picture, black in the hole, and the hole as 1.0."""
        return self._cut(columns["picture"], columns["hole"])

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """The same: guidance acts on the other conditions alone."""
        return {name: given[name] for name in ("masked", "mask")}

    def _cut(self, picture: Image, hole: Array) -> Columns:
        hole = hole.astype(picture.dtype)
        return {"masked": picture * (1.0 - hole), "mask": hole}


def shrink(image: Image, factor: int) -> Resized:
    """The picture that the stage before would have made: antialiased, 1 / factor the size."""
    return pixels.resize(image, image.shape[1] // factor, image.shape[2] // factor)


def told_by(conditions: tuple[Condition, ...], batch: Columns) -> Columns:
    """What all conditions tell the network in training."""
    return {name: x for one in conditions for name, x in one.told(batch).items()}
