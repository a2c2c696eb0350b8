"""Samples one denoising task: from the columns of its conditions to examples of its shape.

Every function is `f(params, columns, keys, *, task, settings)`. Row i of the result depends only on
row i of the columns and on key i, not on the rest of the batch.
"""

import functools
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import Data, Denoiser, LogSnr, PerExample, PRNGKey, PRNGKeys, Reshaped
from diffjax.diffusion.predict import as_denoiser, as_denoiser_with_variance
from diffjax.diffusion.sampling import ancestral, guidance, sampler, spacing
from diffjax.diffusion.sampling.step import Multistep, Step
from diffjax.diffusion.training.self_condition import for_sampling
from diffjax.tasks.conditions import SHARE, Condition, also
from diffjax.tasks.critic import Critic
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.space import WEIGHTS
from diffjax.tasks.task import Columns, Params

if TYPE_CHECKING:
    from diffjax.tasks.denoising import Denoising

Rungs = Float[Array, " n"]


class Ready(NamedTuple):
    """The arguments of `sampler.sample` for one task. bounded: its data are in [-1, 1]."""

    denoise: Denoiser
    x_T: Data
    logsnrs: Rungs
    step: Step | Multistep
    key: PRNGKey | PRNGKeys
    bounded: bool = True

    def sample(self, x_T: Data | None = None, logsnrs: Rungs | None = None) -> Data:
        """Samples from x_T down the ladder (or from other noise, down other rungs).

        The data of the task: those in [-1, 1] are clipped to it, and latents are not.
        """
        x = sampler.sample(
            self.denoise,
            self.x_T if x_T is None else x_T,
            logsnrs=self.logsnrs if logsnrs is None else logsnrs,
            step=self.step,
            key=self.key,
        )
        return jnp.clip(x, -1.0, 1.0) if self.bounded else x


def sample(
    params: Params, columns: Columns, keys: PRNGKeys, *, task: "Denoising", settings: SampleSettings
) -> Data:
    """Examples [b *shape] in [-1, 1], for the conditions in `columns`, from one key per row.

    Those of a task that learns latents are the decoded pictures.
    """
    return task.pictured(ready(params, columns, keys, task=task, settings=settings).sample())


def watch(
    params: Params, columns: Columns, keys: PRNGKeys, *, task: "Denoising", settings: SampleSettings
) -> tuple[Data, Float[Array, "n b *shape"]]:
    """The examples of `sample`, up to rounding, and the x_0_hat of each of its n steps.

    Those of a task that learns latents are decoded, one step after the other.
    """
    parts = ready(params, columns, keys, task=task, settings=settings)
    x, guesses = sampler.guesses(
        parts.denoise, parts.x_T, logsnrs=parts.logsnrs, step=parts.step, key=parts.key
    )
    if not parts.bounded:
        return task.pictured(x), jax.lax.map(task.pictured, guesses)
    return jnp.clip(x, -1.0, 1.0), jnp.clip(guesses, -1.0, 1.0)


def ready(
    params: Params, columns: Columns, keys: PRNGKeys, *, task: "Denoising", settings: SampleSettings
) -> Ready:
    """The denoiser with its guidance, the noise x_T, the ladder, the step rule and its keys."""
    keys = rng.stream(keys, task.name)
    given = given_to(task, columns, keys, settings)
    shape = given["low_res"].shape if "low_res" in given else (len(keys), *task.shape)
    told = functools.partial(denoiser, params, given, columns, task=task, settings=settings)
    step = sampler.by_name(
        settings.sampler, settings.noise, push_of(task, task.known(columns), settings)
    )
    if task.learning.self_condition:
        step = for_sampling(step, lambda x_0_hat: told(guess=x_0_hat))
    return Ready(
        told(),
        rng.normal(rng.stream(keys, "x_T"), shape),
        spacing.SPACINGS[settings.spacing](task.schedule_of(params), settings.num_steps),
        step,
        rng.stream(keys, "steps"),
        bounded=task.clipped,
    )


