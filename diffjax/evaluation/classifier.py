"""A small network that tells emoji drawings apart; its features respond to fine parts.

Every drawing is a class of its own. Features are unit vectors, and the class of a picture is that
of the drawing with the largest cosine. The network learns to find a drawing among the 128 of a
batch (InfoNCE, van den Oord et al. 2018) after it was moved, blurred, recoloured and noised, as a
diffusion model may draw it. A batch is sixteen groups of eight drawings with neighbouring names,
because these look alike. Takes minutes on 2 cores.
"""

import functools
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from diffjax.core import rng
from diffjax.core.errors import StorageError
from diffjax.core.types import PRNGKey
from diffjax.images import pixels

SIDE_PX, WIDTH, FEATURES = 32, 32, 128
RUNS, RUN = 16, 8  # of neighbours in a batch
TEMPERATURE = 0.05


class Features(nn.Module):
    """Pictures in [-1, 1] at 32 px -> unit vectors."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b d"]:  # noqa: D102
        for i, width in enumerate((WIDTH, 2 * WIDTH, 4 * WIDTH)):
            x = nn.Conv(width, (3, 3), (1 if i == 0 else 2,) * 2, name=f"conv_{i}")(x)
            x = nn.silu(nn.GroupNorm(8, name=f"norm_{i}")(x))
            residue = nn.Conv(width, (3, 3), name=f"inner_{i}")(x)
            x = x + nn.silu(nn.GroupNorm(8, name=f"inner_norm_{i}")(residue))
        x = nn.Conv(2 * WIDTH, (3, 3), (2, 2), name="last")(nn.silu(x))  # 4 x 4: places count
        x = nn.Dense(FEATURES, name="features")(x.reshape(len(x), -1))
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def small(images: UInt8[np.ndarray, "b h w c"]) -> Float[Array, "b s s c"]:
    """Pictures of any size in bytes, as inputs of the network."""
    return pixels.resize(pixels.from_uint8(jnp.asarray(images)), SIDE_PX, SIDE_PX)


def disturbed(key: PRNGKey, x: Float[Array, "b s s c"]) -> Float[Array, "b s s c"]:
    """Each picture moved by up to 2 px, blurred, recoloured and noised at random."""

    def one(key, x):
        draw = functools.partial(rng.stream, key)
        dy, dx = jax.random.randint(draw("move"), (2,), -2, 3)
        # the background is white, so moved pictures are filled with white
        x = jnp.roll(x, (dy, dx), (0, 1))
        blur = jax.random.uniform(draw("blur"))
        soft = pixels.resize(pixels.resize(x[None], SIDE_PX // 2, SIDE_PX // 2), SIDE_PX, SIDE_PX)
        x = blur * soft[0] + (1 - blur) * x
        gain = 1 + 0.15 * jax.random.normal(draw("gain"), (3,))
        x = 1 - (1 - x) * gain + 0.05 * jax.random.normal(draw("shift"), (3,))
        return x + 0.1 * jax.random.uniform(draw("size")) * jax.random.normal(draw("n"), x.shape)

    return jax.vmap(one)(jax.random.split(key, len(x)), x)


def train(images: UInt8[np.ndarray, "n h w c"], *, num_steps: int = 800, seed: int = 0) -> dict:
    """Trains on pictures in the order of their names for `num_steps`; returns the parameters."""
    pictures = small(images)
    model, root = Features(), jax.random.key(seed)
    tx = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))

    def loss(params, x, clean):
        found, there = (jnp.asarray(model.apply({"params": params}, given)) for given in (x, clean))
        logits = found @ there.T / TEMPERATURE
        labels = jnp.arange(len(x))
        hits = jnp.mean(jnp.argmax(logits, -1) == labels)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), hits

    @jax.jit
    def step(params, opt_state, i):
        starts = jax.random.randint(rng.stream(root, "choice", i), (RUNS, 1), 0, len(pictures))
        clean = pictures[(starts + jnp.arange(RUN)).reshape(-1) % len(pictures)]
        x = disturbed(rng.stream(root, "disturb", i), clean)
        (value, hits), gradients = jax.value_and_grad(loss, has_aux=True)(params, x, clean)
        updates, opt_state = tx.update(gradients, opt_state)
        return optax.apply_updates(params, updates), opt_state, value, hits

    params = model.init(rng.stream(root, "init"), pictures[:1])["params"]
    opt_state = tx.init(params)
    for i in range(num_steps):
        params, opt_state, value, hits = step(params, opt_state, i)
        if i % 50 == 0 or i == num_steps - 1:
            print(f"classifier: step {i}, loss {value:.3f}, right {hits:.3f}", flush=True)
    return params


def features(
    params: dict, images: UInt8[np.ndarray, "n h w c"], batch_size: int = 256
) -> Float[np.ndarray, "n d"]:
    """The unit vectors of pictures of any size."""
    run = jax.jit(lambda x: Features().apply({"params": params}, x))
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    return np.concatenate([np.asarray(run(small(part))) for part in parts])


def save(path: Path, params: dict) -> None:
    """Writes the parameters as safetensors, with names joined by slashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    save_file({name: np.asarray(leaf) for name, leaf in flat.items()}, path)


def load(path: Path) -> dict:
    """Reads the parameters that `save` wrote.

    Raises:
      StorageError: the file is damaged, or belongs to another network.
    """
    try:
        params = flax.traverse_util.unflatten_dict(load_file(path), sep="/")
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path}: damaged: {error}; delete it, and it is trained anew") from None
    shapes = jax.eval_shape(Features().init, jax.random.key(0), jnp.zeros((1, SIDE_PX, SIDE_PX, 3)))
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, shapes["params"]):
        raise StorageError(f"{path}: of another network; delete it, and it is trained anew")
    return params


def trained_at(path: Path, images: UInt8[np.ndarray, "n h w c"], num_steps: int = 800) -> dict:
    """The parameters in a file; if it does not exist, they are trained and written first."""
    if not path.exists():
        print(f"classifier: none at {path}: training one, minutes on two cores", flush=True)
        params = train(images, num_steps=num_steps)
        print(f"classifier: {found_again(params, images[:1000]):.1%} of disturbed drawings found")
        save(path, params)
    return load(path)


def found_again(params: dict, images: UInt8[np.ndarray, "n h w c"]) -> float:
    """The share of pictures whose disturbed version is nearest to the picture itself."""
    given = pixels.to_uint8(disturbed(jax.random.key(1), small(images)))
    near = np.argmax(features(params, np.asarray(given)) @ features(params, images).T, axis=1)
    return float(np.mean(near == np.arange(len(near))))
