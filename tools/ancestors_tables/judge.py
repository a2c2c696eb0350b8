"""The judge of pictures: a small network that was trained on clean digits to tell the class.

It is independent of the classifier that guides, which knows noised pictures and is another network.
A fifth of the digits is held out, so that its own errors are known.
"""

from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8
from safetensors.numpy import load_file, save_file

from diffjax.core import rng
from diffjax.core.trees import Params
from diffjax.data.sources import digits
from diffjax.evaluation import fid
from diffjax.evaluation.metrics import moments, neighbours

FEATURES, CLASSES = 64, 10
STEPS, BATCH, NOISE = 2_000, 128, 0.1
HELD_OUT = 5  # every fifth digit
NEAREST = 3  # as in the paper of precision and recall

Digits = UInt8[np.ndarray, "n 8 8"]


class Net(nn.Module):
    """Digits in [-1, 1] -> (features, logits)."""

    @nn.compact
    def __call__(  # noqa: D102
        self, x: Float[Array, "b 8 8"]
    ) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
        h = nn.silu(nn.Conv(32, (3, 3), name="conv_0")(x[..., None]))
        h = nn.silu(nn.Conv(64, (3, 3), (2, 2), name="conv_1")(h))
        h = nn.silu(nn.Dense(FEATURES, name="features")(h.reshape(len(h), -1)))
        return h, nn.Dense(CLASSES, name="logits")(h)


class Scores(NamedTuple):
    """How far made digits are from real ones, and the share that is the class that was asked for.

    fd: the Frechet distance of the judge's features. precision, recall: of Kynkaanniemi et al.
    """

    fd: float
    right: float
    precision: float
    recall: float


def train(images: Digits, labels: Int[np.ndarray, " n"]) -> Params:
    """The parameters after STEPS of Adam on digits with a little noise."""
    model, root = Net(), jax.random.key(0)
    tx = optax.adamw(optax.cosine_decay_schedule(2e-3, STEPS), weight_decay=1e-2)
    x, y = inputs(images), jnp.asarray(labels)

    def loss(params: Params, x: Array, y: Array) -> Array:
        _, logits = model.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params, state, i):
        rows = jax.random.randint(rng.stream(root, "rows", i), (BATCH,), 0, len(x))
        noise = NOISE * jax.random.normal(rng.stream(root, "noise", i), (BATCH, 8, 8))
        gradients = jax.grad(loss)(params, x[rows] + noise, y[rows])
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = model.init(rng.stream(root, "init"), x[:1])["params"]
    state = tx.init(params)
    for i in range(STEPS):
        params, state = step(params, state, i)
    return params


def trained(out: Path) -> Params:
    """The judge's parameters; they are trained first if OUT has none."""
    path = out / "judge.safetensors"
    if not path.exists():
        images, labels = digits.load()
        held_out = np.arange(len(images)) % HELD_OUT == 0
        params = train(images[~held_out], labels[~held_out])
        found = named(params, images[held_out]) == labels[held_out]
        print(f"judge: names {found.mean():.1%} of held-out digits right", flush=True)
        flat = flax.traverse_util.flatten_dict(params, sep="/")
        save_file({name: np.asarray(leaf) for name, leaf in flat.items()}, path)
    return flax.traverse_util.unflatten_dict(load_file(path), sep="/")


def inputs(images: Digits) -> Float[Array, "n 8 8"]:
    """Bytes as numbers in [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


@jax.jit
def answers(
    params: Params, x: Float[Array, "n 8 8"]
) -> tuple[Float[Array, "n d"], Float[Array, "n k"]]:
    """The features and the logits of each digit."""
    features, logits = Net().apply({"params": params}, x)
    return jnp.asarray(features), jnp.asarray(logits)


def features(params: Params, images: Digits) -> Float[np.ndarray, "n d"]:
    """The features of each digit."""
    return np.asarray(answers(params, inputs(images))[0])


def named(params: Params, images: Digits) -> Int[np.ndarray, " n"]:
    """The class of each digit."""
    return np.argmax(np.asarray(answers(params, inputs(images))[1]), axis=1)


def scores(params: Params, made: Digits, labels: Int[np.ndarray, " n"], real: Digits) -> Scores:
    """The numbers of digits that were made, or of real ones, against real ones."""
    there, here = features(params, real), features(params, made)
    balls = neighbours.precision_recall(here, there, NEAREST)
    return Scores(
        fid.distance(moments.moments_of(here), moments.moments_of(there)),
        float(np.mean(named(params, made) == labels)),
        balls.precision,
        balls.recall,
    )


def of_real(params: Params, count: int) -> Scores:
    """The numbers of `count` real digits: what a perfect model would have.

    fd: of draws from all digits, with replacement and with as many of each class, against all. The
    others, which would see copies, are of digits drawn without replacement, against the rest.
    """
    images, labels = digits.load()
    random = np.random.default_rng(0)
    order = random.permutation(len(images))
    here, there = order[:count], order[count:]
    apart = scores(params, images[here], labels[here], images[there])
    of_class = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    drawn = [random.choice(of_class[i % CLASSES]) for i in range(count)]
    return apart._replace(fd=scores(params, images[drawn], labels[drawn], images).fd)
