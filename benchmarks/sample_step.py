"""Sampling with a config's stage, timed: one denoising step, and the whole jitted sampler.

    python -m benchmarks.sample_step --config configs/sr256.py --batch 4

Without --config: the laptop presets of base64 and sr256. A step calls the network, twice the batch
where the config guides, thresholds, and moves one rung. The sampler is one program with
`config.sample.num_steps` of them: what it takes beyond so many single steps is its own cost.
FLOP/s are of the traced program's matrix products and convolutions; batch 4 if none is given.
"""

import functools
import sys

import jax
import jax.numpy as jnp

from benchmarks import timing
from diffjax.build import build
from diffjax.core import rng, trees
from diffjax.core.errors import ConfigError
from diffjax.diffusion.sampling import sampler, spacing
from diffjax.diffusion.sampling.step import remembering
from diffjax.planning import shapes
from diffjax.tasks import sampling
from diffjax.tasks.denoising import Condition, init_params


def denoise(params, x_t, condition, keys, *, stage, settings):
    """One step of the stage's sampler, between two rungs in the middle of its ladder."""
    rungs = spacing.SPACINGS[settings.spacing](stage.schedule, settings.num_steps)
    at = lambda i: jnp.broadcast_to(rungs[i], x_t.shape[:1])  # noqa: E731
    rule = remembering(sampler.by_name(settings.sampler, settings.noise))
    guided = sampling.guided_denoiser(stage, params, condition, settings)
    middle = (settings.num_steps - 1) // 2
    key = rng.split(keys, 1)[0]
    return rule.step(guided, x_t, at(middle), at(middle + 1), rule.start(x_t), key=key)[0]


def measure(spec: str, flags, overrides: list[str]) -> None:
    """Print what there is to know of one config."""
    options = timing.options_of(spec, flags, overrides)
    stage = build.stage_of(options, shapes.text_width(options))
    settings = build.settings_of(options)
    count, side = flags.batch or 4, stage.size_px
    params = jax.jit(functools.partial(init_params, stage))(jax.random.key(0))
    keys = rng.per_example(jnp.arange(count))
    text = jax.random.normal(jax.random.key(1), (count, stage.max_tokens, stage.text_width))
    mask = jnp.ones((count, stage.max_tokens), bool)
    noise = jax.random.normal(jax.random.key(2), (count, side, side, 3))
    low_res = None
    condition = Condition(text, mask)
    if stage.low_res_px:
        low_res = jnp.clip(noise[:, : stage.low_res_px, : stage.low_res_px], -1, 1)
        condition = Condition(text, mask, noise, jnp.zeros(count))

    one = jax.jit(functools.partial(denoise, stage=stage, settings=settings))
    step = timing.timed(one, (params, noise, condition, keys), flags.steps)
    num, weight = settings.num_steps, settings.guidance_weight
    print(
        f"{spec}: {trees.count(params) / 1e6:.2f} M parameters, batch {count}, {side} px, "
        f"{options.model.dtype}, {settings.sampler}, "
        + (f"guided by {weight:g}" if weight != 1 else "not guided")
    )
    print(step.line("one step", count) + timing.mfu(step.flops, step.call_s), flush=True)
    whole = timing.timed(
        sampling.compiled_stage(stage, settings),
        (params, text, mask, keys, low_res),
        max(1, flags.steps // num),
    )
    print(whole.line(f"{num} steps, jitted", count) + timing.mfu(whole.flops, whole.call_s))
    print(
        f"  in the sampler a step takes {whole.call_s / num * 1e3:,.1f} ms, "
        f"{whole.call_s / num / step.call_s:.3f} of one alone; {timing.held()}",
        flush=True,
    )


def main() -> int:
    """Time each config."""
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