def given_by(
    conditions: tuple[Condition, ...], columns: Columns, keys: PRNGKeys, settings: SampleSettings
) -> Columns:
    """The keyword arguments of the network when sampling, from all conditions."""
    return {name: x for one in conditions for name, x in one.given(columns, keys, settings).items()}


def given_to(
    task: "Denoising", columns: Columns, keys: PRNGKeys, settings: SampleSettings
) -> Columns:
    """The same for a task, where pictures have become latents if it learns those."""
    given = given_by(task.conditions, columns, keys, settings)
    return given if task.space is None else task.space.told(task.frozen[WEIGHTS], given)


def denoiser(
    params: Params,
    given: Columns,
    columns: Columns,
    *,
    task: "Denoising",
    settings: SampleSettings,
    guess: Data | None = None,
) -> Denoiser:
    """The task's denoiser with guidance and thresholds.

    guess: the last guess of a self-conditioned network; None before the first.

    Conditional and unconditional rows go through the network in one doubled batch. What a
    condition says in the other half is its `absent`: a low-resolution picture keeps its noise
    there, so that guidance acts on the other conditions alone, and a negative prompt in `columns`
    takes the place of the null text. Further prompts are `composed`; the task's own guide takes
    the place of the other half. A critic moves the result; a task without one is not guided so.
    So does a classifier, unless the sampler is one whose mean it moves (`push_of`).

    Raises:
      ValueError: latents have a threshold, which is for pictures in [-1, 1].
    """
    if not task.clipped and settings.threshold != "none":
        what = "latents" if task.space else "vectors"
        raise ValueError(f'threshold={settings.threshold!r}: {what} are not bounded; want "none"')
    columns = task.known(columns)
    rescale = settings.guidance_rescale
    kind = task.predict if rescale else "x_0"
    if f"{also(0)}{SHARE}" in columns:
        denoise = composed(params, given, columns, task, settings, guess)
    elif task.guide is not None and settings.guidance_weight != 1:
        weaker = plain_denoiser(task.frozen["guide"], given, task.guide, guess)
        own = plain_denoiser(params, given, task, guess)
        weight = weight_of(settings)
        denoise = guidance.autoguidance(own, weaker, weight, rescale=rescale, kind=kind)
    elif settings.guidance_weight == 1 or not task.conditions:
        denoise = plain_denoiser(params, given, task, guess)
    else:
        absent = absent_by(task.conditions, given, columns)
        both = {name: jnp.concatenate([given[name], absent[name]]) for name in given}
        seen = None if guess is None else jnp.concatenate([guess, guess])
        denoise = guidance.classifier_free_doubled(
            plain_denoiser(params, both, task, seen),
            weight_of(settings),
            rescale=rescale,
            kind=kind,
        )
    if task.critic is not None and settings.clip_guidance:
        denoise = criticised(denoise, columns, task, task.critic, settings)
    if task.classifier is not None and not sampler.SAMPLERS[settings.sampler].pushed:
        scale = limited(settings, settings.classifier_guidance, outside=0.0)
        denoise = guidance.guided_by(denoise, classified(task, columns), scale)
    if settings.threshold == "dynamic":
        return guidance.dynamic_threshold(denoise, settings.percentile)
    return guidance.static_threshold(denoise) if settings.threshold == "static" else denoise


def criticised(
    denoise: Denoiser,
    columns: Columns,
    task: "Denoising",
    critic: Critic,
    settings: SampleSettings,
) -> Denoiser:
    """The denoiser guided by the gradient of the task's critic, in the interval of guidance."""

    def log_prob(x: Data, logsnr_t: LogSnr) -> PerExample:
        if task.space is not None:
            x = task.space.decode(task.frozen[WEIGHTS], x)
        return critic.log_prob(task.frozen["critic"], columns, x, logsnr_t)

    scale = limited(settings, settings.clip_guidance, outside=0.0)
    return guidance.guided_by(denoise, log_prob, scale, of_clean=critic.of_clean)


