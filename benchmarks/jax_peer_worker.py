"""`benchmarks.works` for networks of others, in JAX.

    JAX_PEERS/bin/python -m benchmarks.jax_peer_worker hackable W1 train     (benchmarks/README.md)

hackable: hackable-diffusion's Unet. Where there is text its levels attend to the text and not to
themselves; it has no efficient form, so W2's first level works at 256 px. flaxdiff: FlaxDiff's
Unet, one attention a level, W1 and W3. Both are told the time by a number from 0 to 1,000.
FLOPs are those of matrix products and convolutions in the traced program, as ours are.
"""

import argparse
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.protocol import serve
from benchmarks.works import MODES, WORKS, Work
from diffjax.planning import jaxprs

GROUPS = 32


class Hackable(nn.Module):
    """hackable-diffusion's Unet with guided-diffusion's embedding of the time before it."""

    work: Work
    dtype: Any

    @nn.compact
    def __call__(self, x, t, low_res, text):
        """[b h w 3], times [b], low-resolution picture, text [b l d] -> eps [b h w 3]."""
        from hackable_diffusion.lib.architecture import arch_typing, unet, unet_blocks
        from hackable_diffusion.lib.architecture.normalization import NormalizationType
        from hackable_diffusion.lib.architecture.sequence_embedders import SquareRoPEPositions

        work, levels = self.work, len(self.work.mults)
        emb = nn.Dense(4 * work.width, dtype=self.dtype)(waves(t, work.width))
        emb = nn.Dense(4 * work.width, dtype=self.dtype)(nn.silu(emb))
        told = {"adaptive_norm": emb} | ({} if text is None else {"cross_attention": text})
        net = unet.Unet(
            base_channels=work.width,
            channels_multiplier=work.mults,
            num_residual_blocks=work.blocks,
            downsample_fn=unet_blocks.AvgPoolDownsample(),
            upsample_fn=unet_blocks.ImageResizeUpsample(),
            dropout_rate=(0.0,) * levels,
            bottleneck_dropout_rate=0.0,
            self_attention_bool=work.attends,
            cross_attention_bool=work.attends if work.text else (False,) * levels,
            attention_num_heads=arch_typing.INVALID_INT if work.text else 1,
            attention_head_dim=64 if work.text else arch_typing.INVALID_INT,
            attention_normalize_qk=False,
            attention_use_rope=False,
            attention_rope_positions_fn=SquareRoPEPositions(),
            normalization_type=NormalizationType.GROUP_NORM,
            normalization_num_groups=GROUPS,
            activation="silu",
            skip_connection_fn=unet_blocks.UnnormalizedAddSkip(),
            output_channels=3,
            dtype=self.dtype,
        )
        return net(
            x if low_res is None else jnp.concatenate([x, low_res], -1), told, is_training=True
        )


class FlaxDiff(nn.Module):
    """FlaxDiff's Unet, which needs text: without text it gets one token of zeros."""

    work: Work
    dtype: Any

    @nn.compact
    def __call__(self, x, t, low_res, text):
        """[b h w 3], times [b], none, text [b l d] or none -> eps [b h w 3]."""
        from flaxdiff.models.simple_unet import Unet

        work = self.work
        attends = [*work.attends[:-1], True]  # the last one also holds for its middle block
        net = Unet(
            emb_features=4 * work.width,
            feature_depths=work.channels,
            attention_configs=[{"heads": 4, "dtype": self.dtype} if a else None for a in attends],
            num_res_blocks=work.blocks[0],
            norm_groups=GROUPS,
            dtype=self.dtype,
        )
        return net(x, t / 1000, jnp.zeros((len(x), 1, work.width)) if text is None else text)


NETWORKS = {"hackable": Hackable, "flaxdiff": FlaxDiff}


