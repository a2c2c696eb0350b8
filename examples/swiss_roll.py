"""A two-dimensional toy: learn a Swiss roll, draw from it with every sampler, plot the paths.

    python examples/swiss_roll.py [PICTURE]       (requirements-dev.txt)

Points are arrays [b 2]: the functions that train and sample the cascade take data of any shape.
Under a minute on 2 cores.
"""

import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot

from diffjax.diffusion import predict, schedule
from diffjax.diffusion.sampling import sampler, spacing
from diffjax.diffusion.training import loss

SCHEDULE = schedule.cosine(-12.0, 10.0)
NAMES = [name for name in sampler.SAMPLERS if name not in ("ddpm_learned", "dpmpp_1s")]


class Net(nn.Module):
    """v from a point and its noise level."""

    @nn.compact
    def __call__(self, x_t, logsnr_t):
        inputs = jnp.concatenate([x_t, logsnr_t[:, None] / 8.0], -1)
        waves = nn.Dense(64, kernel_init=nn.initializers.normal(3.0))(inputs)  # Fourier features
        h = jnp.concatenate([inputs, jnp.sin(waves)], -1)
        for _ in range(3):
            h = nn.silu(nn.Dense(128)(h))
        return nn.Dense(2)(h)


def swiss_roll(key, num):
    """[num 2] points on the roll."""
    key_turn, key_off = jax.random.split(key)
    turn = 1.5 * jnp.pi * (1 + 2 * jax.random.uniform(key_turn, (num,)))
    x = turn[:, None] * jnp.stack([jnp.cos(turn), jnp.sin(turn)], -1) / 10.0
    return x + 0.02 * jax.random.normal(key_off, x.shape)


def train(key, num_steps=4_000, batch_size=512):
    """The trained network, (x_t, logsnr_t) -> v, and its mean loss over the last 100 steps."""
    net, tx = Net(), optax.adam(optax.cosine_decay_schedule(3e-3, num_steps))
    params = net.init(key, jnp.zeros((1, 2)), jnp.zeros(1))

    def step(carry, key):
        params, state = carry
        key_data, key_loss = jax.random.split(key)
        x_0 = swiss_roll(key_data, batch_size)

        def of(params):
            network = functools.partial(net.apply, params)
            options = dict(schedule=SCHEDULE, predict="v", weighting="v")
            return loss.diffusion_loss(network, x_0, key=key_loss, **options)[0]

        value, gradients = jax.value_and_grad(of)(params)
        updates, state = tx.update(gradients, state)
        return (optax.apply_updates(params, updates), state), value

    keys = jax.random.split(key, num_steps)
    (params, _), values = jax.jit(lambda c: jax.lax.scan(step, c, keys))((params, tx.init(params)))
    return functools.partial(net.apply, params), float(values[-100:].mean())


def draw(network, name, key, num=1_000):
    """[n num 2]: the path of every point, by the sampler called `name`."""
    rungs = spacing.uniform(SCHEDULE, 20 if name in ("heun", "dpmpp_2s") else 40)
    x_T = jax.random.normal(key, (num, 2))
    step = sampler.by_name(name, 1.0 if name == "dpmpp_2m_sde" else 0.0)
    denoise = predict.as_denoiser(network, "v")
    run = jax.jit(lambda x: sampler.trajectory(denoise, x, logsnrs=rungs, step=step, key=key).x)
    return np.asarray(run(x_T))


def main() -> None:
    out = sys.argv[1] if sys.argv[1:] else "docs/swiss_roll.png"
    network, value = train(jax.random.key(0))
    real = np.asarray(swiss_roll(jax.random.key(1), 4_000))
    print(f"loss {value:.4f}")
    figure, axes = pyplot.subplots(2, (len(NAMES) + 1) // 2, figsize=(14, 7), layout="constrained")
    for axis, name in zip(axes.flat, NAMES, strict=False):
        paths = draw(network, name, jax.random.key(2))
        gaps = np.linalg.norm(paths[-1][:, None] - real[None], axis=-1).min(1)
        print(f"{name:13} mean distance from the roll {gaps.mean():.4f}")
        axis.plot(*paths[:, :30].transpose(2, 0, 1), color="C0", linewidth=0.5, alpha=0.5)
        axis.scatter(*paths[-1].T, s=2, color="C3", zorder=3)
        axis.set(title=name, xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[], aspect=1)
    figure.savefig(out, dpi=80)
    print(out)


main()
