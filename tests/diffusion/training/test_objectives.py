"""Objectives against their equations written out, and against the losses that draw for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.types import Guess
from diffjax.diffusion import predict, schedule
from diffjax.diffusion.process import diffuse, mean_of_each
from diffjax.diffusion.training import loss, objectives, times, variational, weighting
from tests.diffusion.helpers import SHAPES, images

KEY = jax.random.key(9)
LADDER = (-6.0, -2.0, 1.0, 4.0, float("inf"))
U = jnp.array([0.05, 0.3, 0.6, 0.99])


def network(x_t, logsnr_t):
    return 0.7 * x_t - 0.1 * jnp.tanh(x_t)


def doubled(x_t, logsnr_t):
    """A prediction and a variance."""
    return jnp.concatenate([network(x_t, logsnr_t), 0.5 * jnp.tanh(x_t)], axis=-1)


ALL = {
    "simple": (objectives.simple(schedule.cosine(), "v", "min_snr"), network),
    "simple over logsnr": (objectives.simple(schedule.flow(-9, 9), "v", over="logsnr"), network),
    "hybrid": (objectives.hybrid(LADDER, "v", eight_bit=False), doubled),
    "vlb": (objectives.vlb(LADDER, "v", gamma=0.5, eight_bit=False), network),
    "vlb, learned": (objectives.vlb(LADDER, "v", gamma=None, eight_bit=False), doubled),
}
AGAIN = {
    "simple": objectives.simple(schedule.cosine(-20.0, 20.0), predict="v", weighting="min_snr"),
    "simple over logsnr": objectives.simple(schedule.flow(-9, 9), "v", "eps", "logsnr"),
    "hybrid": objectives.hybrid(np.array(LADDER), "v", eight_bit=False),
    "vlb": objectives.vlb(jnp.array(LADDER), "v", gamma=0.5, eight_bit=False),
    "vlb, learned": objectives.vlb(list(LADDER), "v", None, False),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_simple_objective_is_its_equation_bit_for_bit(shape):
    """Compiled with its gradient, as a training step has it; the digests of runs rest on it."""
    x_0, eps = images(0, (4, *shape)), images(1, (4, *shape))
    objective = objectives.simple(schedule.cosine(), "v", "v")

    def written_out(w, x_0, eps):
        logsnr_t = schedule.cosine()(U)
        output = w * network(diffuse(x_0, eps, logsnr_t), logsnr_t)
        error = jnp.square(output - predict.target(x_0, eps, logsnr_t, "v"))
        weight = weighting.relative_weight("v", "v", logsnr_t)
        return jnp.sum(weight * mean_of_each(error)) / 4

    def by_objective(w, x_0, eps):
        error = objective(lambda x, logsnr_t: w * network(x, logsnr_t), x_0, eps, U)
        return jnp.sum(error) / 4

    one, other = (
        jax.jit(jax.value_and_grad(f))(0.9, x_0, eps) for f in (written_out, by_objective)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ALL)
def test_an_examples_error_depends_on_its_own_chance_and_not_on_the_batch(name):
    objective, net = ALL[name]
    x_0, eps = images(0, (4, 6)), images(1, (4, 6))
    run = jax.jit(lambda *rows: objective(net, *rows))
    together = run(x_0, eps, U)
    assert together.shape == (4,)
    alone = [run(x_0[i : i + 1], eps[i : i + 1], U[i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(together, jnp.concatenate(alone), rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_objectives_made_from_equal_arguments_are_equal_and_compiled_once(name):
    objective, net = ALL[name]
    assert objective == AGAIN[name]
    assert hash(objective) == hash(AGAIN[name])
    assert sum(objective == other for other, _ in ALL.values()) == 1
    run = jax.jit(lambda objective, x: objective(net, x, x, U), static_argnums=0)
    run(objective, images(0, (4, 6)))
    run(AGAIN[name], images(0, (4, 6)))
    assert run._cache_size() == 1


def test_the_public_losses_draw_and_then_ask_the_objective():
    x_0 = images(0, (8, 5))
    key_u, key_eps = jax.random.split(KEY)
    drawn, eps = times.stratified(key_u, 8), jax.random.normal(key_eps, x_0.shape)
    how = dict(key=KEY, times=times.stratified)
    ladder = dict(logsnrs=jnp.array(LADDER), eight_bit=False)
    denoise = predict.as_denoiser(network, "v")
    answers = {
        "simple": lambda x: loss.diffusion_loss(
            network, x, schedule=schedule.cosine(), predict="v", weighting="min_snr", **how
        ),
        "hybrid": lambda x: variational.hybrid_loss(doubled, x, predict="v", **ladder, **how),
        "vlb": lambda x: variational.vlb_loss(denoise, x, gamma=0.5, **ladder, **how),
    }
    for name, answer in answers.items():
        value, aux = jax.jit(answer)(x_0)
        objective, net = ALL[name]
        error = jax.jit(lambda x, objective=objective, net=net: objective(net, x, eps, drawn.u))(
            x_0
        )
        np.testing.assert_allclose(aux.per_example, error, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(aux.logsnr_t, objective.logsnr(drawn.u), rtol=1e-5)
        assert float(value) == pytest.approx(float(jnp.mean(error)), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_a_variance_that_the_network_says_counts_as_the_gamma_of_that_size(gamma):
    def says_gamma(x_t, logsnr_t):
        return jnp.concatenate([network(x_t, logsnr_t), jnp.full_like(x_t, 2 * gamma - 1)], -1)

    chance = (images(0, (4, 6)), images(1, (4, 6)), U)
    fixed, learned = (
        jax.jit(functools.partial(objectives.vlb(LADDER, "v", of, eight_bit=False), net))(*chance)
        for of, net in ((gamma, network), (None, says_gamma))
    )
    np.testing.assert_allclose(learned, fixed, rtol=1e-5)
    guess = lambda x, s: Guess(predict.to_x_0(network(x, s), x, s, "v"), jnp.full_like(x, gamma))  # noqa: E731
    bound = objectives.vlb(LADDER, "v", gamma=None, eight_bit=False)
    of_guess = jax.jit(functools.partial(bound.of_denoiser, guess))
    np.testing.assert_allclose(of_guess(*chance), fixed, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: objectives.simple(schedule.cosine(), "epsilon"), "predict='epsilon': allowed are"),
        (lambda: objectives.simple(schedule.cosine(), "v", "snr"), "weighting='snr': allowed are"),
        (lambda: objectives.simple(schedule.cosine(), over="t"), "over='t': allowed are u, logsnr"),
        (lambda: objectives.hybrid((0.0, 1.0)), "2 rungs: at least 3"),
        (lambda: objectives.vlb((0.0, 1.0)), "2 rungs: at least 3"),
        (lambda: objectives.vlb(LADDER, gamma=1.5), r"gamma=1.5: between 0 .* None \(learned\)"),
    ],
)
def test_an_objective_that_cannot_be_is_refused_when_it_is_made(make, match):
    with pytest.raises(ValueError, match=match):
        make()
