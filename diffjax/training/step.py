"""Training and evaluation steps: pure (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from diffjax.core import rng
from diffjax.core.types import Image, LogSnr, PRNGKey, Scalar
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.training.loss import mean_over, weighted_error
from diffjax.diffusion.training.times import Times, TimeSampler, uniform
from diffjax.images import pixels
from diffjax.models.layers.level import is_block
from diffjax.tasks.denoising import Condition, Stage, bind, condition_low_res, shrink
from diffjax.tasks.text import drop_text, mask_from_length
from diffjax.training.averages import Averages
from diffjax.training.state import TrainState, apply_gradients

Batch = dict[str, Array]
Metrics = dict[str, Array]
# (params, rows) -> (sums like params, rows): see `whole`.
Work: TypeAlias = Callable[..., tuple[Any, Any]]
Gather: TypeAlias = Callable[[Any], Any]
Spread: TypeAlias = Callable[[Work], Callable[[Any, Any], tuple[Any, Any]]]


class Drawn(NamedTuple):
    """All chance of one batch, a row per example: drawn at once, however it is then split."""

    keep_text: Bool[Array, " b"]
    times: Times
    eps: Image
    aug_level: Float[Array, " b"]
    aug_key: Key[Array, " b"]


class Losses(NamedTuple):
    """What an example's loss was, and at which level."""

    per_example: Float[Array, " b"]
    logsnr_t: LogSnr


def whole(work: Work) -> Callable[[Any, Any], tuple[Any, Any]]:
    """One device does all rows and has all parameters; `mesh.spread` is for many."""
    return lambda params, rows: work(params, rows, gather=None)


def draw(
    shape: tuple[int, ...],
    *,
    key: PRNGKey,
    text_drop: float,
    max_aug_level: float = 1.0,
    times: TimeSampler = uniform,
) -> Drawn:
    """The chance of a batch of pictures [b h w c].

    A share `text_drop` of the captions is to be replaced by the null text; a low-resolution
    picture is noised to a level uniform in [0, max_aug_level]; `times` draws the noise levels.
    """
    b = shape[0]
    key_u, key_eps = jax.random.split(rng.stream(key, "diffusion"))
    return Drawn(
        keep_text=jax.random.uniform(rng.stream(key, "text_drop"), (b,)) >= text_drop,
        times=times(key_u, b),
        eps=jax.random.normal(key_eps, shape),
        aug_level=max_aug_level * jax.random.uniform(rng.stream(key, "aug_level"), (b,)),
        aug_key=jax.random.split(rng.stream(key, "aug_noise"), b),
    )


def losses_of(params: Any, batch: Batch, drawn: Drawn, *, stage: Stage, weighting: str) -> Losses:
    """Each example's diffusion loss: image uint8 [b h w c], text [b l d], text_length [b].

    A super-resolution stage starts from its own target made small and noised.
    """
    x_0 = pixels.from_uint8(batch["image"])
    mask = mask_from_length(batch["text_length"], batch["text"].shape[1])
    text, mask = drop_text(batch["text"].astype(jnp.float32), mask, drawn.keep_text)
    condition = Condition(text, mask)
    if stage.low_res_px:
        low_res, aug_logsnr = condition_low_res(
            stage, shrink(x_0, stage.factor), drawn.aug_level, key=drawn.aug_key
        )
        condition = Condition(text, mask, low_res, aug_logsnr)
    logsnr_t = stage.schedule(drawn.times.u)
    output = bind(stage, params, condition)(diffuse(x_0, drawn.eps, logsnr_t), logsnr_t)
    error = weighted_error(output, x_0, drawn.eps, logsnr_t, stage.predict, weighting)
    return Losses(error, logsnr_t)


def stage_loss(
    params: Any, batch: Batch, *, stage: Stage, key: PRNGKey, weighting: str, **chance: Any
) -> tuple[Scalar, Metrics]:
    """The diffusion loss of a batch; `chance`: see `draw`."""
    drawn = draw(batch["image"].shape, key=key, **chance)
    losses = losses_of(params, batch, drawn, stage=stage, weighting=weighting)
    metrics = metrics_of(losses, drawn.times)
    return metrics["loss"], metrics


def metrics_of(losses: Losses, times: Times) -> Metrics:
    """The mean loss, and that of the noisy and of the clean half (logsnr below and above 0)."""
    loss = mean_over(times, losses.per_example)
    return {"loss": loss, **by_noise_level(losses.per_example, losses.logsnr_t)}


