"""Times sampling with a config's stage: one denoising step, and the whole jitted sampler.

    python -m benchmarks.sample_step --config configs/sr256.py --batch 4

Without --config it takes the laptop presets of base64 and sr256. A step calls the network (on twice
the batch if the config uses guidance), thresholds, and moves to the next noise level. The sampler
is one program of `config.sample.num_steps` steps; what it takes beyond that many single steps is
its own cost. FLOP/s count the matrix products and convolutions of the traced program. The default
batch is 4.
"""

import functools
import sys

import jax
import jax.numpy as jnp

from benchmarks import timing
from diffjax.build import tasks
from diffjax.build.inputs import texts
from diffjax.core import rng, trees
from diffjax.core.errors import ConfigError
from diffjax.diffusion.sampling.step import remembering
from diffjax.tasks import sampling


def denoise(params, x_t, columns, keys, *, task, settings):
    """One step of the task's sampler, between two noise levels in the middle of its ladder."""
    parts = sampling.ready(params, columns, keys, task=task, settings=settings)
    at = lambda i: jnp.broadcast_to(parts.logsnrs[i], x_t.shape[:1])  # noqa: E731
    rule = remembering(parts.step)
    middle = (settings.num_steps - 1) // 2
    key = rng.split(keys, 1)[0]
    start = rule.start(x_t)
    return rule.step(parts.denoise, x_t, at(middle), at(middle + 1), start, key=key)[0]


def measure(spec: str, flags, overrides: list[str]) -> None:
    """Times one config and prints the result."""
    options = timing.options_of(spec, flags, overrides)
    task = tasks.task_of(options, texts.text_width_of(options))
    settings = task.settings
    count, side = flags.batch or 4, task.size_px
    params = jax.jit(task.init)(jax.random.key(0))
    keys = rng.per_example(jnp.arange(count))
    noise = jax.random.normal(jax.random.key(2), (count, side, side, 3))
    columns = {
        name: jax.random.normal(jax.random.key(1), (count, *x.shape)).astype(x.dtype)
        for name, x in task.prompts().items()
    }
    columns["text_mask"] = jnp.ones(columns["text_mask"].shape, bool)

    one = jax.jit(functools.partial(denoise, task=task, settings=settings))
    step = timing.timed(one, (params, noise, columns, keys), flags.steps)
    num, weight = settings.num_steps, settings.guidance_weight
    print(
        f"{spec}: {trees.num_values(params) / 1e6:.2f} M parameters, batch {count}, {side} px, "
        f"{options.model.dtype}, {settings.sampler}, "
        + (f"guided by {weight:g}" if weight != 1 else "not guided")
    )
    print(step.line("one step", count) + timing.mfu(step.flops, step.call_s), flush=True)
    whole = timing.timed(
        jax.jit(functools.partial(sampling.sample, task=task, settings=settings)),
        (params, columns, keys),
        max(1, flags.steps // num),
    )
    print(whole.line(f"{num} steps, jitted", count) + timing.mfu(whole.flops, whole.call_s))
    print(
        f"  in the sampler a step takes {whole.call_s / num * 1e3:,.1f} ms, "
        f"{whole.call_s / num / step.call_s:.3f} of one alone; {timing.held()}",
        flush=True,
    )


def main() -> int:
    """Times each config; returns the exit code."""
    flags, overrides = timing.parser(__doc__ or "").parse_known_args()
    timing.start()
    try:
        for spec in flags.config or ("configs/base64.py", "configs/sr256.py"):
            measure(spec, flags, overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
