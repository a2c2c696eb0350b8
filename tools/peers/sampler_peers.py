"""Runs samplers of diffusers and k-diffusion on a random network and recorded noise, rung by rung.

Needs requirements-peers.txt. Images stay [b h w c], because the peers' steps are elementwise.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import diffusers
import numpy as np
import torch

from tools.inputs import random_network

# Modules that k_diffusion.sampling imports but that are not needed here.
STUBS = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
PREDICTION_TYPES = {"eps": "epsilon", "v": "v_prediction"}
IN_SIGMA = (diffusers.EulerDiscreteScheduler, diffusers.HeunDiscreteScheduler)
# S_churn per step, and an interval that leaves out rungs at both ends (Karras et al. 2022).
CHURN_PER_STEP = 0.3
CHURN = {"s_tmin": 0.1, "s_tmax": 20.0, "s_noise": 1.007}
SIGMA_MIN, SIGMA_MAX = 0.02, 60.0


class Setting(NamedTuple):
    """The inputs of both sides: the network, the starting noise, and the noise of every step."""

    weights: dict[str, np.ndarray]
    x_T: np.ndarray  # [b h w c]
    noise: np.ndarray  # [n b h w c]


class Path(NamedTuple):
    """The path of a peer: at every rung the log SNR in float64 and the variance preserving x_t."""

    logsnrs: np.ndarray  # [n]
    x: np.ndarray  # [n b h w c]


Case = Callable[..., Path]


def setting(seed: int, num_steps: int) -> Setting:
    """Odd sizes, all different, so that a test notices if two axes are confused."""
    x = np.random.default_rng(seed).standard_normal((num_steps + 1, 2, 5, 1, 3)).astype(np.float32)
    return Setting(random_network.draw(seed), x[0], x[1:])


@functools.cache
def k_sampling() -> ModuleType:
    """The module k_diffusion.sampling without its package, which imports training code."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("k_diffusion: see .installed-peers in the Makefile")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    # the stubs of torchvision are removed at once, because others ask whether it is installed
    stubs = {name: ModuleType(name) for name in STUBS if name not in sys.modules}
    sys.modules.update(stubs, k_diffusion=package)
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name in stubs:
            del sys.modules[name]


def of_diffusers(
    name: str, kind: str = "eps", pairs: bool = False, again: bool = False, **config: Any
) -> Case:
    """The case of a scheduler of diffusers, in float32 as it computes.

    pairs: two of its steps are one of ours. again: the second takes the first one again. eta is an
    argument of its step.
    """
    step_args = {"eta": config.pop("eta")} if "eta" in config else {}
    config = {"beta_schedule": "linear", "prediction_type": PREDICTION_TYPES[kind]} | config

    def run(given: Setting, num_steps: int, **more: Any) -> Path:
        scheduler = getattr(diffusers, name)(**(config | more))
        scheduler.set_timesteps(num_steps)
        levels = _levels(scheduler)
        alphas = torch.from_numpy((1 + np.exp(-levels)) ** -0.5).float()
        scales = alphas if isinstance(scheduler, IN_SIGMA) else torch.ones_like(alphas)
        weights = {key: torch.from_numpy(value) for key, value in given.weights.items()}
        x = torch.from_numpy(given.x_T) / scales[0]
        path = [x * scales[0]]
        draws = map(torch.from_numpy, given.noise)
        home = sys.modules[type(scheduler).__module__]
        draw = lambda *_, **__: next(draws)  # noqa: E731
        with mock.patch.object(home, "randn_tensor", draw, create=True):
            for t, level, scale in zip(scheduler.timesteps, levels[:-1], scales[1:], strict=True):
                x_t = scheduler.scale_model_input(x, t)
                logsnr = torch.full((len(x),), float(level))
                output = random_network.predict(torch, weights, x_t, logsnr, kind)
                if config.get("variance_type") == "learned_range":
                    variance = random_network.fraction(torch, weights, x_t, logsnr)
                    output = torch.cat([output, variance], dim=1)  # where it splits them
                x = scheduler.step(output, t, x, **step_args).prev_sample
                path.append(x * scale)
        last = len(path) - 1
        kept = [*range(0, last, 2 if pairs else 1), last]
        if again:
            kept.remove(1)
        return Path(levels[kept], torch.stack(path).numpy()[kept])

    return run


def _levels(scheduler: Any) -> np.ndarray:
    """The log SNR of each of its evaluations and of the end, from its own float32 tables."""
    with np.errstate(divide="ignore"):
        if hasattr(scheduler, "sigmas"):
            return -2 * np.log(scheduler.sigmas.double().numpy())
        kept = scheduler.alphas_cumprod[scheduler.timesteps].double().numpy()
        return np.append(np.log(kept) - np.log1p(-kept), np.inf)


