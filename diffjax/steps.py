"""Training and evaluation steps: pure (state, batch) -> (state, metrics)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from diffjax import pixels, rng
from diffjax.diffusion.loss import diffusion_loss
from diffjax.diffusion.times import TimeSampler, uniform
from diffjax.stage import Condition, Stage, bind, condition_low_res, shrink
from diffjax.state import TrainState, apply_gradients
from diffjax.text.condition import drop_text, mask_from_length
from diffjax.types import PRNGKey, Scalar

Batch = dict[str, Array]
Metrics = dict[str, Array]


def stage_loss(
    params: Any,
    batch: Batch,
    *,
    stage: Stage,
    key: PRNGKey,
    weighting: str,
    text_drop: float,
    max_aug_level: float = 1.0,
    times: TimeSampler = uniform,
) -> tuple[Scalar, Metrics]:
    """The diffusion loss of a batch: image uint8 [b h w c], text [b l d], text_length [b].

    A share `text_drop` of the captions is replaced by the null text. A super-resolution stage
    starts from its own target made small, noised to a level uniform in [0, max_aug_level].
    """
    x_0 = pixels.from_uint8(batch["image"])
    mask = mask_from_length(batch["text_length"], batch["text"].shape[1])
    keep = jax.random.uniform(rng.stream(key, "text_drop"), x_0.shape[:1]) >= text_drop
    text, mask = drop_text(batch["text"].astype(jnp.float32), mask, keep)
    condition = Condition(text, mask)
    if stage.low_res_px:
        level = max_aug_level * jax.random.uniform(rng.stream(key, "aug_level"), x_0.shape[:1])
        low_res, aug_logsnr = condition_low_res(
            stage, shrink(x_0, stage.factor), level, key=rng.stream(key, "aug_noise")
        )
        condition = Condition(text, mask, low_res, aug_logsnr)
    loss, aux = diffusion_loss(
        bind(stage, params, condition),
        x_0,
        key=rng.stream(key, "diffusion"),
        schedule=stage.schedule,
        predict=stage.predict,
        weighting=weighting,
        times=times,
    )
    return loss, {"loss": loss, **by_noise_level(aux.per_example, aux.logsnr_t)}


def by_noise_level(per_example: Array, logsnr: Array) -> Metrics:
    """The mean loss of the noisy and of the clean half (logsnr below and above 0); NaN if empty."""
    noisy = logsnr < 0
    mean = lambda where: jnp.mean(per_example, where=where)  # noqa: E731
    return {"loss_noisy": mean(noisy), "loss_clean": mean(~noisy)}


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    stage: Stage,
    tx: optax.GradientTransformation,
    root_key: PRNGKey,
    ema_decay: float,
    **loss_options: Any,
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent; all its noise comes from (root_key, state.step)."""
    key = rng.stream(root_key, "train", state.step)
    (_, metrics), gradients = jax.value_and_grad(stage_loss, has_aux=True)(
        state.params, batch, stage=stage, key=key, **loss_options
    )
    metrics["grad_norm"] = optax.tree.norm(gradients)
    finite = jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradients)])
    metrics["nonfinite"] = jnp.mean(~finite)  # the share of leaves with a bad gradient: 0
    return apply_gradients(state, gradients, tx, ema_decay), metrics


def eval_step(params: Any, batch: Batch, *, stage: Stage, key: PRNGKey, weighting: str) -> Metrics:
    """The loss with no caption dropped, on noise that depends on `key` alone."""
    return stage_loss(params, batch, stage=stage, key=key, weighting=weighting, text_drop=0.0)[1]
