"""Guidance by a classifier: the density that is sampled, and that the variance is left alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.core.types import Guess
from diffjax.diffusion import schedule, table
from diffjax.diffusion.sampling import guidance, sampler, spacing
from diffjax.tasks import sampling
from diffjax.tasks.conditions import Class
from diffjax.tasks.critic import ClassifierCritic
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import Learning
from diffjax.tasks.settings import SampleSettings
from tests.diffusion import oracles
from tests.tiny_cascade import Told

# Three modes in the plane, and how likely each is to belong to class 1.
MODES = oracles.mixture(
    [[-0.9, 0.3], [0.7, 0.6], [0.2, -0.8]],
    [[[0.07, 0.03], [0.03, 0.1]], [[0.03, 0.0], [0.0, 0.05]], [[0.1, -0.03], [-0.03, 0.07]]],
    [0.5, 0.3, 0.2],
)
OF_CLASS = np.array([0.15, 0.9, 0.6])


def log_class(x_t, logsnr_t):
    """log p(y = 1 | x_t) of the mixture under noise, in closed form."""
    return jnp.log(MODES.mode(x_t, logsnr_t) @ jnp.asarray(OF_CLASS, x_t.dtype))


def drawn(name, noise, classified, rows=6_000):
    """Draws from the mixture, guided by the exact classifier if `classified`."""
    pushed = sampler.SAMPLERS[name].pushed
    push = guidance.gradient_of(log_class, 1.0) if pushed and classified else None
    denoise = MODES.denoise
    if name == "ddpm_learned":
        denoise = lambda x_t, logsnr_t: Guess(MODES.denoise(x_t, logsnr_t), 0.5 + 0.0 * x_t)  # noqa: E731
    if classified and not pushed:
        denoise = guidance.classifier_guidance(denoise, log_class, 1.0)

    @jax.jit
    def run(key):
        return sampler.sample(
            denoise,
            jax.random.normal(key, (rows, 2)),
            logsnrs=spacing.uniform_logsnr(schedule.cosine(logsnr_min=-9.0, logsnr_max=9.0), 320),
            step=sampler.by_name(name, noise, push),
            key=jax.random.key(1),
        )

    return np.asarray(run(jax.random.key(0)), np.float64)


@pytest.mark.parametrize(("name", "noise"), [("ddim", 0.0), ("ddpm", 0.3), ("ddpm_learned", 0.0)])
def test_guidance_by_the_exact_classifier_draws_from_the_tilted_mixture(name, noise):
    """p(x) p(y | x) is the mixture with weights w_k p(y | k)."""
    weights = MODES.weights * OF_CLASS
    tilted = oracles.mixture(MODES.means, _covariances(), weights)
    x = drawn(name, noise, classified=True)
    mean, covariance = tilted.moments()
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.045)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.045)
    shares = np.asarray(tilted.mode(jnp.asarray(x))).mean(axis=0)
    np.testing.assert_allclose(shares, tilted.weights, atol=0.045)
    # without the classifier it is another density
    assert np.abs(MODES.moments()[0] - mean).max() > 0.2


def _covariances():
    return np.einsum("kie,ke,kje->kij", MODES.vectors, MODES.values, MODES.vectors)


# A task whose network and classifier are a line each.


def by_noise(x_t, logsnr_t, label=None):
    told = 0.0 if label is None else 0.1 * label[:, None, None, None]
    return 0.5 * jnp.tanh(x_t) + told


def with_variance(x_t, logsnr_t, label=None):
    said = by_noise(x_t, logsnr_t, label)
    return jnp.concatenate([said, jnp.sin(3.0 * x_t)], axis=-1)


def logits(x_t, logsnr_t):
    mean = jnp.mean(x_t, axis=(1, 2))
    return jnp.concatenate([3.0 * mean, jnp.square(mean[:, :1])], axis=-1)


LABELS = jnp.array([2, 0, 4])  # the last means no class
HOW = SampleSettings(num_steps=4, sampler="ddim", threshold="none", guidance_weight=1.0)


def task_of(network=by_noise, classes=False, learned=False):
    return Denoising(
        "toy", Told(network), (4, 4, 3), predict="x_0",
        conditions=(Class(4, 0.1, ()),) if classes else (),
        learning=Learning(objective="hybrid") if learned else Learning(),
        classifier=ClassifierCritic(Told(logits), 4), frozen={"classifier": {}},
    )  # fmt: skip


def made(task, scale=0.0, labels=LABELS, **changes):
    settings = dataclasses.replace(HOW, classifier_guidance=scale, **changes)
    run = sampling.compiled(sampling.sample, settings)
    return np.asarray(run({}, {"label": labels}, rng.per_example(jnp.arange(3)), task=task))


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_scale_zero_is_no_guidance_bit_for_bit_and_more_makes_the_class_likelier(name):
    task = task_of()
    limit = {"sampler": name, "threshold": "static"}
    plain = made(dataclasses.replace(task, classifier=None, frozen={}), **limit)
    np.testing.assert_array_equal(made(task, **limit), plain)
    guided = made(task, 1.0, **limit)
    judge = functools.partial(task.classifier.log_prob, {}, {"label": LABELS}, logsnr=jnp.zeros(3))
    better = np.asarray(judge(x=jnp.asarray(guided)) - judge(x=jnp.asarray(plain)))
    assert (better[:2] > 1e-3).all()
    np.testing.assert_allclose(guided[2], plain[2], atol=1e-6)  # no class guides nowhere
    assert np.isfinite(guided).all()


def test_a_row_is_guided_by_its_own_class_alone():
    wanted, got = made(task_of(), 5.0), made(task_of(), 5.0, LABELS.at[1].set(3))
    np.testing.assert_allclose(got[[0, 2]], wanted[[0, 2]], atol=1e-6)
    assert np.abs(got[1] - wanted[1]).max() > 1e-3


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_outside_the_interval_of_guidance_the_classifier_is_not_followed(name):
    never = made(task_of(), 9.0, sampler=name, guidance_from=90.0, guidance_to=100.0)
    np.testing.assert_allclose(never, made(task_of(), sampler=name), atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_a_learned_chain_moves_its_mean_by_its_variance_times_the_gradient(weight):
    """The chain of Dhariwal & Nichol 2021, alg. 1, in its betas, beside classifier-free guidance.

    The variance of each step is that of the unguided network at the same x_t.
    """
    steps, scale = 5, 3.0
    task = dataclasses.replace(
        task_of(with_variance, classes=True, learned=True),
        schedule=table.discrete(table.logsnr_table(table.linear_betas(0.05, 0.6, steps))),
    )
    settings = dict(
        sampler="ddpm_learned", spacing="linspace", num_steps=steps, guidance_weight=weight
    )
    # the ladder of the sampler is that of a table of 1,000 steps: hand it the betas of its rungs
    rungs = np.asarray(spacing.SPACINGS["linspace"](task.schedule, steps), np.float64)
    alpha_bar = 1 / (1 + np.exp(-rungs[:-1]))
    got = made(task, scale, **settings)
    keys = rng.stream(rng.per_example(jnp.arange(3)), "toy")
    x = np.asarray(rng.normal(rng.stream(keys, "x_T"), (3, 4, 4, 3)), np.float64)
    noises = rng.split(rng.stream(keys, "steps"), steps)
    for i in range(steps):
        bar = alpha_bar[i]
        before = alpha_bar[i + 1] if i + 1 < steps else 1.0
        beta = 1 - bar / before
        said = np.asarray(with_variance(jnp.asarray(x), 0, LABELS), np.float64)
        other = np.asarray(by_noise(jnp.asarray(x), 0, jnp.full(3, 4)), np.float64)
        x_0 = weight * said[..., :3] + (1 - weight) * other
        mean = np.sqrt(before) * beta / (1 - bar) * x_0
        mean = mean + np.sqrt(bar / before) * (1 - before) / (1 - bar) * x
        if i + 1 == steps:
            x = mean
            break
        small = beta * (1 - before) / (1 - bar)
        share = (said[..., 3:] + 1) / 2
        variance = np.exp(share * np.log(beta) + (1 - share) * np.log(small))
        log_prob = lambda x: jnp.sum(  # noqa: E731
            jnp.where(LABELS < 4, jax.nn.log_softmax(logits(x, 0))[jnp.arange(3), LABELS % 4], 0.0)
        )
        gradient = np.asarray(jax.grad(log_prob)(jnp.asarray(x)), np.float64)
        z = np.asarray(rng.normal(noises[i], (3, 4, 4, 3)), np.float64)
        x = mean + scale * variance * gradient + np.sqrt(variance) * z
    np.testing.assert_allclose(got, np.clip(x, -1, 1), atol=1e-4)


def test_a_push_is_refused_by_samplers_that_draw_about_no_mean():
    with pytest.raises(ValueError, match="push: heun draws about no mean"):
        sampler.by_name("heun", 0.0, lambda x_t, logsnr_t: x_t)