def by_noise_level(per_example: Array, logsnr: Array) -> Metrics:
    """The mean loss of the noisy and of the clean half (logsnr below and above 0); NaN if empty."""
    noisy = logsnr < 0
    mean = lambda where: jnp.mean(per_example, where=where)  # noqa: E731
    return {"loss_noisy": mean(noisy), "loss_clean": mean(~noisy)}


def gathered(stage: Stage, params: Any, gather: Gather | None) -> tuple[Stage, Any]:
    """The stage and its parameters for use; a block gathers its own where it runs.

    So no device holds more than a block's whole parameters at a time, nor their gradients.
    """
    if gather is None:
        return stage, params
    if not hasattr(stage.model, "unpack"):
        return stage, gather(params)
    outside = {
        name: child if is_block(child) else gather({name: child})[name]
        for name, child in params.items()
    }
    return replace(stage, model=stage.model.clone(unpack=gather)), outside


def gradients_of(
    params: Any,
    rows: tuple[Batch, Drawn],
    *,
    gather: Gather | None,
    total: int,
    parts: int = 1,
    stage: Stage,
    weighting: str,
) -> tuple[Any, Losses]:
    """These rows' share of the gradient of a mean over `total` rows, and the rows' losses.

    gather: parameters as they are kept -> as the network uses them; None: the same. parts: the
    rows go through the network in so many equal parts, one after the other; a gradient is kept
    for their sum.
    """

    def share(params, rows):
        batch, drawn = rows
        used_stage, used = gathered(stage, params, gather)
        losses = losses_of(used, batch, drawn, stage=used_stage, weighting=weighting)
        return jnp.sum(drawn.times.weight * losses.per_example) / total, losses

    gradient = jax.grad(share, has_aux=True)
    if parts == 1:
        return gradient(params, rows)

    def body(so_far, part):
        gradients, losses = gradient(params, part)
        return jax.tree.map(jnp.add, so_far, gradients), losses

    in_parts = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), rows)
    gradients, losses = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), in_parts)
    return gradients, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), losses)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    stage: Stage,
    tx: optax.GradientTransformation,
    root_key: PRNGKey,
    averages: Averages,
    weighting: str,
    accumulate: int = 1,
    spread: Spread = whole,
    rate: optax.Schedule | None = None,
    **chance: Any,
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent; all its chance comes from (root_key, state.step).

    A step whose loss or gradient is not finite is skipped: it counts, and moves no parameter.
    accumulate: micro-batches, one after the other, that make up the batch; the result does not
    depend on their number. spread: how the work goes over devices. rate: the learning rate by
    step, for the metrics alone. `chance`: see `draw`.
    """
    key = rng.stream(root_key, "train", state.step)
    drawn = draw(batch["image"].shape, key=key, **chance)

    def work(params, rows, *, gather):
        return gradients_of(
            params, rows, gather=gather, total=batch["image"].shape[0], parts=accumulate,
            stage=stage, weighting=weighting,
        )  # fmt: skip

    gradients, losses = spread(work)(state.params, (batch, drawn))
    metrics = metrics_of(losses, drawn.times)
    metrics["grad_norm"] = optax.tree.norm(gradients)
    finite = jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradients)])
    metrics["nonfinite"] = jnp.mean(~finite)  # the share of leaves with a bad gradient: 0
    # the norm's squares overflow before Adam's do, so it speaks for every leaf
    good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    metrics["skipped"] = 1.0 - good.astype(jnp.float32)
    if rate is not None:
        metrics["learning_rate"] = jnp.asarray(rate(state.step), jnp.float32)
    return apply_gradients(state, gradients, tx, averages, good), metrics


def all_finite(state: Any) -> Bool[Array, ""]:
    """Whether every number of a state is finite: asked before it is saved."""
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state)]).all()


class Readings(NamedTuple):
    """The metrics of the last steps, a row each, kept on the device until they are read."""

    rows: Float[Array, "steps metrics"]
    written: Int[Array, ""]


def no_readings(num_steps: int, metrics: Metrics) -> Readings:
    """Room for the metrics (or their shapes) of so many steps."""
    return Readings(jnp.zeros((num_steps, len(metrics))), jnp.zeros((), jnp.int32))


def record(readings: Readings, metrics: Metrics) -> Readings:
    """The readings with a step's metrics written over the oldest row, columns by name."""
    rows, written = readings
    row = jnp.stack([metrics[name] for name in sorted(metrics)])
    return Readings(rows.at[written].set(row), (written + 1) % rows.shape[0])


def eval_step(params: Any, batch: Batch, *, stage: Stage, key: PRNGKey, weighting: str) -> Metrics:
    """The loss with no caption dropped, on noise that depends on `key` alone."""
    return stage_loss(params, batch, stage=stage, key=key, weighting=weighting, text_drop=0.0)[1]
