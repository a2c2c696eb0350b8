"""Critics: networks that say how well noised data fit what was asked for, and so guide sampling."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from diffjax.core.types import Data, LogSnr, PerExample
from diffjax.images import pixels
from diffjax.models.clip.clip import CLIP, unit
from diffjax.tasks.task import Columns, Model, Params

# The unit vector [b e] of each prompt; zeros for a blank one, which guides nowhere.
CLIP_TEXT = "clip_text"


@runtime_checkable
class Critic(Protocol):
    """log p(y | x_t) for the y in some columns; its gradient guides (`guidance.guided_by`)."""

    @property
    def of_clean(self) -> bool:
        """Whether it knows clean data alone, and not those with noise."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that hold what was asked for."""
        ...

    def log_prob(self, params: Params, columns: Columns, x: Data, logsnr: LogSnr) -> PerExample:
        """Up to a constant of each row; row i may depend on row i alone."""
        ...


@dataclass(frozen=True)
class ClipCritic:
    """A CLIP. If it takes noised pictures, they have its own size; others are resized to it."""

    model: CLIP
    reads: tuple[str, ...] = (CLIP_TEXT,)

    @property
    def of_clean(self) -> bool:
        """Whether it was trained on clean pictures alone."""
        return not self.model.config.noised

    def log_prob(self, params: Params, columns: Columns, x: Data, logsnr: LogSnr) -> PerExample:
        """s f(x_t) . g(c), the logit of CLIP  (Nichol et al. 2022, sec. 2.4)."""
        side_px = self.model.config.size_px
        if x.shape[1] != side_px:
            x = pixels.resize(x, side_px, side_px)
        told = None if self.of_clean else logsnr
        image = self.model.apply({"params": params}, x, told, method="of_image")
        product = jnp.sum(unit(image) * columns[CLIP_TEXT], axis=-1)  # type: ignore[arg-type]
        return jnp.exp(params["log_scale"]) * product


@dataclass(frozen=True)
class ClassifierCritic:
    """A classifier of noised data: (x_t, logsnr_t) -> logits [b num_classes].

    The network may compute in bfloat16; the logits and all sums over them are float32. A label of
    num_classes means no class, and guides nowhere. names: of the classes, if they have some.
    """

    model: Model
    num_classes: int
    names: tuple[str, ...] = ()
    reads: tuple[str, ...] = ("label",)

    @property
    def of_clean(self) -> bool:
        """Whether it knows clean data alone: no."""
        return False

    def log_prob(self, params: Params, columns: Columns, x: Data, logsnr: LogSnr) -> PerExample:
        """log p(y | x_t)  (Dhariwal & Nichol 2021, sec. 4)."""
        logits = self.model.apply({"params": params}, x, logsnr).astype(jnp.float32)
        label = columns["label"]
        known = jnp.clip(label, 0, self.num_classes - 1)[:, None]
        found = jnp.take_along_axis(jax.nn.log_softmax(logits), known, axis=-1)[:, 0]
        return jnp.where(label < self.num_classes, found, 0.0)


def weights_of(params: Params) -> Params:
    """The parameters of a CLIP that `ClipCritic` needs: not those of the text tower."""
    return {name: params[name] for name in ("image", "log_scale")}
