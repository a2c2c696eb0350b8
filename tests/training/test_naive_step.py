"""The training step against float64 NumPy: a linear network, all options on, a bad batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.tasks.conditions import Class, LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.training import averages, optim, state
from diffjax.training.step import train_step
from tests import naive

ROOT, ROWS, SIDE, STEPS, BAD = jax.random.key(5), 6, 4, 7, 3
DROP, MAX_LEVEL, CLIP, WEIGHT_DECAY, PEAK, WARMUP, TOTAL = 0.4, 0.7, 0.3, 0.2, 0.1, 2, 8
B1, B2, EPS = 0.8, 0.95, 1e-3
NAMES = ("x", "level", "low_res", "aug", "label", "text")
# Options of their own: a rate and no decay for one group, another rate for a second. The first
# group counts whose pattern is the whole path, which that of the third is of no parameter.
GROUPS = ("net/(level|aug) rate=0.5 weight_decay=0", "net/l.* rate=2", "net/te rate=9")
AVERAGES = ("decay_0.7", "power_0.1")


def features(x_t, logsnr_t, *, text, text_mask, low_res, aug_logsnr, label, xp=jnp):
    """What the network is a linear function of, [b h w c] each."""
    plane = lambda rows: rows.reshape(-1, 1, 1, 1) * xp.ones_like(x_t)  # noqa: E731
    return {
        "x": x_t,
        "level": plane(xp.tanh(logsnr_t / 8)),
        "low_res": low_res,
        "aug": plane(xp.tanh(aug_logsnr / 8)),
        "label": plane(label / 4.0),
        "text": plane(xp.sum(text * text_mask[..., None], axis=(1, 2))),
    }


@dataclasses.dataclass(frozen=True)
class Linear:
    """A network of one number for each feature."""

    @property
    def sharding(self):
        return ()

    def init(self, key, *inputs, **told):
        return {"params": {"net": {name: 0.1 * jnp.ones((1,)) for name in NAMES}}}

    def apply(self, variables, x_t, logsnr_t, **told):
        seen = features(x_t, logsnr_t, **told)
        return sum(variables["params"]["net"][name] * seen[name] for name in NAMES)


TASK = Denoising(
    "linear",
    Linear(),
    (SIDE, SIDE, 3),
    (Text(2, 3, DROP), Class(4, DROP), LowRes(2, 2, max_level=MAX_LEVEL)),
    predict="v",
    weighting="min_snr",
)


def batch_of(number):
    random = np.random.default_rng(number)
    batch = {
        "image": random.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8),
        "text": random.normal(size=(ROWS, 3, 2)).astype(jnp.bfloat16),
        "text_length": random.integers(1, 4, ROWS).astype(np.int32),
        "label": random.integers(0, 4, ROWS).astype(np.int32),
    }
    if number == BAD:
        batch["text"][:, 0] = np.nan
    return batch


def losses_and_gradients(params, batch, step):
    """The loss of each row, and the gradient of their mean."""
    key = naive.stream(ROOT, "train", step)
    key_u, key_eps = jax.random.split(naive.stream(key, "diffusion"))
    u, shape = naive.uniform(key_u, (ROWS,)), (ROWS, SIDE, SIDE, 3)
    eps, logsnr = naive.normal(key_eps, shape), naive.cosine(u)
    keep_text = naive.uniform(naive.stream(key, "text_drop"), (ROWS,)) >= DROP
    keep_label = naive.uniform(naive.stream(key, "label_drop"), (ROWS,)) >= DROP
    aug_level = MAX_LEVEL * naive.uniform(naive.stream(key, "aug_level"), (ROWS,))
    own = jax.random.split(naive.stream(key, "aug_noise"), ROWS)
    aug_noise = np.stack([naive.normal(one, (2, 2, 3)) for one in own])
    x_0 = batch["image"].astype(np.float64) / 127.5 - 1
    small = naive.noised(naive.resized(x_0, 2), aug_noise, naive.cosine(aug_level))
    text = np.where(keep_text[:, None, None], batch["text"].astype(np.float64), 0.0)
    mask = np.arange(3) < np.where(keep_text, batch["text_length"], 1)[:, None]
    told = dict(
        text=text, text_mask=mask, low_res=naive.resized(small, SIDE),
        aug_logsnr=naive.cosine(aug_level), label=np.where(keep_label, batch["label"], 4),
    )  # fmt: skip
    alpha, sigma = naive.levels(logsnr)
    seen = features(naive.noised(x_0, eps, logsnr), logsnr, **told, xp=np)
    missed = sum(params[name] * seen[name] for name in NAMES) - (alpha * eps - sigma * x_0)
    # v's error is (SNR + 1) times x_0's
    weight = np.minimum(np.exp(logsnr), 5.0) / (np.exp(logsnr) + 1)
    losses = weight * np.mean(missed**2, axis=(1, 2, 3))
    per_row = {k: weight * np.mean(2 * missed * f, axis=(1, 2, 3)) for k, f in seen.items()}
    return losses, {name: np.mean(rows) for name, rows in per_row.items()}, logsnr


def rate_at(count):
    """Up in WARMUP steps, and down to 0 over the last fifth of all."""
    down = round(0.2 * TOTAL)
    return PEAK * min(count / WARMUP, 1.0, max(TOTAL - count, 0) / down)


def options_of(name):
    """(rate, weight decay) of a parameter: the first group whose pattern is its path."""
    if name in ("level", "aug"):
        return 0.5, 0.0
    return (2.0, WEIGHT_DECAY) if name.startswith("l") else (1.0, WEIGHT_DECAY)


def naively(clip=CLIP):
    """(parameters, averages, metrics) after each step."""
    params = dict.fromkeys(NAMES, 0.1)
    first, second, used = dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, 0.0), 0
    kept = {name: dict(params) for name in AVERAGES}
    for step in range(STEPS):
        losses, gradients, logsnr = losses_and_gradients(params, batch_of(step), step)
        norm = np.sqrt(sum(g**2 for g in gradients.values()))
        good = bool(np.isfinite(norm))
        if good:
            used += 1
            for name in NAMES:
                gradient = gradients[name] * min(1.0, clip / norm)
                first[name] = B1 * first[name] + (1 - B1) * gradient
                second[name] = B2 * second[name] + (1 - B2) * gradient**2
                mean, square = first[name] / (1 - B1**used), second[name] / (1 - B2**used)
                scale, decay = options_of(name)
                move = mean / (np.sqrt(square) + EPS) + decay * params[name]
                params[name] -= scale * rate_at(used - 1) * move
        gamma = averages.gamma_of(0.1)
        for name, beta in zip(
            AVERAGES,
            (min(0.7, (1 + step) / (10 + step)), (1 - 1 / (step + 1)) ** (gamma + 1)),
            strict=True,
        ):
            for one in NAMES:
                kept[name][one] = beta * kept[name][one] + (1 - beta) * params[one]
        noisy = np.nanmean(losses[logsnr < 0])  # of the rows that have one
        clean = np.nanmean(losses[logsnr >= 0])
        metrics = {"loss": losses.mean(), "grad_norm": norm, "loss_noisy": noisy}
        metrics |= {"loss_clean": clean}
        metrics |= {"skipped": float(not good), "learning_rate": rate_at(step)}
        yield dict(params), {name: dict(one) for name, one in kept.items()}, metrics


@pytest.mark.parametrize("parts", [1, 2])
def test_the_step_is_that_of_ten_lines_of_numpy(parts):
    rate = optim.learning_rate(PEAK, warmup_steps=WARMUP, num_steps=TOTAL, decay="cooldown")
    tx = optim.optimiser(
        "adamw", rate, b1=B1, b2=B2, eps=EPS, weight_decay=WEIGHT_DECAY, clip_norm=CLIP,
        groups=tuple(map(optim.parse_group, GROUPS)),
    )  # fmt: skip
    weights = averages.parse(AVERAGES)
    current = state.create(TASK.init, tx, AVERAGES, jax.random.key(0))

    @jax.jit
    def step(current, batch):
        return train_step(
            current, batch, task=TASK, tx=tx, root_key=ROOT, averages=weights, parts=parts,
            rate=rate,
        )  # fmt: skip

    clipped = []
    for number, (params, kept, wanted) in enumerate(naively()):
        current, metrics = step(current, batch_of(number))
        for name in NAMES:
            mine = current.params["net"][name][0]
            assert mine == pytest.approx(params[name], rel=1e-4, abs=1e-6), (number, name)
            for average in AVERAGES:
                mine = current.ema_params[average]["net"][name][0]
                assert mine == pytest.approx(kept[average][name], rel=1e-4), (number, average)
        for name, value in wanted.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
        clipped.append(wanted["grad_norm"] > CLIP)
    assert {True, False} <= set(clipped)  # both were met
    assert int(current.step) == STEPS