def push_of(task: "Denoising", columns: Columns, settings: SampleSettings) -> ancestral.Push | None:
    """The gradient of the task's classifier, for a sampler that moves its mean by it."""
    scale, pushed = settings.classifier_guidance, sampler.SAMPLERS[settings.sampler].pushed
    if task.classifier is None or not scale or not pushed:
        return None
    return guidance.gradient_of(classified(task, columns), limited(settings, scale, outside=0.0))


def classified(task: "Denoising", columns: Columns) -> guidance.LogProb:
    """log p(label | x_t) by the task's classifier."""
    classifier = task.classifier
    assert classifier is not None

    def log_prob(x: Data, logsnr_t: LogSnr) -> PerExample:
        return classifier.log_prob(task.frozen["classifier"], columns, x, logsnr_t)

    return log_prob


def composed(
    params: Params,
    given: Columns,
    columns: Columns,
    task: "Denoising",
    settings: SampleSettings,
    guess: Data | None = None,
) -> Denoiser:
    """x_0(x_t) + w sum_i s_i (x_0(x_t, c_i) - x_0(x_t)), s_0 = 1  (Liu et al. 2022).

    w is the guidance weight, c_i for i > 0 the further prompts in `columns`, s_i their shares. All
    else that the network is told is the same in each term; x_0(x_t) is the other half of guidance.
    """
    weight = weight_of(settings)
    null = plain_denoiser(params, absent_by(task.conditions, given, columns), task, guess)
    terms = [(plain_denoiser(params, given, task, guess), weight)]
    index = 0
    while f"{also(index)}{SHARE}" in columns:
        own = {name: columns.get(f"{also(index)}{name}", given[name]) for name in given}
        share = columns[f"{also(index)}{SHARE}"]
        terms.append((plain_denoiser(params, own, task, guess), times(share, weight)))
        index += 1
    return guidance.composed(null, *terms)


def times(share: PerExample, weight: guidance.Weight) -> guidance.Weight:
    """The share of a weight, which may depend on the noise level."""
    if callable(weight):
        return lambda logsnr_t: share * weight(logsnr_t)
    return share * weight


def plain_denoiser(
    params: Params, told: Columns, task: "Denoising", guess: Data | None = None
) -> Denoiser:
    """The network as a denoiser, with its variance if it learns one and with its last guess."""
    bound, learning = task.bind(params, told), task.learning

    def network(x_t: Data, logsnr_t: LogSnr) -> Reshaped:
        seen = jnp.zeros_like(x_t) if guess is None else guess
        return bound(learning.beside(x_t, seen), logsnr_t)

    with_variance = learning.learns_variance
    return (as_denoiser_with_variance if with_variance else as_denoiser)(network, task.predict)


def weight_of(settings: SampleSettings) -> guidance.Weight:
    """The guidance weight, which is 1 outside the interval of log SNRs if there is one."""
    return limited(settings, settings.guidance_weight)


def limited(settings: SampleSettings, weight: float, outside: float = 1.0) -> guidance.Weight:
    """The weight inside the interval of log SNRs, if there is one; `outside` turns it off."""
    low, high = settings.guidance_from, settings.guidance_to
    if (low, high) == (SampleSettings.guidance_from, SampleSettings.guidance_to):
        return weight
    return guidance.interval(weight, low, high, outside)


def absent_by(conditions: tuple[Condition, ...], given: Columns, columns: Columns) -> Columns:
    """The keyword arguments of the network in the other half of guidance, from all conditions."""
    return {name: x for one in conditions for name, x in one.absent(given, columns).items()}


@functools.lru_cache(maxsize=64)
def compiled(
    function: Callable, settings: SampleSettings, **static: Hashable
) -> jax.stages.Wrapped:
    """`function(params, columns, keys, ..., *, task, settings, **static)`, jitted.

    The task is an argument of the program, `task=...`, so its frozen weights are not constants of
    the program, and equal tasks share a program.
    """
    return jax.jit(functools.partial(function, settings=settings, **static))