def of_k_diffusion(name: str, churn: bool = False, **args: Any) -> Case:
    """The case of a sampler of k-diffusion, in float64, on the rungs of Karras et al. 2022.

    Its callback does not give every x_t, so the path consists of the ends of ever longer runs.
    """

    def run(given: Setting, num_steps: int) -> Path:
        sampling = k_sampling()
        sigmas = sampling.get_sigmas_karras(num_steps, SIGMA_MIN, SIGMA_MAX).double()
        weights = {key: torch.from_numpy(value).double() for key, value in given.weights.items()}
        alpha_of = lambda sigma: (1 + sigma**2).rsqrt().reshape(-1, 1, 1, 1)  # noqa: E731

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            x_t = alpha_of(sigma) * x
            eps = random_network.predict(torch, weights, x_t, -2 * sigma.log(), "eps")
            return x - sigma.reshape(-1, 1, 1, 1) * eps

        path = [torch.from_numpy(given.x_T).double()]
        for last in range(1, num_steps + 1):
            draws = map(torch.Tensor.double, map(torch.from_numpy, given.noise))
            draw = lambda *_, draws=draws: next(draws)  # noqa: E731
            more: dict[str, Any] = dict(args)
            if churn:
                more |= CHURN | {"s_churn": CHURN_PER_STEP * last}
            if name.endswith("_sde"):
                more["noise_sampler"] = draw
            with mock.patch.object(torch, "randn_like", draw):
                x = getattr(sampling, f"sample_{name}")(
                    denoise, path[0] / alpha_of(sigmas[0]), sigmas[: last + 1],
                    disable=True, **more,
                )  # fmt: skip
            path.append(alpha_of(sigmas[last]) * x)
        with np.errstate(divide="ignore"):
            levels = -2 * np.log(sigmas.numpy())
        return Path(levels, torch.cat([x[None] for x in path]).numpy())

    return run


ancestral = functools.partial(of_diffusers, clip_sample=False, timestep_spacing="leading")
dpm = functools.partial(of_diffusers, "DPMSolverMultistepScheduler")
unipc = functools.partial(of_diffusers, "UniPCMultistepScheduler", solver_order=2)
ddim = functools.partial(ancestral, "DDIMScheduler")
# tests/diffusion/test_peers.py has the name of each case in diffjax.
CASES: dict[str, Case] = {
    "ddpm_small": ancestral("DDPMScheduler", variance_type="fixed_small"),
    "ddpm_large": ancestral("DDPMScheduler", variance_type="fixed_large"),
    "ddpm_learned": ancestral("DDPMScheduler", variance_type="learned_range"),
    "ddpm_v": ancestral("DDPMScheduler", "v"),
    "ddim": ddim(),
    "ddim_half": ddim(eta=0.5),
    "ddim_full": ddim(eta=1.0),
    "ddim_v_zero_snr": ddim("v", rescale_betas_zero_snr=True, timestep_spacing="trailing"),
    "euler": of_diffusers("EulerDiscreteScheduler"),
    "euler_v_karras": of_diffusers("EulerDiscreteScheduler", "v", use_karras_sigmas=True),
    "heun": of_diffusers("HeunDiscreteScheduler", pairs=True),
    "heun_v_karras": of_diffusers("HeunDiscreteScheduler", "v", True, use_karras_sigmas=True),
    "dpmpp_2m": dpm(),
    "dpmpp_2m_v": dpm("v"),
    "dpmpp_2m_not_clean": dpm(final_sigmas_type="sigma_min", lower_order_final=False),
    "dpmpp_2m_sde": dpm(algorithm_type="sde-dpmsolver++"),
    "dpmpp_2s": of_diffusers(
        "DPMSolverSinglestepScheduler", pairs=True, use_exponential_sigmas=True,
        final_sigmas_type="zero", lower_order_final=True,
    ),
    "unipc": unipc(),
    "unipc_v_karras": unipc("v", use_karras_sigmas=True),
    "unipc_not_clean": unipc(final_sigmas_type="sigma_min", lower_order_final=False),
    "pndm": of_diffusers(
        "PNDMScheduler", again=True, skip_prk_steps=True, set_alpha_to_one=True
    ),
    "k_euler": of_k_diffusion("euler"),
    "k_euler_churn": of_k_diffusion("euler", churn=True),
    "k_heun": of_k_diffusion("heun"),
    "k_heun_churn": of_k_diffusion("heun", churn=True),
    "k_euler_ancestral": of_k_diffusion("euler_ancestral"),
    "k_euler_ancestral_half": of_k_diffusion("euler_ancestral", eta=0.5),
    "k_dpmpp_2s": of_k_diffusion("dpmpp_2s_ancestral", eta=0.0),
    "k_dpmpp_2m": of_k_diffusion("dpmpp_2m"),
    "k_dpmpp_2m_sde": of_k_diffusion("dpmpp_2m_sde"),
    "k_dpmpp_2m_sde_half": of_k_diffusion("dpmpp_2m_sde", eta=0.5),
}  # fmt: skip
