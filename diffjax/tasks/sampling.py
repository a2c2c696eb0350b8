"""Stages chained: text -> 64 -> 256 -> 1024."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core import rng
from diffjax.core.types import Denoiser, Image, PRNGKeys, Resized, Text, TextMask
from diffjax.diffusion.predict import as_denoiser
from diffjax.diffusion.sampling import guidance, sampler, spacing
from diffjax.tasks.denoising import Condition, Stage, bind, condition_low_res
from diffjax.tasks.text import null_text

THRESHOLDS = ("dynamic", "static", "none")
# The embeddings and the mask of a prompt to keep away from, if there is one.
Negative: TypeAlias = tuple[Text, TextMask] | None


@dataclass(frozen=True)
class SampleSettings:
    """How one stage is sampled. guidance_weight 1 is off; percentile in percent; aug_level in u."""

    num_steps: int = 32
    sampler: str = "ddpm"
    spacing: str = "uniform"
    noise: float = 0.0  # gamma of "ddpm", eta of "ddim" and "dpmpp_2m_sde", churn of "heun"
    guidance_weight: float = 1.0
    threshold: str = "dynamic"
    percentile: float = 99.5
    aug_level: float = 0.1


@dataclass(frozen=True)
class TrainedStage:
    """A stage with its (averaged) parameters and the settings to sample it with."""

    stage: Stage
    params: Any
    settings: SampleSettings


def guided_denoiser(
    stage: Stage,
    params: Any,
    condition: Condition,
    settings: SampleSettings,
    negative: Negative = None,
) -> Denoiser:
    """The stage's denoiser with guidance and thresholding around it.

    Conditional and unconditional rows go through the network in one doubled batch, and share
    the low-resolution condition with its noise, so that guidance acts on the text alone. The
    text of `negative` takes the place of the null text: guidance leads away from it.
    """
    if settings.guidance_weight == 1:
        denoise = as_denoiser(bind(stage, params, condition), stage.predict)
    else:
        text, mask = negative or null_text(condition.text, condition.text_mask)
        unconditional = Condition(text, mask, condition.low_res, condition.aug_logsnr)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), condition, unconditional)
        denoise = guidance.classifier_free_doubled(
            as_denoiser(bind(stage, params, both), stage.predict), settings.guidance_weight
        )
    if settings.threshold == "dynamic":
        return guidance.dynamic_threshold(denoise, settings.percentile)
    return guidance.static_threshold(denoise) if settings.threshold == "static" else denoise


def sample_stage(
    params: Any,
    text: Text,
    text_mask: TextMask,
    keys: PRNGKeys,
    low_res: Image | None = None,
    negative: Negative = None,
    *,
    stage: Stage,
    settings: SampleSettings,
) -> Resized:
    """Pictures [b size size 3] in [-1, 1] for b prompts, from one key per picture.

    Picture i depends on its own prompt, key and low-resolution picture alone, not on the batch.
    """
    denoise, x_T, how = ready(
        params, text, text_mask, keys, low_res, negative, stage=stage, settings=settings
    )
    return jnp.clip(sampler.sample(denoise, x_T, **how), -1.0, 1.0)


def watch_stage(
    params: Any,
    text: Text,
    text_mask: TextMask,
    keys: PRNGKeys,
    low_res: Image | None = None,
    negative: Negative = None,
    *,
    stage: Stage,
    settings: SampleSettings,
) -> tuple[Resized, Float[Array, "n _ _ _ _"]]:
    """The pictures of `sample_stage`, up to rounding, and the x_0_hat of each of its n steps."""
    denoise, x_T, how = ready(
        params, text, text_mask, keys, low_res, negative, stage=stage, settings=settings
    )
    image, guesses = sampler.guesses(denoise, x_T, **how)
    return jnp.clip(image, -1.0, 1.0), jnp.clip(guesses, -1.0, 1.0)


def ready(
    params: Any,
    text: Text,
    text_mask: TextMask,
    keys: PRNGKeys,
    low_res: Image | None,
    negative: Negative,
    *,
    stage: Stage,
    settings: SampleSettings,
) -> tuple[Denoiser, Resized, dict[str, Any]]:
    """What a sampler is handed: the denoiser, the noise x_T, and its named arguments."""
    keys = rng.stream(keys, stage.name)
    condition = Condition(text, text_mask)
    height = width = stage.size_px
    if stage.low_res_px:
        assert low_res is not None, f"{stage.name} starts from a picture"
        level = jnp.full(text.shape[:1], settings.aug_level)
        low_res, aug_logsnr = condition_low_res(
            stage, low_res, level, key=rng.stream(keys, "aug_noise")
        )
        condition = Condition(text, text_mask, low_res, aug_logsnr)
        height, width = low_res.shape[1:3]
    return (
        guided_denoiser(stage, params, condition, settings, negative),
        rng.normal(rng.stream(keys, "x_T"), (text.shape[0], height, width, 3)),
        dict(
            logsnrs=spacing.SPACINGS[settings.spacing](stage.schedule, settings.num_steps),
            step=sampler.by_name(settings.sampler, settings.noise),
            key=rng.stream(keys, "steps"),
        ),
    )


@functools.lru_cache(maxsize=32)
def compiled_stage(stage: Stage, settings: SampleSettings):
    """`sample_stage` jitted, once per (stage, settings)."""
    return jax.jit(functools.partial(sample_stage, stage=stage, settings=settings))


def generate(
    stages: Sequence[TrainedStage],
    text: Text,
    text_mask: TextMask,
    *,
    seeds: Int[Array, "b"],
    low_res: Image | None = None,
    negative: Negative = None,
) -> list[Resized]:
    """The pictures of every stage, small to large, for b prompts and b seeds.

    Image i depends on (prompt i, seed i) alone. `low_res` stands in for the stage before the
    first, when that is a super-resolution stage. `negative` is what to keep away from, in place
    of the null text of guidance.
    """
    keys = rng.per_example(seeds)
    pictures: list[Image] = []
    for trained in stages:
        run = compiled_stage(trained.stage, trained.settings)
        low_res = run(trained.params, text, text_mask, keys, low_res, negative)
        pictures.append(low_res)
    return pictures
