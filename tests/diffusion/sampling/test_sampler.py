import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.core.types import Guess
from diffjax.diffusion.process import alpha_sigma, diffuse
from diffjax.diffusion.sampling import sampler, spacing
from diffjax.diffusion.schedule import cosine, linear
from tests.diffusion.helpers import SHAPES, constant_denoiser, gaussian_denoiser, images

KEY = jax.random.key(3)
STEPS = {
    "ddpm_small": sampler.ddpm(),
    "ddpm_middle": sampler.ddpm(0.3),
    "ddpm_large": sampler.ddpm(1.0),
    "ddim": sampler.ddim(),
    "ddim_half": sampler.ddim(0.5),
    "ddim_full": sampler.ddim(1.0),
    "euler": sampler.euler(),
    "euler_churn": sampler.euler(sampler.Churn(0.02)),
    "heun": sampler.heun(),
    "heun_churn": sampler.heun(sampler.Churn(0.02)),
    "dpmpp_2s": sampler.dpmpp_2s(),
    "dpmpp_2m": sampler.dpmpp_2m(),
    "dpmpp_2m_sde": sampler.dpmpp_2m_sde(),
    "unipc": sampler.unipc(),
    "pndm": sampler.pndm(),
}
SCHEDULES = {"cosine": cosine(), "linear": linear()}


# Those of a kind that others of it stand for; `make test-all` runs them too.
KIN = ("ddpm_middle", "ddpm_large", "ddim_half", "euler_churn", "heun_churn", "dpmpp_2s")
SOME = [pytest.param(name, marks=[pytest.mark.slow] if name in KIN else []) for name in STEPS]


