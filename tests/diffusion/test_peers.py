"""Samplers, tables and guidance against diffusers and k-diffusion, rung by rung.

The golden files are written by tools/golden/samplers.py; the tests marked `peers` run the
peers themselves. Both sides have one random network, one x_T, and the same noise at every rung:
the peer's draws are replaced, and so is `rng.normal`, whose key tells the rung.
"""

from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from diffjax.core import rng
from diffjax.diffusion import predict, table
from diffjax.diffusion.sampling import sampler, spacing
from diffjax.diffusion.sampling.guidance import classifier_free
from diffjax.diffusion.sampling.solver import Churn
from diffjax.diffusion.sampling.threshold import dynamic_threshold
from tools.inputs import random_network

GOLDEN = Path(__file__).parents[1] / "golden"
PATHS = load_file(GOLDEN / "samplers.safetensors")
TABLES = load_file(GOLDEN / "samplers_tables.safetensors")
KEY = jax.random.key(0)
# Of a thousand steps, those that the tables hold.
STEPS = np.arange(0, 1000, 27)
CHURN = Churn(per_step=0.3, sigma_min=0.1, sigma_max=20.0, noise=1.007)
# What a case of tools/peers/sampler_peers.py is here, and what its network predicts. Where the two
# sides could differ the case is set so that they have one mathematics:
# - ddpm_*: spaced so that the last step is t = 0, at which diffusers draws nothing, as we do at
#   every last rung; its large variance would else be added to the answer itself.
# - ddim_v_zero_snr: starts where its alpha is 0 and ours that of table.TERMINAL_LOGSNR.
# - *_not_clean: ends at noise, where diffusers' lower_order_final would fall back to order 1; off.
# - dpmpp_2s: diffusers' middle is whichever rung lies between; on rungs uniform in log SNR it is
#   the middle in log SNR, which is r = 1/2.
# - k_euler_ancestral is DDPM with the small variance, and with eta it is DDIM with eta.
# - churn is k-diffusion's alone: diffusers' Heun has none, and its Euler evaluates the network
#   before the noise is added.
OURS = {
    "ddpm_small": (sampler.ddpm(0.0), "eps"),
    "ddpm_large": (sampler.ddpm(1.0), "eps"),
    "ddpm_learned": (sampler.ddpm_learned(), "eps"),
    "ddpm_v": (sampler.ddpm(0.0), "v"),
    "ddim": (sampler.ddim(), "eps"),
    "ddim_half": (sampler.ddim(0.5), "eps"),
    "ddim_full": (sampler.ddim(1.0), "eps"),
    "ddim_v_zero_snr": (sampler.ddim(), "v"),
    "euler": (sampler.euler(), "eps"),
    "euler_v_karras": (sampler.euler(), "v"),
    "heun": (sampler.heun(), "eps"),
    "heun_v_karras": (sampler.heun(), "v"),
    "dpmpp_2m": (sampler.dpmpp_2m(), "eps"),
    "dpmpp_2m_v": (sampler.dpmpp_2m(), "v"),
    "dpmpp_2m_not_clean": (sampler.dpmpp_2m(), "eps"),
    "dpmpp_2m_sde": (sampler.dpmpp_2m_sde(), "eps"),
    "dpmpp_2s": (sampler.dpmpp_2s(), "eps"),
    "unipc": (sampler.unipc(), "eps"),
    "unipc_v_karras": (sampler.unipc(), "v"),
    "unipc_not_clean": (sampler.unipc(), "eps"),
    "pndm": (sampler.pndm(), "eps"),
    "k_euler": (sampler.euler(), "eps"),
    "k_euler_churn": (sampler.euler(CHURN), "eps"),
    "k_heun": (sampler.heun(), "eps"),
    "k_heun_churn": (sampler.heun(CHURN), "eps"),
    "k_euler_ancestral": (sampler.ddpm(0.0), "eps"),
    "k_euler_ancestral_half": (sampler.ddim(0.5), "eps"),
    "k_dpmpp_2s": (sampler.dpmpp_2s(), "eps"),
    "k_dpmpp_2m": (sampler.dpmpp_2m(), "eps"),
    "k_dpmpp_2m_sde": (sampler.dpmpp_2m_sde(), "eps"),
    "k_dpmpp_2m_sde_half": (sampler.dpmpp_2m_sde(0.5), "eps"),
}
BETAS = {
    "linear": table.linear_betas(),
    "scaled_linear": table.quadratic_betas(0.00085, 0.012),
    "squaredcos_cap_v2": table.cosine_betas(),
}


