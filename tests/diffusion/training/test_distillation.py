"""Targets of a student: the inverse of DDIM's step, closed forms, and whole chains."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedule
from diffjax.diffusion.process import alpha_sigma, diffuse
from diffjax.diffusion.sampling import sampler, spacing, step
from diffjax.diffusion.training import distillation

COSINE = schedule.cosine()


def parts(logsnr):
    """alpha and sigma in float64."""
    return np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))


@pytest.mark.parametrize("logsnr_s", [-1.0, 4.0, np.inf])
def test_what_a_student_shall_say_leads_where_its_teacher_went(logsnr_s):
    random = np.random.default_rng(0)
    x_0, x_t = random.standard_normal((2, 5, 3))
    at, to = np.full(5, -2.0), np.full(5, logsnr_s)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = parts(at[0]), parts(to[0])
    x_s = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t  # DDIM, by its eps
    f32 = [jnp.asarray(x, jnp.float32) for x in (x_s, x_t, at, to)]
    np.testing.assert_allclose(distillation.x_0_that_leads_to(*f32), x_0, atol=1e-5)


def gaussian(scale):
    """The denoiser of data N(0, scale^2)."""

    def denoise(x_t, logsnr_t):
        alpha, sigma = alpha_sigma(logsnr_t, x_t)
        return alpha * scale**2 / (alpha**2 * scale**2 + sigma**2) * x_t

    return denoise


def test_four_steps_on_a_gaussian_are_one_of_their_product():
    random, scale = np.random.default_rng(1), 0.5
    rungs = np.array([[-6.0, -4, -2, 0, 2], [0, 1, 3, 5, np.inf]])
    x_t = random.standard_normal((2, 7))
    x_s = distillation.jump(
        gaussian(scale), jnp.asarray(x_t, jnp.float32), jnp.asarray(rungs, jnp.float32)
    )
    for row, ladder in enumerate(rungs):
        gain = 1.0
        for at, to in itertools.pairwise(ladder):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = parts(at), parts(to)
            x_0 = alpha_t * scale**2 / (alpha_t**2 * scale**2 + sigma_t**2)
            gain *= alpha_s * x_0 + sigma_s * (1 - alpha_t * x_0) / sigma_t
        np.testing.assert_allclose(x_s[row], gain * x_t[row], atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_student_that_says_its_targets_ends_where_its_teacher_does(steps):
    teacher, each = mixture, 3
    rungs = spacing.uniform(COSINE, steps * each)
    own = spacing.uniform(COSINE, steps)

    def student(x_t, logsnr_t):
        place = jnp.argmin(jnp.abs(own[:-1] - logsnr_t[0]))
        ladder = jax.lax.dynamic_slice(rungs, (place * each,), (each + 1,))
        return distillation.target(teacher, x_t, jnp.broadcast_to(ladder, (len(x_t), each + 1)))

    x_T = jax.random.normal(jax.random.key(0), (64, 2))
    ends = [
        jax.jit(
            lambda x, denoise=denoise, ladder=ladder: sampler.sample(
                denoise, x, logsnrs=ladder, step=step_of_ddim(), key=None
            )
        )(x_T)
        for denoise, ladder in ((teacher, rungs), (student, own))
    ]
    np.testing.assert_allclose(*ends, atol=2e-4)
    assert float(jnp.std(ends[0])) > 0.5


def step_of_ddim():
    """DDIM, which draws nothing."""
    return lambda denoise, x, t, s, *, key: step.towards(step.image_of(denoise, x, t), x, t, s)


MEANS = np.array([[-1.2, 0.3], [0.8, 1.0], [0.5, -1.1]])
SHARES, DEVIATION = np.array([0.5, 0.3, 0.2]), 0.35


def mixture(x_t, logsnr_t):
    """The denoiser of three Gaussians."""
    alpha, sigma = alpha_sigma(logsnr_t, x_t)
    variance = alpha**2 * DEVIATION**2 + sigma**2
    away = x_t[:, None] - alpha[:, None] * MEANS
    logits = np.log(SHARES) - 0.5 * jnp.sum(away**2, -1) / variance
    shares = jax.nn.softmax(logits, axis=-1)[..., None]
    each = MEANS + (alpha * DEVIATION**2 / variance)[:, None] * away
    return jnp.sum(shares * each, axis=1)


def layers(key, sizes):
    """The first weights of dense layers."""
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes, sizes[1:], strict=False)
    return [(jax.random.normal(k, (i, o)) / np.sqrt(i), jnp.zeros(o)) for k, i, o in pairs]


def told(params, x_t, logsnr_t):
    """A small network's x_0_hat."""
    h = jnp.concatenate([x_t, 2 * x_t, logsnr_t[:, None] / 8], axis=-1)
    for kernel, bias in params[:-1]:
        h = jax.nn.silu(h @ kernel + bias)
    kernel, bias = params[-1]
    return h @ kernel + bias


@pytest.mark.slow
def test_students_of_four_two_and_one_step_are_within_two_percent_of_the_teachers_flow():
    import optax

    rungs, count = spacing.uniform(COSINE, 64), 2_048
    x_T = jax.random.normal(jax.random.key(1), (4_096, 2))
    ddim = step_of_ddim()
    teacher = jax.jit(lambda x: sampler.sample(mixture, x, logsnrs=rungs, step=ddim, key=None))
    ends = teacher(x_T)
    for steps in (4, 2, 1):
        each, own = 64 // steps, spacing.uniform(COSINE, steps)
        rate = optax.cosine_decay_schedule(3e-3, 6_000)
        tx = optax.adam(rate, b2=0.99)
        params = layers(jax.random.key(0), (5, 128, 128, 128, 2))

        def loss(params, key, each=each, steps=steps):
            key_x, key_eps, key_u = jax.random.split(key, 3)
            which = jax.random.choice(key_x, 3, (count,), p=jnp.asarray(SHARES))
            eps, own_noise = jax.random.normal(key_eps, (2, count, 2))
            x_0 = jnp.asarray(MEANS)[which] + DEVIATION * own_noise
            rung = jax.random.randint(key_u, (count,), 0, steps)
            ladders = jnp.take(rungs, rung[:, None] * each + jnp.arange(each + 1))
            x_t = diffuse(x_0, eps, ladders[:, 0])
            target = distillation.target(mixture, x_t, ladders)
            return jnp.mean((told(params, x_t, ladders[:, 0]) - target) ** 2)

        @jax.jit
        def train(params, loss=loss, tx=tx):
            def one(carry, key):
                params, state = carry
                updates, state = tx.update(jax.grad(loss)(params, key), state)
                return (optax.apply_updates(params, updates), state), None

            keys = jax.random.split(jax.random.key(2), 6_000)
            return jax.lax.scan(one, (params, tx.init(params)), keys)[0][0]

        params = train(params)
        made = sampler.sample(
            lambda x, t, params=params: told(params, x, t), x_T, logsnrs=own, step=ddim, key=None
        )
        error = jnp.sqrt(jnp.mean((made - ends) ** 2) / jnp.mean(ends**2))
        print(steps, float(error))
        assert error < 0.02
