"""A base for LoRA: an export of a network for digits that compiles soon, with made-up weights."""

import json

import jax
import numpy as np

from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.core import tensorfile, trees

ATTENDING = "attention/out/kernel"


def options(**model):
    """Its config."""
    made = config.load("configs/digits.py:tiny").copy_and_resolve_references().unlock()
    made.model.update(mults=(1,), attention_levels=(0,), patch=4, **model)
    made.train.sample_every = 0
    return made


def params(of):
    """Parameters off their zeros."""
    task = tasks.task_of(of, 0)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    random = np.random.default_rng(0)
    draw = lambda x: (0.1 * random.standard_normal(x.shape)).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, shapes)


def write(path, of=None, change=lambda tree: tree):
    """Writes it; change: of the parameters."""
    of = of or options()
    metadata = {"config": json.dumps(of.to_dict()), "step": "7", "ema": "live"}
    tensorfile.write(path, trees.named_leaves(change(params(of))), metadata)
    return path
