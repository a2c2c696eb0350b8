"""Each choice of what is learned reaches the loss and the sampler: held to the public functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion import schedule as schedules
from diffjax.diffusion import table
from diffjax.diffusion.predict import as_denoiser_with_variance, precondition
from diffjax.diffusion.sampling import sampler
from diffjax.diffusion.sampling.spacing import uniform
from diffjax.diffusion.training import uncertainty
from diffjax.diffusion.training.loss import diffusion_loss
from diffjax.diffusion.training.self_condition import for_training
from diffjax.diffusion.training.variational import hybrid_loss, vlb_loss
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import Learning
from diffjax.tasks.sampling import sample
from diffjax.tasks.settings import SampleSettings
from tests.tasks.network import Network

KEY, STEP = jax.random.key(0), jnp.int32(0)
X_0 = jnp.tanh(jax.random.normal(jax.random.key(1), (6, 4)))


def says(channels):
    """An answer of so many channels that depends on all of the input and on the level."""

    def answer(x_t, logsnr_t):
        told = jnp.sum(x_t, axis=-1, keepdims=True) / 7 + jnp.tanh(logsnr_t / 5)[:, None]
        return 0.3 * jnp.sin(told + jnp.arange(channels))

    return answer


def task_of(channels=4, **choices):
    network = Network(says(channels), init=lambda key, *inputs: {"params": {}})
    return Denoising(
        "toy", network, (4,), predict="eps", weighting="eps", of="x", learning=Learning(**choices)
    )


def loss_of(task, params=None):
    """The mean loss of a batch, with the chance of KEY."""
    own = task.init(KEY) if params is None else params
    return float(jnp.mean(task.loss(own, task.draw(KEY, {"x": X_0}, STEP)).per_example))


def expected(loss, *arguments, **options):
    return float(loss(*arguments, X_0, key=rng.stream(KEY, "diffusion"), **options)[0])


def test_offset_noise_adds_one_number_to_each_channel_and_changes_no_other_draw():
    task = task_of(offset_noise=0.3)
    task = dataclasses.replace(task, shape=(5, 6, 4))
    batch = {"x": jnp.zeros((3, 5, 6, 4))}
    plain = dataclasses.replace(task, learning=Learning()).draw(KEY, batch, STEP)
    drawn = task.draw(KEY, batch, STEP)
    added = np.asarray(drawn["eps"] - plain["eps"])
    assert np.ptp(added, axis=(1, 2)).max() < 1e-6
    assert len(np.unique(added[:, 0, 0].round(4))) == 3 * 4
    assert all(np.array_equal(drawn[name], plain[name]) for name in ("u", "weight", "x"))


COMMON = {"predict": "eps", "weighting": "eps"}
LADDER = uniform(schedules.cosine(), 20)


def test_the_plain_loss_is_that_of_the_library():
    want = expected(diffusion_loss, says(4), schedule=schedules.cosine(), **COMMON)
    assert loss_of(task_of()) == pytest.approx(want, rel=1e-6)


def test_over_logsnr_is_that_of_the_library():
    want = expected(diffusion_loss, says(4), schedule=schedules.cosine(), over="logsnr", **COMMON)
    assert loss_of(task_of(over="logsnr")) == pytest.approx(want, rel=1e-5)
    assert want != pytest.approx(loss_of(task_of()), rel=1e-2)


@pytest.mark.parametrize("objective", ["hybrid", "vlb"])
def test_a_learned_variance_can_be_trained_in_a_compiled_step(objective):
    task = task_of(8, objective=objective, num_levels=20)
    batch = task.draw(KEY, {"x": X_0}, STEP)
    plain = task.loss({}, batch).per_example
    made = jax.jit(lambda batch: task.loss({}, batch).per_example)(batch)
    np.testing.assert_allclose(made, plain, rtol=1e-4)


@pytest.mark.parametrize("vlb_weight", [0.001, 0.1])
def test_the_hybrid_loss_is_that_of_the_library(vlb_weight):
    want = expected(hybrid_loss, says(8), logsnrs=LADDER, vlb_weight=vlb_weight, **COMMON)
    task = task_of(8, objective="hybrid", num_levels=20, vlb_weight=vlb_weight)
    assert loss_of(task) == pytest.approx(want, rel=1e-5)


def test_the_bound_with_a_learned_variance_is_that_of_the_library():
    want = expected(vlb_loss, as_denoiser_with_variance(says(8), "eps"), logsnrs=LADDER)
    assert loss_of(task_of(8, objective="vlb", num_levels=20)) == pytest.approx(want, rel=1e-5)


def test_the_learned_uncertainty_divides_each_levels_loss():
    """L / e^u + u with a moved u; with u = 0, as at first, the plain loss."""
    task = task_of(uncertainty=8)
    assert loss_of(task) == pytest.approx(loss_of(task_of()), rel=1e-6)
    params = {"uncertainty": {"weight": jnp.linspace(-1.0, 1.0, 8)}}
    drawn = task.draw(KEY, {"x": X_0}, STEP)
    plain = task_of().loss({}, drawn).per_example
    u = uncertainty.apply(params["uncertainty"], task.schedule(drawn["u"]))
    np.testing.assert_allclose(
        task.loss(params, drawn).per_example, plain * np.exp(-u) + u, rtol=1e-5
    )


def test_the_learned_schedule_is_trained_and_sampled():
    task = task_of(learned_schedule=6)
    params = task.init(KEY)
    want = expected(
        diffusion_loss, says(4), schedule=schedules.monotone(params["schedule"]), **COMMON
    )
    assert loss_of(task, params) == pytest.approx(want, rel=1e-5)
    gradient = jax.grad(lambda p: task.loss(p, task.draw(KEY, {"x": X_0}, STEP)).per_example.sum())(
        params
    )
    assert float(jnp.abs(gradient["schedule"]["bend"]).max()) > 0
    other = jax.tree.map(lambda p: p + 0.5, params)
    settings = SampleSettings(num_steps=3, sampler="ddim", threshold="none")
    made = [
        sample(p, {}, rng.per_example(jnp.arange(2)), task=task, settings=settings)
        for p in (params, other)
    ]
    assert float(jnp.abs(made[0] - made[1]).max()) > 1e-3


def test_edms_preconditioning_scales_the_input():
    want = expected(diffusion_loss, precondition(says(4)), schedule=schedules.cosine(), **COMMON)
    assert loss_of(task_of(precondition=True)) == pytest.approx(want, rel=1e-6)
    assert want != pytest.approx(loss_of(task_of()), rel=1e-3)


def test_a_network_sees_its_guess_as_often_as_was_said():
    """One coin a step, the same for all rows; with the coin fixed, the library's own network."""
    task = task_of(self_condition=0.5)
    coins = [
        np.asarray(task.draw(rng.stream(KEY, "s", i), {"x": X_0}, STEP)["sees_guess"])
        for i in range(60)
    ]
    assert all(coin.all() or not coin.any() for coin in coins)
    assert 15 < sum(coin[0] for coin in coins) < 45
    for share in (0.0001, 1.0):
        network = for_training(says(4), "eps", key=KEY, probability=float(round(share)))
        want = expected(diffusion_loss, network, schedule=schedules.cosine(), **COMMON)
        assert loss_of(task_of(self_condition=share)) == pytest.approx(want, rel=1e-6)


