"""Runs our network on a work of `benchmarks.works`: `python -m benchmarks.worker W1 train`.

It follows the protocol of `benchmarks.protocol`. FLOPs count the matrix products and convolutions
of the traced program.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.protocol import serve
from benchmarks.works import MODES, WORKS
from diffjax.diffusion import predict, schedule
from diffjax.diffusion.sampling import guidance, sampler
from diffjax.diffusion.training import loss
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.layers import convolve
from diffjax.models.unet import UNet
from diffjax.planning import jaxprs


@dataclass(frozen=True)
class Work:
    """A network, its batch, the side of its picture, and its text (length, width) or None."""

    model: Any
    batch: int
    size_px: int
    text: tuple[int, int] | None = (64, 512)


@dataclass(frozen=True)
class Program:
    """A compiled step. run(i) runs it and waits; facts: what the race is told about it."""

    run: Any
    compiled: Any
    facts: dict[str, Any]


def work_of(name: str, dtype) -> Work:
    """The work of that name."""
    shape = WORKS[name]
    given = dict(
        width=shape.width,
        mults=shape.mults,
        convolution=convolve.fastest_convolution(),
        dtype=dtype,
    )
    levels = tuple(level for level, attends in enumerate(shape.attends) if attends)
    if shape.low_res:
        model: Any = EfficientUNet(num_blocks=shape.blocks, attention_levels=levels, **given)
    else:
        model = UNet(
            num_blocks=shape.blocks[0],
            attention_levels=levels,
            head_width=64 if shape.text else shape.channels[1],  # DDPM's network has one head
            **given,
        )
    return Work(model, shape.batch, shape.side, shape.text)


def inputs_of(work: Work, key, batch: int) -> dict[str, Any]:
    """The network's inputs beside the picture and the noise level."""
    given: dict[str, Any] = {}
    if work.text:
        given["text"] = jax.random.normal(key, (batch, *work.text))
        given["text_mask"] = jnp.ones((batch, work.text[0]), bool)
    if isinstance(work.model, EfficientUNet):
        given["low_res"] = jax.random.normal(key, (batch, work.size_px, work.size_px, 3))
        given["aug_logsnr"] = jnp.zeros(batch)
    return given


def train_step(work: Work):
    """((params, opt_state), key, x_0, given) -> ((params, opt_state) after one step, the loss)."""
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
    """(params, x_t, given) -> x_s: a clipped DDIM step, with guidance 7.5 if there is text."""
    ddim = sampler.ddim()

    def step(params, x_t, given):
        network = lambda x, logsnr: work.model.apply({"params": params}, x, logsnr, **given)  # noqa: E731
        denoise = predict.as_denoiser(network, "eps")
        if work.text:
            denoise = guidance.classifier_free_doubled(denoise, 7.5)
        at = lambda logsnr: jnp.full(x_t.shape[:1], logsnr)  # noqa: E731
        return ddim(guidance.static_threshold(denoise), x_t, at(0.0), at(0.2), key=None)

    return step


def program_of(work: Work, mode: str) -> Program:
    """The compiled step of a work, "train" or "denoise"."""
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
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
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
        "params": num_params,
        "flops_step": jaxprs.flops(traced.jaxpr),
        "images_step": work.batch,
        "compile_s": round(compile_s, 2),
        "temp_mb": round(memory.temp_size_in_bytes / 2**20, 1),
        "framework": f"jax {jax.__version__}",
        "device": jax.devices()[0].device_kind,
    }
    return Program(run, compiled, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--warmup", type=int, default=3)
    flags = parser.parse_args()
    dtype = {"fp32": jnp.float32, "bf16": jnp.bfloat16}[flags.dtype]
    program = program_of(work_of(flags.work, dtype), flags.mode)
    serve(
        program.run, warmup=flags.warmup, name="diffjax", work=flags.work, mode=flags.mode,
        dtype=flags.dtype, **program.facts,
    )  # fmt: skip


if __name__ == "__main__":
    main()
