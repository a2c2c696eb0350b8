"""A T5 of a few kilobytes with random weights, for tests where the words do not matter."""

import json

import jax
import jax.numpy as jnp

from diffjax.encoders import weights
from diffjax.models import t5


def save_tiny(folder):
    """Write it as a checkpoint folder; returns the folder as a string."""
    config = t5.T5Config(
        vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        feed_forward="gated-gelu",
    )  # fmt: skip
    ids = jnp.ones((1, 4), jnp.int32)
    params = t5.T5Encoder(config).init(jax.random.key(0), ids, ids > 0)["params"]
    weights.save(folder, config, params)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    return str(folder)