def test_sampling_hands_a_network_its_last_guess():
    """A network that repeats its guess and adds one step says how many steps there were."""

    def repeats(x_t, logsnr_t):
        return x_t[..., 4:] + 0.125

    task = dataclasses.replace(
        task_of(self_condition=0.5), model=Network(repeats, lambda key, x: {"params": {}}),
        predict="x_0",
    )  # fmt: skip
    settings = SampleSettings(num_steps=5, sampler="ddim", threshold="none")
    made = sample({}, {}, rng.per_example(jnp.arange(2)), task=task, settings=settings)
    np.testing.assert_allclose(made, 5 * 0.125, atol=1e-6)


def test_a_learned_variance_is_what_ddpm_learned_draws_with():
    """Equal to the library's own sampler; another variance gives other draws from one noise."""
    keys = rng.per_example(jnp.arange(64))
    settings = SampleSettings(num_steps=8, sampler="ddpm_learned", threshold="none")
    own, made = rng.stream(keys, "toy"), []
    for variance in (-1.0, 1.0):

        def answer(x_t, logsnr_t, v=variance):
            return jnp.concatenate([0.3 * x_t, jnp.full_like(x_t, v)], axis=-1)

        task = Denoising(
            "toy", Network(answer), (4,), predict="x_0", of="x", learning=Learning("hybrid")
        )
        made.append(sample({}, {}, keys, task=task, settings=settings))
        want = sampler.sample(
            as_denoiser_with_variance(answer, "x_0"),
            rng.normal(rng.stream(own, "x_T"), (64, 4)),
            logsnrs=uniform(task.schedule, 8),
            step=sampler.by_name("ddpm_learned"),
            key=rng.stream(own, "steps"),
        )
        np.testing.assert_allclose(made[-1], jnp.clip(want, -1.0, 1.0), atol=1e-5)
    assert float(jnp.abs(made[0] - made[1]).max()) > 1e-2


