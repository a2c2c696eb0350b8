"""One network on one work, timed on demand: `python -m benchmarks.worker W1 train`.

W1   base: 64 px, width 64, mults 1 2 3 4, 2 blocks a level, attention at 16 and 8 px, 64 text
     tokens of 512, batch 4
W2   Efficient U-Net: 64 -> 256 px, width 32, mults 1 2 4 8, blocks 2 4 8 8, attention at the lowest
     level, the same text, batch 1
W3   DDPM's CIFAR network: 32 px, width 128, mults 1 2 2 2, 2 blocks, attention at 16 px, batch 8
train: times and noise, loss, gradients, Adam. denoise: one guided, thresholded DDIM step; guidance
(the doubled batch) where there is text.

It speaks a line protocol, so that a race may let several programs take turns: it prints
{"ready": true, ...} once compiled; "go N" on stdin runs N steps and prints {"ms": [...],
"cpu_ms": [...]}; "end" prints the peak memory and ends. FLOPs are those of matrix products and
convolutions in the traced program.
"""

import argparse
import json
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffjax import hlo
from diffjax.diffusion import guidance, loss, predict, sampler, schedule
from diffjax.models import convolve
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.unet import UNet


@dataclass(frozen=True)
class Work:
    """A network, its batch, the side of its picture, its text (length, width) or none."""

    model: Any
    batch: int
    size_px: int
    text: tuple[int, int] | None = (64, 512)


def work_of(name: str, dtype) -> Work:
    """The work of that name."""
    if name == "W1":
        model = UNet(
            width=64,
            mults=(1, 2, 3, 4),
            num_blocks=2,
            attention_levels=(2, 3),
            dtype=dtype,
            convolution=convolve.fastest(),
        )
        return Work(model, 4, 64)
    if name == "W2":
        return Work(EfficientUNet(width=32, convolution=convolve.fastest(), dtype=dtype), 1, 256)
    model = UNet(
        width=128, mults=(1, 2, 2, 2), num_blocks=2, attention_levels=(1,), head_width=256,
        convolution=convolve.fastest(), dtype=dtype,
    )  # fmt: skip
    return Work(model, 8, 32, text=None)


def inputs_of(work: Work, key, batch: int) -> dict[str, Any]:
    """What the network is told beside picture and level."""
    given: dict[str, Any] = {}
    if work.text:
        given["text"] = jax.random.normal(key, (batch, *work.text))
        given["text_mask"] = jnp.ones((batch, work.text[0]), bool)
    if isinstance(work.model, EfficientUNet):
        given["low_res"] = jax.random.normal(key, (batch, work.size_px, work.size_px, 3))
        given["aug_logsnr"] = jnp.zeros(batch)
    return given


def train_step(work: Work):
    """((params, opt_state), key, x_0, given) -> the same after one step, and the loss."""
    tx = optax.adam(1e-4)

    def step(state, key, x_0, given):
        params, opt_state = state

        def of(params):
            network = lambda x, logsnr: work.model.apply({"params": params}, x, logsnr, **given)  # noqa: E731
            return loss.diffusion_loss(network, x_0, key=key, schedule=schedule.cosine())[0]

        value, gradients = jax.value_and_grad(of)(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return step, tx


def denoise_step(work: Work):
    """(params, x_t, given) -> x_s: guidance 7.5 where there is text, clipped, DDIM."""
    ddim = sampler.ddim()

    def step(params, x_t, given):
        network = lambda x, logsnr: work.model.apply({"params": params}, x, logsnr, **given)  # noqa: E731
        denoise = predict.as_denoiser(network, "eps")
        if work.text:
            denoise = guidance.classifier_free_doubled(denoise, 7.5)
        at = lambda logsnr: jnp.full(x_t.shape[:1], logsnr)  # noqa: E731
        return ddim(guidance.static_threshold(denoise), x_t, at(0.0), at(0.2), key=None)

    return step


def prepare(work: Work, mode: str):
    """(a function of the step's number that runs a step and waits, facts about the program)."""
    key = jax.random.key(0)
    x = jax.random.normal(key, (work.batch, work.size_px, work.size_px, 3))
    rows = work.batch * (2 if mode == "denoise" and work.text else 1)
    given = inputs_of(work, key, rows)
    shaped = inputs_of(work, key, work.batch)
    init = jax.jit(lambda k: work.model.init(k, x, jnp.zeros(work.batch), **shaped)["params"])
    params = init(key)
    if mode == "train":
        step, tx = train_step(work)
        state = [(params, jax.jit(tx.init)(params))]
        arguments = (state[0], key, x, given)
        jitted = jax.jit(step, donate_argnums=0)
    else:
        arguments = (params, x, given)
        jitted = jax.jit(denoise_step(work))
    start = time.perf_counter()
    traced = jitted.trace(*arguments)
    compiled = traced.lower().compile()
    compile_s = time.perf_counter() - start
    keys = jax.random.split(key, 4)

    def run(i: int):
        if mode == "train":
            state[0], value = compiled(state[0], keys[i % 4], x, given)
        else:
            value = compiled(params, x, given)
        return jax.block_until_ready(value)

    memory = compiled.memory_analysis()
    facts = {
        "params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "flops_step": hlo.flops(traced.jaxpr),
        "images_step": work.batch,
        "compile_s": round(compile_s, 2),
        "temp_mb": round(memory.temp_size_in_bytes / 2**20, 1),
        "framework": f"jax {jax.__version__}",
        "device": jax.devices()[0].device_kind,
    }
    return run, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=("W1", "W2", "W3"))
    parser.add_argument("mode", choices=("train", "denoise"))
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--warmup", type=int, default=3)
    flags = parser.parse_args()
    dtype = {"fp32": jnp.float32, "bf16": jnp.bfloat16}[flags.dtype]
    run, facts = prepare(work_of(flags.work, dtype), flags.mode)
    for i in range(flags.warmup):
        run(i)
    say(ready=True, name="diffjax", work=flags.work, mode=flags.mode, dtype=flags.dtype, **facts)
    for line in sys.stdin:
        order = line.split()
        if order[:1] == ["end"]:
            break
        if order[:1] == ["go"]:
            ms, cpu_ms = [], []
            for i in range(int(order[1])):
                wall, cpu = time.perf_counter(), time.process_time()
                run(i)
                ms.append((time.perf_counter() - wall) * 1e3)
                cpu_ms.append((time.process_time() - cpu) * 1e3)
            say(ms=ms, cpu_ms=cpu_ms)
    say(end=True, rss_peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))


def say(**facts: Any) -> None:
    """One line of JSON."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