def our_path(name, weights, x_T, noise, logsnrs, dtype):
    """Every x_t of our sampler `name` on the peer's rungs, with noise[i] drawn at rung i."""
    step, kind = OURS[name]
    weights, x_T, noise = jax.tree.map(lambda x: jnp.asarray(x, dtype), (weights, x_T, noise))
    logsnrs = jnp.asarray(np.maximum(logsnrs, table.TERMINAL_LOGSNR), dtype)
    keys = jax.random.key_data(rng.split(KEY, len(logsnrs) - 1))

    def recorded(key, shape):
        here = jnp.all(keys == jax.random.key_data(key), axis=1)
        return jnp.einsum("n,n...->...", here.astype(dtype), noise[: len(keys)])

    def network(x_t, logsnr_t):
        output = random_network.predict(jnp, weights, x_t, logsnr_t, kind)
        if name != "ddpm_learned":
            return output
        return jnp.concatenate(
            [output, random_network.fraction(jnp, weights, x_t, logsnr_t)], axis=-1
        )

    learned = name == "ddpm_learned"
    denoise = (predict.as_denoiser_with_variance if learned else predict.as_denoiser)(network, kind)
    run = lambda x: sampler.trajectory(denoise, x, logsnrs=logsnrs, step=step, key=KEY)  # noqa: E731
    with mock.patch.object(rng, "normal", recorded):
        return np.asarray(jax.jit(run)(x_T).x)


def largest_difference(name, weights, x_T, noise, logsnrs, x):
    """Between our path and the peer's, in float64 if the peer's is."""
    with jax.enable_x64(x.dtype == np.float64):
        ours = our_path(name, weights, x_T, noise, logsnrs, x.dtype)
    assert ours.shape == x.shape
    return np.abs(ours - x).max()


@pytest.mark.parametrize("name", OURS)
def test_every_x_t_is_the_peers(name):
    """In float32 against diffusers, whose own it is, in float64 against k-diffusion."""
    weights = {key.split("/")[1]: PATHS[key] for key in PATHS if key.startswith("network/")}
    logsnrs, x = PATHS[f"{name}/logsnrs"], PATHS[f"{name}/x"]
    difference = largest_difference(name, weights, PATHS["x_T"], PATHS["noise"], logsnrs, x)
    assert difference < (1e-12 if name.startswith("k_") else 2e-5)


def test_every_case_in_the_golden_file_is_compared():
    cases = {key.split("/")[0] for key in PATHS if key.endswith("/x")}
    assert cases == set(OURS)


@pytest.mark.parametrize("name", BETAS)
def test_betas_and_alpha_bar_are_those_of_diffusers(name):
    """To its float32: the cosine's last beta of 0.999 leaves 1e-4 of 1 - beta to rounding."""
    ours = np.exp(table.log_alpha_bar(BETAS[name]))[STEPS]
    np.testing.assert_allclose(BETAS[name][STEPS], TABLES[f"betas/{name}"], rtol=1e-6)
    np.testing.assert_allclose(ours[:-1], TABLES[f"alpha_bar/{name}"][:-1], rtol=1e-5)
    np.testing.assert_allclose(ours[-1], TABLES[f"alpha_bar/{name}"][-1], rtol=1e-4)


@pytest.mark.parametrize("name", BETAS)
def test_alpha_bar_at_zero_terminal_snr_is_that_of_diffusers(name):
    ours = np.exp(table.log_alpha_bar(table.zero_terminal_snr(BETAS[name])))[STEPS]
    np.testing.assert_allclose(ours, TABLES[f"zero_snr/{name}"], rtol=1e-5)
    assert ours[-1] == 0