@pytest.mark.parametrize(
    ("changes", "equal"),
    [({"guidance_from": -30.0, "guidance_to": -29.0}, True), ({}, False)],
)
def test_outside_its_interval_guidance_is_off(changes, equal):
    from diffjax.tasks.conditions import Class

    def labelled(x_t, logsnr_t, label):
        return jnp.broadcast_to(label[:, None] / 10.0, x_t.shape)

    task = Denoising("toy", Network(labelled), (4,), (Class(3),), predict="x_0", of="x")
    columns, keys = {"label": jnp.array([1, 2])}, rng.per_example(jnp.arange(2))
    settings = SampleSettings(num_steps=2, sampler="ddim", threshold="none", guidance_weight=3.0)
    made = sample({}, columns, keys, task=task, settings=dataclasses.replace(settings, **changes))
    plain = np.array([[0.1] * 4, [0.2] * 4])
    guided = 3.0 * plain - 2.0 * 0.3
    np.testing.assert_allclose(made, plain if equal else guided, atol=1e-6)


def test_rescaled_guidance_keeps_the_deviation_of_the_conditional_guess():
    from diffjax.tasks.conditions import Class
    from diffjax.tasks.sampling import denoiser

    def labelled(x_t, logsnr_t, label):
        return label[:, None] * jnp.array([1.0, -1.0, 0.5, 0.0]) / 10.0

    task = Denoising("toy", Network(labelled), (4,), (Class(3),), predict="x_0", of="x")
    columns = {"label": jnp.array([1, 2])}
    for phi in (0.0, 1.0):
        settings = SampleSettings(guidance_weight=2.0, guidance_rescale=phi, threshold="none")
        guess = denoiser({}, columns, columns, task=task, settings=settings)
        made = np.asarray(guess(jnp.zeros((2, 4)), jnp.zeros(2)))
        plain = np.array([[1, -1, 0.5, 0.0]]) / 10 * np.array([[1], [2]])
        ratio = made.std(axis=1) / plain.std(axis=1)
        assert np.allclose(ratio, 1.0, atol=1e-5) is (phi == 1.0)


@pytest.mark.parametrize("objective", ["simple", "hybrid", "vlb"])
def test_a_discrete_chain_is_trained_at_the_steps_of_its_table_alone(objective):
    """Those of a shorter chain too, and each as often."""
    noise = schedules.linear(2e-3, 0.4, 50)
    learning = Learning(objective, num_levels=50, discrete=True)
    made = learning.objective_of(noise, "eps", "eps")
    u = (jnp.arange(500) + 0.5) / 500
    wanted = table.logsnr_table(table.linear_betas(2e-3, 0.4, 50))
    np.testing.assert_allclose(made.logsnr(u), np.repeat(wanted, 10), atol=2e-3)
