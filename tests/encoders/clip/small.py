"""A small CLIP with the emoji vocabulary, as a folder with its merges."""

import shutil

import jax
import jax.numpy as jnp

from diffjax.encoders.clip import vocabulary, weights
from diffjax.encoders.clip.encoder import Clip
from diffjax.models.clip.clip import CLIP
from diffjax.models.clip.sizes import CLIPConfig, tower

CONFIG = CLIPConfig(tower(16, 1, 2), tower(16, 1, 2), 16, 8, 8, vocabulary=1538, length=20)


def fake():
    """A CLIP that has no parameters, for what asks only who it is."""
    return Clip("fake", CONFIG, "c" * 64, vocabulary.load("emoji"), dict)


def write(folder):
    image, ids = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 20), jnp.int32)
    params = jax.jit(CLIP(CONFIG).init)(jax.random.key(0), image, ids)["params"]
    weights.save(folder, CONFIG, params)
    shutil.copy(vocabulary.find("emoji"), folder / "merges.txt")
    return folder
