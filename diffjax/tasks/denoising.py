"""One stage of a cascade: its network, its noise, and how it is conditioned."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import (
    Image,
    LogSnr,
    Network,
    PRNGKey,
    PRNGKeys,
    Resized,
    Schedule,
    Text,
    TextMask,
)
from diffjax.diffusion.schedule import cosine
from diffjax.diffusion.training.augment import augment
from diffjax.images import pixels
from diffjax.models.efficient_unet import EfficientUNet


@dataclass(frozen=True)
class Stage:
    """What training and sampling must agree on.

    size_px: the side of the picture it makes. low_res_px: the side of the picture it starts
    from; None for a base stage. aug_schedule: the noise of the low-resolution condition.
    """

    name: str
    model: Any
    size_px: int
    text_width: int
    max_tokens: int
    low_res_px: int | None = None
    schedule: Schedule = field(default_factory=cosine)
    aug_schedule: Schedule = field(default_factory=cosine)
    predict: str = "v"

    @property
    def factor(self) -> int:
        """How many times larger the stage's picture is than the one it starts from."""
        return self.size_px // self.low_res_px if self.low_res_px else 1


@dataclass(frozen=True)
class Condition:
    """What a network is told beside the noisy picture and its level."""

    text: Text
    text_mask: TextMask
    low_res: Image | None = None
    aug_logsnr: LogSnr | None = None


def init_params(stage: Stage, key: PRNGKey) -> Any:
    """Fresh parameters, from the smallest picture that the network takes; to be jitted."""
    # a canvas is of one size; all other parameters are the same whatever the picture's
    side_px = stage.size_px if getattr(stage.model, "canvas", 0) else stage.model.stride
    picture = jnp.zeros((1, side_px, side_px, 3))
    condition = Condition(
        jnp.zeros((1, stage.max_tokens, stage.text_width)),
        jnp.ones((1, stage.max_tokens), bool),
        picture if stage.low_res_px else None,
        jnp.zeros(1) if stage.low_res_px else None,
    )
    return stage.model.init(key, picture, jnp.zeros(1), **arguments(condition))["params"]


def arguments(condition: Condition) -> dict[str, Array]:
    """The keyword arguments of a network; a base network takes no low-resolution ones."""
    given = vars(condition)
    return {name: value for name, value in given.items() if value is not None}


def bind(stage: Stage, params: Any, condition: Condition) -> Network:
    """The stage's network with its parameters and its condition in place."""
    return lambda x_t, logsnr_t: stage.model.apply(
        {"params": params}, x_t, logsnr_t, **arguments(condition)
    )


def shrink(image: Image, factor: int) -> Resized:
    """The picture that the stage before would have made: antialiased, 1 / factor the size."""
    return pixels.resize(image, image.shape[1] // factor, image.shape[2] // factor)


def condition_low_res(
    stage: Stage,
    low_res: Image,
    aug_level: Float[Array, " b"],
    *,
    key: PRNGKey | PRNGKeys,
) -> tuple[Resized, LogSnr]:
    """A small picture in [-1, 1] as the network wants it: noised, enlarged, its level beside it.

    One function for training and for sampling: the same noise, filter and level on both sides.
    The noise is drawn once, at the small size, and not again at every step (Ho et al. 2022).
    """
    noised, aug_logsnr = augment(low_res, aug_level, key=key, schedule=stage.aug_schedule)
    height, width = (stage.factor * side for side in low_res.shape[1:3])
    return pixels.resize(noised, height, width), aug_logsnr


def is_convolutional(model: Any) -> bool:
    """Whether a network trained on crops may be run on whole pictures."""
    return isinstance(model, EfficientUNet) and model.attention == "cross"


jax.tree_util.register_dataclass(Condition, ("text", "text_mask", "low_res", "aug_logsnr"), ())
