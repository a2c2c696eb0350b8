"""Two stages with small networks, and batches of made-up examples for them."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion.schedule import cosine
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.unet import UNet
from diffjax.tasks.conditions import LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.task import Losses
from tests.tasks.network import Mixing

TINY = {"width": 16, "mults": (1, 2), "head_width": 16, "token_width": 8}
TEXT = Text(4, 6, drop=0.1)
SCHEDULE = cosine()
BASE = Denoising("base", UNet(**TINY, num_blocks=1), (16, 16, 3), (TEXT,), SCHEDULE)
# One level: a network that compiles in half the time.
FLAT = Denoising(
    "flat",
    UNet(**TINY | {"mults": (1,)}, num_blocks=1, attention_levels=(0,)),
    (16, 16, 3),
    (TEXT,),
    SCHEDULE,
)
# Its network compiles at once.
MIXED = Denoising("mixed", Mixing(), (16, 16, 3), (TEXT,), SCHEDULE)
SR = Denoising(
    "sr",
    EfficientUNet(**TINY, num_blocks=(1, 1), attention="cross"),
    (32, 32, 3),
    (TEXT, LowRes(8, 4, SCHEDULE)),
    SCHEDULE,
)
KEY = jax.random.key(0)
STEP = jnp.int32(0)


def batch_of(size_px, b=8):
    """Columns of made-up pictures and captions."""
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (b, size_px, size_px, 3), np.uint8),
        "text": random.standard_normal((b, 6, 4)).astype(jnp.bfloat16),
        "text_length": random.integers(1, 7, b).astype(np.int32),
    }


def moved(task):
    """Parameters off their zeros."""
    return jax.jit(lambda key: jax.tree.map(lambda p: p + 0.05, task.init(key)))(KEY)


def loss_of(task, params, batch, key=KEY) -> Losses:
    """The losses of a batch with the chance of a key."""
    return task.loss(params, task.draw(key, batch, STEP))
