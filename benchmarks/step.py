"""python -m benchmarks.step: one training and one denoising step of the laptop presets, timed.

Prints images/s, GFLOP/s by XLA's own count, and the seconds of the compilation; the best of five.
"""

import functools
import time

import jax
import jax.numpy as jnp

from diffjax import build, config, state, steps, trees
from diffjax.cascade import guided_denoiser
from diffjax.stage import Condition, init_params

TEXT_WIDTH = 256


def best_of(function, *arguments, times: int = 5) -> tuple[float, float]:
    """(seconds of the fastest call, seconds to compile)."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    compile_s = time.perf_counter() - start
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    flops = compiled.cost_analysis().get("flops", float("nan"))
    print(
        f"{min(seconds[1:]) * 1e3:9.1f} ms  {flops / min(seconds[1:]) / 1e9:7.1f} GFLOP/s  "
        f"compiled in {compile_s:.1f} s",
        end="",
    )
    return min(seconds[1:]), compile_s


def main() -> None:
    print(f"jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}")
    for name in ("base64", "sr256"):
        options = config.load(f"configs/{name}.py")
        stage = build.stage_of(options, TEXT_WIDTH)
        tx, _ = build.optimiser_of(options)
        create = functools.partial(state.create, functools.partial(init_params, stage), tx)
        current = jax.jit(create)(jax.random.key(0))
        b, side = options.data.batch_size, options.data.crop_px or options.data.size_px
        length = options.text.max_tokens
        batch = {
            "image": jnp.zeros((b, side, side, 3), jnp.uint8),
            "text": jnp.ones((b, length, TEXT_WIDTH), jnp.bfloat16),
            "text_length": jnp.full(b, length, jnp.int32),
        }
        step = functools.partial(
            steps.train_step, stage=stage, tx=tx, root_key=jax.random.key(0), ema_decay=0.99,
            weighting=options.diffusion.weighting, text_drop=0.1,
        )  # fmt: skip
        print(f"{name} {trees.count(current.params) / 1e6:.2f} M  train {b} x {side} px  ", end="")
        seconds, _ = best_of(jax.jit(step), current, batch)
        print(f"  {b / seconds:.1f} images/s")

        b, side = 4, options.data.size_px
        picture = jnp.zeros((b, side, side, 3))
        condition = Condition(
            jnp.ones((b, length, TEXT_WIDTH)),
            jnp.ones((b, length), bool),
            picture if stage.low_res_px else None,
            jnp.zeros(b) if stage.low_res_px else None,
        )
        settings = build.settings_of(options)

        def denoise(params, x_t, condition, stage=stage, settings=settings):
            one = guided_denoiser(stage, params, condition, settings)
            return one(x_t, jnp.zeros(x_t.shape[:1]))

        guided = settings.guidance_weight != 1
        print(f"{name} denoise {b} x {side} px{', guided' if guided else ''}  ", end="")
        seconds, _ = best_of(jax.jit(denoise), current.params, picture, condition)
        print(f"  {b / seconds:.1f} images/s")


if __name__ == "__main__":
    main()