@pytest.mark.parametrize("schedule", ["cosine", pytest.param("linear", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SOME)
def test_a_perfect_denoiser_gives_back_the_data_of_any_shape(name, schedule):
    rungs = spacing.uniform(SCHEDULES[schedule], 5)
    for shape in SHAPES.values():
        x_0, x_T = images(0, (4, *shape)), images(1, (4, *shape))
        got = sampler.sample(constant_denoiser(x_0), x_T, logsnrs=rungs, step=STEPS[name], key=KEY)
        # means of noise become x_0 by a division by alpha, which is 5e-5 at first
        np.testing.assert_allclose(got, x_0, atol=1e-2 if name == "pndm" else 1e-5)


@pytest.mark.parametrize("name", SOME)
def test_gaussian_data_come_out_with_their_mean_and_variance(name):
    mean, variance = 0.4, 0.25
    x_T = images(2, (64, 16, 16, 3))
    got = sampler.sample(
        gaussian_denoiser(mean, variance),
        x_T,
        logsnrs=spacing.uniform(cosine(), 256),
        step=STEPS[name],
        key=KEY,
    )
    # 49,152 pixels: standard errors 0.0023 and 0.0016; the rest is the steps' own error
    assert float(got.mean()) == pytest.approx(mean, abs=0.01)
    assert float(got.var()) == pytest.approx(variance, abs=0.012)


@pytest.mark.parametrize("logsnrs", [(-4.0, -1.0), (0.0, 0.5), (3.0, 9.0)])
def test_one_step_has_the_moments_of_its_variance(logsnrs):
    """eta < 1 and gamma must change the noise that a step adds, and nothing in its mean's x_0."""
    x_0 = jnp.zeros((65_536, 4))
    logsnr_t, logsnr_s = (jnp.full((65_536,), level) for level in logsnrs)
    _, sigma_t = alpha_sigma(logsnr_t[:1])
    _, sigma_s = alpha_sigma(logsnr_s[:1])
    x_t = jnp.zeros_like(x_0)  # no eps_hat: only fresh noise is left
    small = float(sigma_s.item() ** 2 * (1 - np.exp(logsnrs[0] - logsnrs[1])))
    large = float(sigma_t.item() ** 2 * (1 - np.exp(logsnrs[0] - logsnrs[1])))
    wanted = {
        "ddpm_small": small,
        "ddpm_middle": small**0.7 * large**0.3,
        "ddpm_large": large,
        "ddim": 0.0,
        "ddim_half": 0.25 * small,
        "ddim_full": small,
    }
    for name, variance in wanted.items():
        x_s = STEPS[name](constant_denoiser(x_0), x_t, logsnr_t, logsnr_s, key=KEY)
        assert float(x_s.var()) == pytest.approx(variance, rel=0.05, abs=1e-12), name


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_ddim_step_keeps_the_marginal_whatever_eta(eta):
    """From x_t ~ q(x_t | x_0), x_s ~ q(x_s | x_0)."""
    x_0 = jnp.full((65_536, 4), 0.6)
    logsnr_t, logsnr_s = jnp.full((65_536,), -1.0), jnp.full((65_536,), 1.5)
    x_t = diffuse(x_0, images(5, x_0.shape), logsnr_t)
    x_s = sampler.ddim(eta)(constant_denoiser(x_0), x_t, logsnr_t, logsnr_s, key=KEY)
    alpha_s, sigma_s = alpha_sigma(logsnr_s[:1])
    assert float(x_s.mean()) == pytest.approx(0.6 * alpha_s.item(), abs=0.01)
    assert float(x_s.std()) == pytest.approx(sigma_s.item(), rel=0.02)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_with_eta_one_equals_ddpm_with_the_small_variance(schedule):
    denoise = gaussian_denoiser(0.2, 0.5)
    rungs = spacing.uniform(SCHEDULES[schedule], 8)
    one, other = (
        sampler.sample(denoise, images(1), logsnrs=rungs, step=step, key=KEY)
        for step in (sampler.ddim(1.0), sampler.ddpm(0.0))
    )
    np.testing.assert_allclose(one, other, atol=2e-4)


def test_an_image_depends_on_its_own_key_and_not_on_the_batch():
    denoise = gaussian_denoiser(0.0, 1.0)
    keys = rng.per_example(jnp.array([11, 12, 13]))
    rungs = spacing.uniform(cosine(), 4)
    x_T = rng.normal(keys, (3, 8, 8, 3))
    together = sampler.sample(denoise, x_T, logsnrs=rungs, step=sampler.ddpm(), key=keys)
    alone = sampler.sample(denoise, x_T[1:2], logsnrs=rungs, step=sampler.ddpm(), key=keys[1:2])
    # the compiler may round a vector of one image otherwise than one of three
    np.testing.assert_allclose(together[1:2], alone, atol=5e-7)


def test_two_calls_with_one_key_agree_and_another_key_differs():
    draw = lambda key: sampler.sample(  # noqa: E731
        gaussian_denoiser(0.0, 1.0),
        images(1),
        logsnrs=spacing.uniform(cosine(), 4),
        step=sampler.ddpm(),
        key=key,
    )
    np.testing.assert_array_equal(draw(KEY), draw(KEY))
    assert not np.allclose(draw(KEY), draw(jax.random.key(4)))


def test_the_ladder_starts_at_noise_and_ends_clean():
    rungs = spacing.uniform(cosine(), 4)
    np.testing.assert_allclose(rungs[:-1], cosine()(jnp.array([1.0, 0.75, 0.5, 0.25])), atol=1e-5)
    assert float(rungs[0]) == pytest.approx(-20.0, abs=1e-3)
    assert np.isposinf(rungs[-1])


def test_a_white_noise_start_carries_no_brightness_of_the_data():
    """At logsnr -20 the start is noise, so a bright data set comes out bright all the same."""
    x_0 = jnp.full((4, 8, 8, 3), 0.9)
    got = sampler.sample(
        gaussian_denoiser(0.9, 1e-4),
        jnp.zeros_like(x_0),
        logsnrs=spacing.uniform(cosine(), 16),
        step=sampler.ddim(),
        key=KEY,
    )
    assert float(got.mean()) == pytest.approx(0.9, abs=1e-3)


def jitted(name):
    return jax.jit(
        lambda x_T, rungs, key: sampler.sample(
            gaussian_denoiser(0.0, 1.0), x_T, logsnrs=rungs, step=STEPS[name], key=key
        )
    )


@pytest.mark.parametrize("name", STEPS)
def test_a_longer_ladder_does_not_make_a_longer_program(name):
    lines = {
        num: len(
            jitted(name).lower(images(0), spacing.uniform(cosine(), num), KEY).as_text().split("\n")
        )
        for num in (8, 64)
    }
    assert lines[64] == lines[8]


@pytest.mark.parametrize("name", ["ddpm_middle", "heun_churn", "unipc"])
def test_one_program_serves_every_noise_ladder_and_key_with_no_transfer_to_the_host(name):
    run = jitted(name)
    inputs = [
        jax.block_until_ready((images(seed), spacing.uniform(schedule, 8), jax.random.key(seed)))
        for seed, schedule in enumerate(SCHEDULES.values())
    ]
    with jax.transfer_guard("disallow"):
        for x_T, rungs, key in inputs:
            jax.block_until_ready(run(x_T, rungs, key))
    assert run._cache_size() == 1


@pytest.mark.parametrize("name", STEPS)
def test_the_path_starts_at_the_noise_and_ends_at_the_sample(name):
    rungs = spacing.uniform(cosine(), 4)
    options = dict(logsnrs=rungs, step=STEPS[name], key=KEY)
    path = sampler.trajectory(gaussian_denoiser(0.0, 1.0), images(0), **options)
    assert path.x.shape == (5, 4, 8, 6, 3)
    np.testing.assert_array_equal(path.x[0], images(0))
    np.testing.assert_array_equal(path.logsnr, rungs)
    np.testing.assert_array_equal(
        path.x[-1], sampler.sample(gaussian_denoiser(0.0, 1.0), images(0), **options)
    )


def test_a_rule_that_draws_nothing_needs_no_key_and_one_that_draws_says_so():
    run = lambda name: sampler.sample(  # noqa: E731
        gaussian_denoiser(0.0, 1.0),
        images(0),
        logsnrs=spacing.uniform(cosine(), 3),
        step=STEPS[name],
        key=None,
    )
    assert np.isfinite(run("dpmpp_2m")).all()
    with pytest.raises(ValueError, match="key=None"):
        run("ddpm_small")


@pytest.mark.parametrize("name", sampler.SAMPLERS)
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_table_says_which_samplers_draw_noise(name, noise):
    """One that draws asks for a key, and one that does not comes out without."""
    row = sampler.SAMPLERS[name]
    assert row.name == name
    if noise and not row.knob:
        with pytest.raises(ValueError, match=f"noise=0.5: {name} adds none"):
            sampler.by_name(name, noise)
        return
    guess = lambda x_t, _: Guess(0.5 * x_t, jnp.zeros_like(x_t))  # noqa: E731
    run = lambda: sampler.sample(  # noqa: E731
        guess, images(0, (2, 3)), logsnrs=jnp.array([-2.0, 0.0, 2.0]),
        step=sampler.by_name(name, noise), key=None,
    )  # fmt: skip
    if row.draws(noise):
        with pytest.raises(ValueError, match="key=None"):
            run()
    else:
        assert np.isfinite(run()).all()


@pytest.mark.parametrize("name", [name for name, row in sampler.SAMPLERS.items() if row.knob])
def test_a_samplers_knob_is_an_argument_of_its_maker(name):
    row = sampler.SAMPLERS[name]
    push = ["push"] if row.pushed else []
    assert list(inspect.signature(row.make).parameters) == [row.knob, *push]


def test_a_learned_variance_spans_small_to_large_and_a_denoiser_without_one_is_refused():
    x_t = jnp.zeros((4096, 1, 1, 4))
    logsnr_t, logsnr_s = jnp.full(4096, -1.0), jnp.full(4096, 0.5)

    def spread(fraction):
        said = lambda x, _: Guess(x, jnp.full_like(x, fraction))  # noqa: E731
        return float(sampler.ddpm_learned()(said, x_t, logsnr_t, logsnr_s, key=KEY).var())

    fixed = {
        gamma: float(sampler.ddpm(gamma)(lambda x, _: x, x_t, logsnr_t, logsnr_s, key=KEY).var())
        for gamma in (0.0, 0.4, 1.0)
    }
    for gamma, variance in fixed.items():
        assert spread(gamma) == pytest.approx(variance, rel=1e-5)
    with pytest.raises(ValueError, match="says no variance"):
        sampler.ddpm_learned()(lambda x, _: x, x_t, logsnr_t, logsnr_s, key=KEY)


@pytest.mark.parametrize("make", [sampler.ddpm, sampler.ddim])
def test_a_parameter_outside_its_range_is_named(make):
    with pytest.raises(ValueError, match=r"=1.5: between 0"):
        make(1.5)


@pytest.mark.parametrize("name", ["ddpm_middle", "heun", "dpmpp_2s", "dpmpp_2m", "unipc"])
def test_the_guesses_are_what_the_denoiser_says_along_the_trajectory(name):
    denoise, x_T = gaussian_denoiser(0.4, 0.25), images(5)
    how = dict(logsnrs=spacing.uniform(cosine(), 4), step=STEPS[name], key=KEY)
    x_0, guesses = sampler.guesses(denoise, x_T, **how)
    path = sampler.trajectory(denoise, x_T, **how)
    np.testing.assert_allclose(x_0, path.x[-1], rtol=1e-5, atol=1e-5)
    levels = [jnp.full(len(x_T), logsnr) for logsnr in path.logsnr[:-1]]
    expected = [denoise(x_t, at) for x_t, at in zip(path.x[:-1], levels, strict=True)]
    np.testing.assert_allclose(guesses, jnp.stack(expected), rtol=1e-5, atol=1e-5)
