"""Conditions of a network on text, a class or a vector.

A condition defines in one place what training, sampling and guidance do with it. Training calls
`draw` and then `told`; sampling calls `given`, and guidance calls `absent`. Each returns columns;
those of `told`, `given` and `absent` are keyword arguments of the network. `condition.py` has the
protocol, and `pictures.py` the conditions on pictures.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from diffjax.core.types import PRNGKey, PRNGKeys, TextMask
from diffjax.core.types import Text as Embedded
from diffjax.models.words import NO_TOKEN
from diffjax.tasks.condition import NEGATIVE, SHARE, Condition, also, share_of, unprefixed
from diffjax.tasks.pictures import COSINE, LowRes, Masked, shrink
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, ExampleShapes
from diffjax.tasks.text import drop_text, mask_from_length, null_text

__all__ = [
    "COSINE", "NEGATIVE", "NO_TEXT", "SHARE", "Class", "Condition", "Embedding", "LowRes", "Masked",
    "Text", "Tokens", "also", "shrink", "told_by", "unprefixed",
]  # fmt: skip


# The column [l d] of each row that stands for no text, if that is not the null text.
NO_TEXT = "no_text"


@dataclass(frozen=True)
class Text:
    """Embeddings of a caption; a share `drop` of rows trains without it (Ho & Salimans 2022).

    embeds_blank: no text is the column `no_text`, the encoder's embedding of the empty text, as in
    Stable Diffusion; else it is the null text. Each text then fills all `max_tokens`, and a shorter
    one, which is the null text of a blank caption, becomes `no_text` too.
    """

    width: int
    max_tokens: int
    drop: float = 0.0
    embeds_blank: bool = False

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
        """`keep_text` [b]: False if the row trains without its text."""
        return {"keep_text": share_of(key, "text_drop", batch) >= self.drop}

    def told(self, batch: Columns) -> Columns:
        """The text, or the null text if it is dropped."""
        mask = mask_from_length(batch["text_length"], batch["text"].shape[1])
        text, keep = batch["text"].astype(jnp.float32), batch["keep_text"]
        if self.embeds_blank:
            keep = keep & (batch["text_length"] == self.max_tokens)
        text, mask = drop_text(text, mask, keep, self._absent(text, mask, batch))
        return {"text": text, "text_mask": mask}

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The text itself."""
        return {"text": columns["text"], "text_mask": columns["text_mask"]}

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """No text, or the negative prompt with its own mask."""
        if f"{NEGATIVE}text" in columns:
            text, mask = columns[f"{NEGATIVE}text"], columns[f"{NEGATIVE}text_mask"]
        else:
            text, mask = self._absent(given["text"], given["text_mask"], columns)
        return {"text": text, "text_mask": mask}

    def _absent(
        self, text: Embedded, mask: TextMask, columns: Columns
    ) -> tuple[Embedded, TextMask]:
        """What stands for no text, in the shape of a text."""
        if not self.embeds_blank:
            return null_text(text, mask)
        return columns[NO_TEXT].astype(text.dtype), jnp.ones_like(mask)


@dataclass(frozen=True)
class Tokens:
    """The token ids of a caption, for a network with a text transformer (Nichol et al. 2022).

    length: places for tokens; NO_TOKEN stands where there is none. The empty text has no token at
    all; a share `drop` of rows trains with it.
    """

    length: int
    drop: float = 0.0

    def columns(self) -> ExampleShapes:
        """`tokens` int32 [l]."""
        return {"tokens": jax.ShapeDtypeStruct((self.length,), jnp.int32)}

    def prompts(self) -> ExampleShapes:
        """`tokens` int32 [l]."""
        return self.columns()

    def nothing(self, rows: int) -> Columns:
        """The empty text."""
        return {"tokens": jnp.full((rows, self.length), NO_TOKEN, jnp.int32)}

    def shown(self, batch: Columns) -> Columns:
        """The tokens of each row."""
        return {"tokens": batch["tokens"]}

    def draw(self, key: PRNGKey, batch: Columns) -> Columns:
        """`keep_tokens` [b]: False if the row trains with the empty text."""
        return {"keep_tokens": share_of(key, "tokens_drop", batch) >= self.drop}

    def told(self, batch: Columns) -> Columns:
        """The tokens, or none if they are dropped."""
        return {"tokens": jnp.where(batch["keep_tokens"][:, None], batch["tokens"], NO_TOKEN)}

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The tokens themselves."""
        return {"tokens": columns["tokens"]}

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """The empty text, or the negative prompt."""
        empty = jnp.full_like(given["tokens"], NO_TOKEN)
        return {"tokens": columns.get(f"{NEGATIVE}tokens", empty)}


@dataclass(frozen=True)
class Class:
    """A class label in 0 ... num - 1; `num` itself stands for no class, in a share `drop`.

    names: of the classes, in their order, for people; () if they have none. null: whether the
    network knows no class; if not, nothing may be dropped and guidance by it is not possible.
    """

    num: int
    drop: float = 0.0
    names: tuple[str, ...] = ()
    null: bool = True

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
        """`keep_label` [b]: False if the row trains without its class."""
        return {"keep_label": share_of(key, "label_drop", batch) >= self.drop}

    def told(self, batch: Columns) -> Columns:
        """The label, or `num` if it is dropped."""
        return {"label": jnp.where(batch["keep_label"], batch["label"], self.num)}

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The label itself."""
        return {"label": columns["label"]}

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """No class, or the negative label."""
        return {"label": columns.get(f"{NEGATIVE}label", jnp.full_like(given["label"], self.num))}


@dataclass(frozen=True)
class Embedding:
    """A vector of another network, such as CLIP's of a picture (Ramesh et al. 2022, sec. 2.1).

    of: its column. The network gets the vector, or zeros if it is dropped or absent.
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
        """`keep_OF` [b]: False if the row trains without its vector."""
        return {f"keep_{self.of}": share_of(key, f"{self.of}_drop", batch) >= self.drop}

    def told(self, batch: Columns) -> Columns:
        """The vector, or zeros if it is dropped."""
        keep = batch[f"keep_{self.of}"][:, None]
        return {"vector": jnp.where(keep, batch[self.of].astype(jnp.float32), 0.0)}

    def given(self, columns: Columns, keys: PRNGKeys, settings: SampleSettings) -> Columns:
        """The vector itself."""
        return {"vector": columns[self.of]}

    def absent(self, given: Columns, columns: Columns) -> Columns:
        """Zeros, or the negative vector."""
        return {"vector": columns.get(f"{NEGATIVE}{self.of}", jnp.zeros_like(given["vector"]))}


def told_by(conditions: tuple[Condition, ...], batch: Columns) -> Columns:
    """The keyword arguments of the network in training, from all conditions."""
    return {name: x for one in conditions for name, x in one.told(batch).items()}
