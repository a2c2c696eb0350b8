"""Measures the errors of samplers against the number of evaluations of the denoiser.

The data is a mixture of Gaussians, whose exact denoiser is known.

    python -m benchmarks.samplers [--out docs]      (requirements-dev.txt; a minute on 2 cores)

Writes a table to OUT/samplers.md and a plot to OUT/samplers.png. Two errors are measured at 8, 16,
32 and 64 evaluations, on the Karras spacing from sigma 80 to 0.002.

path: for samplers that draw no noise, the median distance from the point to which the exact flow
takes the same noise. (The median, because a path that starts between two modes may end in either.)
draws: the sliced 2-Wasserstein distance of 16,384 draws from as many exact ones. The last row, for
other exact draws, is the floor.
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion.sampling import sampler, spacing
from tests.diffusion import oracles

EVALUATIONS = (8, 16, 32, 64)
NUM_DRAWS = 16_384
DATA = oracles.mixture(
    np.array([[-0.6, -0.3], [0.5, 0.7], [0.6, -0.5]]).reshape(3, 1, 1, 2),
    np.array(
        [[[0.02, 0.01], [0.01, 0.02]], [[0.04, -0.02], [-0.02, 0.02]], [[0.01, 0], [0, 0.01]]]
    ),
    [0.3, 0.5, 0.2],
)
# name: (step rule, order as an ODE solver or None, evaluations per step)
SAMPLERS = {
    "ddpm, gamma 0": (sampler.ddpm(0.0), None, 1),
    "ddpm, gamma 1": (sampler.ddpm(1.0), None, 1),
    "ddim, eta 0.5": (sampler.ddim(0.5), None, 1),
    "dpmpp_2m_sde": (sampler.dpmpp_2m_sde(), None, 1),
    "heun, churn 0.1": (sampler.heun(sampler.Churn(0.1)), None, 2),
    "ddim = euler = dpmpp_1s": (sampler.ddim(), 1, 1),
    "heun": (sampler.heun(), 2, 2),
    "dpmpp_2s": (sampler.dpmpp_2s(), 2, 2),
    "dpmpp_2m": (sampler.dpmpp_2m(), 2, 1),
    "unipc": (sampler.unipc(), 3, 1),
}


def draw(step, rungs, x_T) -> np.ndarray:
    """[n 2] samples from the noise x_T."""
    run = jax.jit(functools.partial(sampler.sample, DATA.denoise, step=step))
    return np.asarray(run(x_T, logsnrs=rungs, key=jax.random.key(1))).reshape(-1, 2)


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, num_directions: int = 64) -> float:
    """The root mean square over directions of the 2-Wasserstein distance of the projections."""
    angle = np.pi * (np.arange(num_directions) + 0.5) / num_directions
    lines = np.stack([np.cos(angle), np.sin(angle)])
    return float(np.sqrt(np.mean((np.sort(a @ lines, 0) - np.sort(b @ lines, 0)) ** 2)))


def exact_paths(x_T) -> np.ndarray:
    """The points to which the exact flow takes the noise: Heun with 2,000 steps in float64."""
    with jax.enable_x64(True):
        rungs = jnp.append(jnp.linspace(-2 * np.log(80.0), -2 * np.log(1e-4), 2_001), jnp.inf)
        x_T = jnp.asarray(np.asarray(x_T), jnp.float64)
        return draw(sampler.heun(), rungs.astype(jnp.float64), x_T)


def measure() -> tuple[dict[str, tuple[list[float], list[float]]], float]:
    """name -> (path errors, errors of the draws) at EVALUATIONS; and the floor of the latter."""
    shape = (NUM_DRAWS, 1, 1, 2)
    x_T = jax.random.normal(jax.random.key(0), shape)
    real, *others = (
        np.asarray(DATA.sample(jax.random.key(seed), NUM_DRAWS)).reshape(-1, 2)
        for seed in range(7, 12)
    )
    paths = exact_paths(x_T)
    results: dict[str, tuple[list[float], list[float]]] = {}
    for name, (step, order, per_step) in SAMPLERS.items():
        of_path, of_draws = [], []
        for evaluations in EVALUATIONS:
            # a rule with two evaluations per step needs only one in its last step
            rungs = spacing.karras((evaluations + per_step - 1) // per_step)
            x = draw(step, rungs, x_T)
            of_draws.append(sliced_wasserstein(x, real))
            if order:
                of_path.append(float(np.median(np.linalg.norm(x - paths, axis=1))))
        results[name] = of_path, of_draws
    return results, float(np.mean([sliced_wasserstein(other, real) for other in others]))


def table(results, floor: float) -> str:
    """The results in Markdown."""
    heads = " | ".join(f"{n}" for n in EVALUATIONS)
    lines = [
        f"| sampler | order | evaluations a step | path: {heads} | draws: {heads} |",
        "|---" * (3 + 2 * len(EVALUATIONS)) + "|",
    ]
    for name, (of_path, of_draws) in results.items():
        _, order, per_step = SAMPLERS[name]
        path = [f"{error:.1e}" for error in of_path] or ["-"] * len(EVALUATIONS)
        draws = [f"{error:.3f}" for error in of_draws]
        lines.append(f"| {' | '.join([name, str(order or '-'), str(per_step), *path, *draws])} |")
    blank = " | ".join(["-"] * (2 + len(EVALUATIONS)))
    exact = " | ".join([f"{floor:.3f}"] * len(EVALUATIONS))
    lines.append(f"| other exact draws | {blank} | {exact} |")
    return "\n".join(lines) + "\n"


def plot(results, floor: float, path: Path) -> None:
    """Both errors over evaluations, on logarithmic axes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for i, (name, errors) in enumerate(results.items()):
        for axis, values in zip(axes, errors, strict=True):
            if values:
                axis.loglog(EVALUATIONS, values, f"C{i}o-", markersize=4, label=name)
    axes[1].axhline(floor, color="gray", linestyle="--", label="exact draws")
    for axis, title in zip(
        axes, ("distance from the exact path", "distance of the draws"), strict=True
    ):
        axis.set(title=title, xlabel="evaluations of the denoiser")
        axis.set_xticks(EVALUATIONS, EVALUATIONS, minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    results, floor = measure()
    (out / "samplers.md").write_text(table(results, floor))
    plot(results, floor, out / "samplers.png")
    print(table(results, floor), end="")
    print(out / "samplers.png")


if __name__ == "__main__":
    main()
