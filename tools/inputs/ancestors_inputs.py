"""What the small DDPMs of the tests are given, and their sizes, without PyTorch."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.core import rng

SIDE, CLASSES = 8, 5
SEED, STEPS = 3, 1000  # of the trajectory


@dataclass(frozen=True)
class Net:
    """A small U-Net in the layout of OpenAI's code: two levels of 32 and 64 channels.

    heads: their number; 0 for heads of 16 channels. split_first: the "new attention order".
    """

    heads: int = 0
    split_first: bool = False
    scale_shift: bool = True
    in_blocks: bool = True
    classes: int = CLASSES
    inputs: int = 3
    outputs: int = 6


# Each choice of the layout, both ways.
NETS = {
    "adm": Net(),
    "adm_new_order": Net(split_first=True),
    "adm_heads": Net(heads=2),
    "iddpm": Net(heads=4, in_blocks=False, classes=0),
    "plain": Net(heads=1, in_blocks=False, scale_shift=False, classes=0, outputs=3),
    "upsampler": Net(heads=4, inputs=6),
}


def given() -> dict[str, np.ndarray]:
    """Pictures [b h w c], small ones, steps [b] and labels [b], of integers."""
    draw = np.random.default_rng(4)

    def whole(*shape: int) -> np.ndarray:
        return np.asarray(draw.integers(-1000, 1001, shape) / 577, np.float32)

    return {
        "x": whole(2, SIDE, SIDE, 3),
        "small": whole(2, SIDE // 2, SIDE // 2, 3),
        "step": np.array([981, 20]),
        "label": np.array([4, 1]),
    }


def noises(name: str, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """x_T [b h w c] and the noise [n b h w c] of each step of a picture of SEED, of a task."""
    keys = rng.stream(rng.per_example(jnp.array([SEED])), name)
    shape = (1, SIDE, SIDE, 3)
    each = rng.split(rng.stream(keys, "steps"), num_steps)
    drawn = jax.vmap(lambda keys: rng.normal(keys, shape))(each)
    return np.asarray(rng.normal(rng.stream(keys, "x_T"), shape)), np.asarray(drawn)
