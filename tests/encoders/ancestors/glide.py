"""Small GLIDEs of others: their weights, our networks, and their vocabularies."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from safetensors.numpy import load_file

from diffjax.core import rng
from diffjax.models.clip.sizes import Tower
from diffjax.models.words import Words
from diffjax.tasks.conditions import LowRes, Masked, Tokens
from diffjax.tasks.settings import SampleSettings
from tests.encoders.ancestors import made
from tools.inputs import random_tensors
from tools.inputs.glide_inputs import HEADS, LAYERS, NETS, PLACES, VOCABULARY, WIDTH

GOLDEN = Path(__file__).parents[2] / "golden/glide"
WORDS = Words(Tower(WIDTH, LAYERS, HEADS, 4 * WIDTH), VOCABULARY, PLACES)


@functools.cache
def shapes(name):
    """The shape of each tensor of a network of NETS."""
    found = json.loads((GOLDEN / "shapes.json").read_text())
    own = {**found["base"], **({} if name == "base" else found[name])}
    return {key: tuple(shape) for key, shape in own.items()}


def weights(name):
    """Its random tensors."""
    return random_tensors.transformer(0, shapes(name))


def answers():
    """What the others make of the inputs."""
    return load_file(GOLDEN / "answers.safetensors")


def network():
    """Our network, which is one for all of NETS."""
    return made.network("adm").clone(words=WORDS, num_classes=0)


def told(name, given):
    """What conditions tell it beside x_t and the level, as when sampling."""
    inputs, conditions = NETS[name].inputs, [Tokens(PLACES)]
    columns = {"tokens": given["tokens"], "picture": given["picture"], "hole": given["hole"],
               "low_res": given["small"]}  # fmt: skip
    conditions += [Masked(8, known=True)] if inputs in (7, 10) else []
    conditions += [LowRes(4, 2, noised=False)] if inputs in (6, 10) else []
    columns = {key: jnp.asarray(column) for key, column in columns.items()}
    keys = rng.per_example(jnp.arange(2))
    found = [one.given(columns, keys, SampleSettings()) for one in conditions]
    return {key: column for part in found for key, column in part.items()}


def shapes_of(model, name, given):
    """The shapes of our network's parameters."""
    x = jnp.zeros((2, 8, 8, 3))
    init = functools.partial(model.init, **told(name, given))
    return jax.eval_shape(init, jax.random.key(0), x, jnp.zeros(2))["params"]


def config_file(path, name):
    """A config of a network of NETS, as a person writes it."""
    inputs = NETS[name].inputs
    stage = "glide256" if inputs in (6, 10) else "glide64"
    path.write_text(f"""
from configs import {stage}, pieces

def get_config():
    config = {stage}.get_config("tiny")
    config.tokens.length = {PLACES}
    config.model.update(
        width=32, mults=(1, 2), num_blocks=1, attention_levels=(1,), num_heads=0, head_width=16,
        norm_groups=32, steps=1000, text_width={WIDTH}, text_layers={LAYERS}, text_heads={HEADS},
    )
    config.diffusion.update(schedule="linear", num_levels=1000)
    if {inputs} in (7, 10):
        config.mask = pieces.mask()
        config.mask.known = True
    return config
""")
    return path


def vocabulary(path, merges):
    """GPT-2's file of these merges."""
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    path.write_text("\n".join(lines) + "\n")
    return path