@pytest.mark.parametrize("name", BETAS)
def test_the_ends_of_the_learned_variance_are_those_of_diffusers(name):
    """Posterior and beta, in logs. It has no floor at t = 0 to compare with: it draws nothing."""
    betas = BETAS[name]
    small, large = TABLES[f"log_variances/{name}"]
    np.testing.assert_allclose(table.posterior_log_variances(betas)[STEPS[1:]], small, atol=1e-4)
    np.testing.assert_allclose(np.log(betas)[STEPS[1:]], large, atol=1e-4)


@pytest.mark.parametrize("num_steps", [5, 8, 30])
@pytest.mark.parametrize("name", ["leading", "linspace", "trailing"])
def test_a_spacing_visits_the_steps_that_diffusers_visits(name, num_steps):
    steps = getattr(spacing, name)(np.arange(1000.0), num_steps)
    np.testing.assert_array_equal(steps[:-1], TABLES[f"{name}/{num_steps}"])
    assert np.isposinf(steps[-1])


@pytest.mark.parametrize("num_steps", [5, 8, 30])
def test_karras_spacing_is_that_of_k_diffusion(num_steps):
    sigmas = np.exp(-0.5 * spacing.karras(num_steps, sigma_min=0.002, sigma_max=80.0, rho=7.0))
    np.testing.assert_allclose(sigmas, TABLES[f"karras/{num_steps}"], rtol=2e-6)


@pytest.mark.parametrize("ratio", [0.9, 0.995])
def test_dynamic_threshold_is_that_of_diffusers(ratio):
    """Its ratio is our percentile / 100; its sample_max_value, which we lack, is out of reach."""
    images = jnp.asarray(TABLES["images"])
    denoise = dynamic_threshold(lambda x_t, logsnr_t: x_t, percentile=100 * ratio)
    ours = denoise(images, jnp.zeros(len(images)))
    np.testing.assert_allclose(ours, TABLES[f"thresholded/{ratio}"], atol=1e-6)


@pytest.mark.parametrize("logsnr", [-3.0, 0.0, 4.0])
def test_guidance_rescale_is_that_of_diffusers(logsnr):
    """On what the network predicts, here eps, whatever the noise level and x_t."""
    x_t = jnp.asarray(TABLES["images"])
    logsnr_t = jnp.full(len(x_t), logsnr)
    conditional, unconditional = (
        predict.as_denoiser(lambda x_t, logsnr_t, eps=TABLES[name]: jnp.asarray(eps), "eps")
        for name in ("conditional", "unconditional")
    )
    guided = classifier_free(conditional, unconditional, 7.5, rescale=0.7, kind="eps")
    eps = predict.to_eps(guided(x_t, logsnr_t), x_t, logsnr_t, "x_0")
    np.testing.assert_allclose(eps, TABLES["rescaled"], atol=1e-4)


@pytest.fixture(scope="module")
def peers():
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from tools.peers import sampler_peers

    return sampler_peers


@pytest.mark.peers
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(
    ("num_steps", "betas"),
    [(1, {}), (5, {"beta_schedule": "scaled_linear"}), (25, {"beta_end": 0.015})],
)
def test_the_peers_themselves_agree_at_every_x_t(peers, name, num_steps, betas):
    """Other networks, noise, lengths and schedules than the golden files'.

    Not the cosine: diffusers' float32 eps / alpha has lost four digits at its noisy end.
    """
    if num_steps == 1 and name.startswith("k_dpmpp_2m_sde"):
        pytest.skip("k-diffusion itself fails where the first step is the last")
    given = peers.setting(num_steps, num_steps)
    path = peers.CASES[name](given, num_steps, **({} if name.startswith("k_") else betas))
    difference = largest_difference(name, *given, path.logsnrs, path.x)
    print(f"{name}: max abs difference {difference:.1e}")
    assert difference < (1e-12 if name.startswith("k_") else 1e-4)


@pytest.mark.peers
@pytest.mark.parametrize(("golden", "make"), [(PATHS, "paths"), (TABLES, "tables")])
def test_the_golden_files_are_what_the_peers_say(peers, golden, make):
    from tools.golden import samplers as make_golden_samplers

    said = getattr(make_golden_samplers, make)()
    assert said.keys() == golden.keys()
    for name, value in said.items():
        np.testing.assert_allclose(golden[name], value, rtol=1e-6, atol=1e-6, err_msg=name)
