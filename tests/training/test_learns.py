"""Trained on 8 captioned drawings, the cascade gives the right one for its prompt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.data import transforms
from diffjax.data.emoji.drawings import catalogue, rasterise
from diffjax.encoders.t5 import load_encoder
from diffjax.generation import chain
from diffjax.generation.chain import TrainedStage
from diffjax.images import pixels
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.unet import UNet
from diffjax.tasks.conditions import LowRes, Text, shrink
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.training import averages, state
from diffjax.training.step import train_step

NAMES = ("red_apple", "banana", "red_heart", "sunflower", "frog", "soccer_ball", "pizza", "cactus")
BASE_PX, SR_PX, TOKENS = 32, 64, 48


@pytest.fixture(scope="module")
def drawings():
    by_name = {d.name: d for d in catalogue() if d.style == "twemoji"}
    pictures = [transforms.decode(rasterise(by_name[name], SR_PX)) for name in NAMES]
    captions = [f"a twemoji drawing of a {name.replace('_', ' ')}" for name in NAMES]
    text, mask = load_encoder("t5-nano", max_length=TOKENS).encode(captions, TOKENS)
    return jnp.asarray(np.stack(pictures)), text, mask


def train(task, images, text, mask, num_steps, copies):
    """The averaged parameters after training on every picture `copies` times a step."""
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, 50, num_steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    tile = lambda x: jnp.repeat(x, copies, axis=0)  # noqa: E731
    batch = {"image": tile(images), "text": tile(text), "text_length": tile(mask.sum(1))}
    step = jax.jit(
        functools.partial(
            train_step, task=task, tx=tx, root_key=jax.random.key(0),
            averages=averages.parse(["decay_0.98"]),
        ),
        donate_argnums=0,
    )  # fmt: skip
    create = functools.partial(state.create, task.init, tx, ["decay_0.98"])
    current = jax.jit(create)(jax.random.key(1))
    for _ in range(num_steps):
        current, metrics = step(current, batch)
    assert float(metrics["loss"]) < 0.1
    return current.ema_params["decay_0.98"]


def task_of(name, model, size_px, text, *conditions):
    """A stage that guesses x_0 and trains a tenth of its rows without text."""
    told = (Text(text.shape[-1], TOKENS, drop=0.1), *conditions)
    shape = (size_px, size_px, 3)
    return Denoising(name, model, shape, told, predict="x_0", weighting="x_0")


def nearest(made, real):
    """For each picture made, which real one is nearest in pixels."""
    distance = jnp.mean((made[:, None] - real[None]) ** 2, axis=(2, 3, 4))
    return np.asarray(distance.argmin(axis=1))


def psnr(made, real):
    """Of [-1, 1] pictures, in dB."""
    return float(10 * jnp.log10(4.0 / jnp.mean((made - real) ** 2)))


@pytest.fixture(scope="module")
def base(drawings):
    images, text, mask = drawings
    model = UNet(
        width=64, mults=(1, 2), num_blocks=1, attention_levels=(1,), head_width=32,
        token_width=64, patch=4,
    )  # fmt: skip
    task = task_of("base", model, BASE_PX, text)
    small = pixels.to_uint8(shrink(pixels.from_uint8(images), SR_PX // BASE_PX))
    params = train(task, small, text, mask, num_steps=500, copies=2)
    settings = SampleSettings(num_steps=16, guidance_weight=3.0)
    return TrainedStage(task, params, settings), pixels.from_uint8(small)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 100])
def test_the_nearest_drawing_is_the_one_prompted(drawings, base, seed):
    _, text, mask = drawings
    trained, small = base
    (made,) = chain.generate(
        [trained], chain.prompt_columns(text, mask), seeds=seed + jnp.arange(8)
    )
    assert np.sum(nearest(made, small) == np.arange(8)) >= 7


@pytest.mark.slow
def test_swapping_two_prompts_swaps_the_drawings(drawings, base):
    _, text, mask = drawings
    trained, small = base
    swap = jnp.array([1, 0, *range(2, 8)])
    (made,) = chain.generate(
        [trained], chain.prompt_columns(text[swap], mask[swap]), seeds=jnp.arange(8)
    )
    assert list(nearest(made, small)[:2]) == [1, 0]


@pytest.mark.slow
def test_super_resolution_beats_bicubic_on_its_training_pictures(drawings):
    images, text, mask = drawings
    model = EfficientUNet(
        width=32, mults=(1, 2), num_blocks=(1, 1), attention="cross", head_width=32,
        token_width=64, patch=2,
    )  # fmt: skip
    task = task_of("sr", model, SR_PX, text, LowRes(16, SR_PX // 16, max_level=0.2))
    params = train(task, images, text, mask, num_steps=900, copies=2)
    real = pixels.from_uint8(images)
    low_res = shrink(real, task.factor)
    settings = SampleSettings(num_steps=16, aug_level=0.0)
    columns = {**chain.prompt_columns(text, mask), "low_res": low_res}
    (made,) = chain.generate([TrainedStage(task, params, settings)], columns, seeds=jnp.arange(8))
    bicubic = jnp.clip(pixels.resize(low_res, SR_PX, SR_PX), -1.0, 1.0)
    print(f"PSNR {psnr(made, real):.2f} dB, bicubic {psnr(bicubic, real):.2f} dB")
    assert psnr(made, real) > psnr(bicubic, real) + 1.0