def waves(t, width: int):
    """[b] -> [b width]: cosines and sines of the time (Vaswani et al. 2017)."""
    angle = t[:, None] * 1e4 ** (-jnp.arange(width // 2) / (width // 2))
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


def arrays_of(work: Work, key) -> tuple[Any, Any, Any]:
    """Picture, low-resolution picture or None, text or None, of the work's batch."""
    keys = jax.random.split(key, 3)
    shape = (work.batch, work.side, work.side, 3)
    return (
        jnp.clip(jax.random.normal(keys[0], shape), -1, 1),
        jax.random.normal(keys[1], shape) if work.low_res else None,
        jax.random.normal(keys[2], (work.batch, *work.text)) if work.text else None,
    )


def alpha_bar(t):
    """The cosine schedule at a time from 0 to 1,000, as a column of pictures."""
    return jnp.cos(0.5 * jnp.pi * t[:, None, None, None] / 1000) ** 2


def train_step(net: nn.Module):
    """((params, opt_state), key, x_0, low_res, text) -> (the state after a step, the loss)."""
    tx = optax.adam(1e-4)

    def step(state, key, x_0, low_res, text):
        params, opt_state = state
        key_t, key_eps = jax.random.split(key)
        t = jax.random.randint(key_t, x_0.shape[:1], 1, 1000).astype(jnp.float32)
        eps = jax.random.normal(key_eps, x_0.shape)
        x_t = jnp.sqrt(alpha_bar(t)) * x_0 + jnp.sqrt(1 - alpha_bar(t)) * eps

        def of(params):
            return jnp.mean((net.apply({"params": params}, x_t, t, low_res, text) - eps) ** 2)

        value, gradients = jax.value_and_grad(of)(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return step, tx


def denoise_step(net: nn.Module):
    """(params, x_t, low_res, text) -> x_s: a clipped DDIM step; guidance 7.5 if there is text."""

    def step(params, x_t, low_res, text):
        twice = lambda x: None if x is None else jnp.concatenate([x, x])  # noqa: E731
        if text is None:
            eps = net.apply({"params": params}, x_t, jnp.full(len(x_t), 500.0), low_res, None)
        else:
            told = jnp.concatenate([text, jnp.zeros_like(text)])
            t = jnp.full(2 * len(x_t), 500.0)
            both = net.apply({"params": params}, twice(x_t), t, twice(low_res), told)
            conditional, unconditional = jnp.split(both, 2)
            eps = unconditional + 7.5 * (conditional - unconditional)
        here, there = (alpha_bar(jnp.full(len(x_t), at)) for at in (500.0, 480.0))
        x_0 = jnp.clip((x_t - jnp.sqrt(1 - here) * eps) / jnp.sqrt(here), -1, 1)
        eps = (x_t - jnp.sqrt(here) * x_0) / jnp.sqrt(1 - here)
        return jnp.sqrt(there) * x_0 + jnp.sqrt(1 - there) * eps

    return step


def prepare(net: nn.Module, work: Work, mode: str):
    """(a function that runs step i and waits for it, facts about the program)."""
    key = jax.random.key(0)
    given = arrays_of(work, key)
    times = jnp.zeros(work.batch)
    params = jax.jit(lambda k: net.init(k, given[0], times, *given[1:])["params"])(key)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    keys = jax.random.split(key, 4)
    if mode == "train":
        step, tx = train_step(net)
        state = [(params, jax.jit(tx.init)(params))]
        jitted, arguments = jax.jit(step, donate_argnums=0), (state[0], key, *given)
    else:
        jitted, arguments = jax.jit(denoise_step(net)), (params, *given)
    start = time.perf_counter()
    traced = jitted.trace(*arguments)
    compiled = traced.lower().compile()
    compile_s = time.perf_counter() - start

    def run(i: int):
        if mode == "train":
            state[0], value = compiled(state[0], keys[i % 4], *given)
        else:
            value = compiled(params, *given)
        return jax.block_until_ready(value)

    facts = {
        "params": num_params,
        "flops_step": jaxprs.flops(traced.jaxpr),
        "images_step": work.batch,
        "compile_s": round(compile_s, 2),
        "temp_mb": round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 1),
        "framework": f"jax {jax.__version__}",
        "device": jax.devices()[0].device_kind,
    }
    return run, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("peer", choices=NETWORKS)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--warmup", type=int, default=3)
    flags = parser.parse_args()
    if (flags.peer, flags.work) == ("flaxdiff", "W2"):
        parser.error("flaxdiff W2: its Unet takes no blocks by level; choose W1 or W3")
    dtype = {"fp32": jnp.float32, "bf16": jnp.bfloat16}[flags.dtype]
    net = NETWORKS[flags.peer](WORKS[flags.work], dtype)
    run, facts = prepare(net, WORKS[flags.work], flags.mode)
    serve(
        run, warmup=flags.warmup, name=flags.peer, work=flags.work, mode=flags.mode,
        dtype=flags.dtype, **facts,
    )  # fmt: skip


if __name__ == "__main__":
    main()
