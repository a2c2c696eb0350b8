"""Small models of the T5 family: a config for each variant, and random weights from a seed.

It needs only NumPy, so that these tests and the tool that runs PyTorch use the same weights.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

RELU, GELU, SILU = "relu", "gated-gelu", "gated-silu"


def sizes(
    feed_forward: str, d_model: int, heads: tuple[int, int], d_ff: int, layers: int, vocab: int
) -> dict[str, Any]:
    """The fields of a config.json; heads: (their number, their size)."""
    return {
        "feed_forward_proj": feed_forward, "d_model": d_model, "num_heads": heads[0],
        "d_kv": heads[1], "d_ff": d_ff, "num_layers": layers, "vocab_size": vocab,
        "tie_word_embeddings": feed_forward == RELU,
    }  # fmt: skip


# Each config has the peculiarity of the real model's sizes.
FAMILY = {
    "t5-small": sizes(RELU, 32, (4, 8), 128, 2, 101),  # the heads together are as wide as the model
    "t5-base": sizes(RELU, 48, (12, 64), 96, 1, 50),  # 12 heads of 64
    "t5-11b": sizes(RELU, 16, (16, 16), 256, 2, 60),  # heads 16 times as wide as the model
    "t5-v1_1-small": sizes(GELU, 32, (3, 8), 64, 2, 77),  # heads narrower than the model
    "t5-v1_1-xxl": sizes(GELU, 64, (8, 8), 160, 2, 77),  # d_ff 2.5 times the width
    "mt5-small": sizes(GELU, 24, (3, 8), 40, 2, 2501),  # a large vocabulary
    "byt5-small": sizes(GELU, 23, (3, 5), 56, 6, 384),  # many layers, bytes, odd sizes
    "ul2": sizes(SILU, 32, (2, 16), 128, 2, 64),  # few large heads, SiLU
}
LENGTHS = (24, 17, 1)


def tokens(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(ids, mask) [3 24] for the config of that name."""
    mask = np.arange(max(LENGTHS))[None] < np.array(LENGTHS)[:, None]
    random = np.random.default_rng(zlib.crc32(name.encode()))
    ids = random.integers(2, FAMILY[name]["vocab_size"], mask.shape)
    return (ids * mask).astype(np.int32), mask


def weights(name: str) -> dict[str, np.ndarray]:
    """All tensors of an encoder's checkpoint by name, drawn as T5 initialises them."""
    drawn = {}
    for tensor, shape, scale in _tensors(FAMILY[name]):
        random = np.random.default_rng(zlib.crc32(f"{name} {tensor}".encode()))
        if len(shape) == 1:  # norms: if all were 1, a wrong one would not be noticed
            drawn[tensor] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            drawn[tensor] = (random.standard_normal(shape) * scale).astype(np.float32)
    return drawn


def _tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], float]]:
    d, k, f = config["d_model"], config["d_kv"], config["d_ff"]
    inner = config["num_heads"] * k
    yield "shared.weight", (config["vocab_size"], d), 1.0
    yield "encoder.final_layer_norm.weight", (d,), 1.0
    for i in range(config["num_layers"]):
        attention, rest = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        if i == 0:
            name = "SelfAttention.relative_attention_bias.weight"
            yield f"{attention}.{name}", (32, config["num_heads"]), d**-0.5
        yield f"{attention}.SelfAttention.q.weight", (inner, d), (d * k) ** -0.5
        yield f"{attention}.SelfAttention.k.weight", (inner, d), d**-0.5
        yield f"{attention}.SelfAttention.v.weight", (inner, d), d**-0.5
        yield f"{attention}.SelfAttention.o.weight", (d, inner), inner**-0.5
        yield f"{attention}.layer_norm.weight", (d,), 1.0
        gates = ("wi",) if config["feed_forward_proj"] == RELU else ("wi_0", "wi_1")
        for gate in gates:
            yield f"{rest}.DenseReluDense.{gate}.weight", (f, d), d**-0.5
        yield f"{rest}.DenseReluDense.wo.weight", (d, f), f**-0.5
        yield f"{rest}.layer_norm.weight", (d,), 1.0
