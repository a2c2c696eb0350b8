"""Writes tests/golden/samplers*.safetensors: results of the samplers of diffusers and k-diffusion.

    PEERS/bin/python -m tools.golden.samplers      (an environment with requirements-peers.txt)

samplers.safetensors holds the random network, the noise, and every x_t of each case of
tools/peers/sampler_peers.py; samplers_tables.safetensors holds tables, spacings and guidance.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from safetensors.numpy import save_file

from tools.peers import sampler_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
# An odd number for a step made of two, and many for UniPC, whose weights have a series for short
# steps. The others have eight.
SEED, NUM_STEPS, MANY = 0, 8, {"dpmpp_2s": 9, "unipc_v_karras": 24}
TABLES = {
    "linear": {},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {},
}
# Steps of a thousand, both ends among them.
STEPS = np.arange(0, 1000, 27)
SPACED = (5, 8, 30)
KARRAS = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
WEIGHT, PHI = 7.5, 0.7
RATIOS = (0.9, 0.995)


def paths() -> dict[str, np.ndarray]:
    given = sampler_peers.setting(SEED, NUM_STEPS)
    tensors = {"x_T": given.x_T, "noise": given.noise}
    tensors |= {f"network/{name}": value for name, value in given.weights.items()}
    for name, case in sampler_peers.CASES.items():
        path = case(given, MANY.get(name, NUM_STEPS))
        tensors |= {f"{name}/logsnrs": path.logsnrs, f"{name}/x": path.x}
    return tensors


def tables() -> dict[str, np.ndarray]:
    tensors = {}
    for name, betas in TABLES.items():
        scheduler = DDPMScheduler(beta_schedule=name, **betas)
        tensors[f"betas/{name}"] = scheduler.betas.numpy()[STEPS]
        # the products are in float64, because the test is about formulas and not rounding
        scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
        tensors[f"alpha_bar/{name}"] = scheduler.alphas_cumprod.numpy()[STEPS]
        log_variances = [
            [
                scheduler._get_variance(int(t), torch.tensor(end), "learned_range").item()
                for t in STEPS[1:]
            ]
            for end in (-1.0, 1.0)
        ]
        tensors[f"log_variances/{name}"] = np.array(log_variances)
        rescaled = rescale_zero_terminal_snr(scheduler.betas.double())
        tensors[f"zero_snr/{name}"] = torch.cumprod(1 - rescaled, 0).numpy()[STEPS]
    for spacing in ("leading", "linspace", "trailing"):
        for num_steps in SPACED:
            spaced = DDIMScheduler(timestep_spacing=spacing)
            spaced.set_timesteps(num_steps)
            tensors[f"{spacing}/{num_steps}"] = spaced.timesteps.int().numpy()
    torch.set_default_dtype(torch.float64)
    for num_steps in SPACED:
        sigmas = sampler_peers.k_sampling().get_sigmas_karras(num_steps, **KARRAS)
        tensors[f"karras/{num_steps}"] = sigmas.numpy()
    torch.set_default_dtype(torch.float32)
    return tensors | guidance()


def guidance() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(SEED)
    # from images inside [-1, 1] to far outside, B = W so that a wrong axis cannot hide
    scales = np.array([0.2, 0.6, 1.5, 6.0])[:, None, None, None]
    images, conditional, unconditional = (
        (scales * generator.standard_normal((4, 5, 4, 3))).astype(np.float32) for _ in range(3)
    )
    guided = unconditional + WEIGHT * (conditional - unconditional)
    rescaled = rescale_noise_cfg(torch.from_numpy(guided), torch.from_numpy(conditional), PHI)
    tensors = {
        "images": images,
        "conditional": conditional,
        "unconditional": unconditional,
        "rescaled": rescaled.numpy(),
    }
    for ratio in RATIOS:
        scheduler = DDPMScheduler(dynamic_thresholding_ratio=ratio, sample_max_value=1e6)
        thresholded = scheduler._threshold_sample(torch.from_numpy(images))
        tensors[f"thresholded/{ratio}"] = thresholded.numpy()
    return tensors


def main() -> None:
    save_file(paths(), GOLDEN / "samplers.safetensors")
    save_file(tables(), GOLDEN / "samplers_tables.safetensors")


if __name__ == "__main__":
    main()
