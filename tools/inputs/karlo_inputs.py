"""Small networks in the layout of Karlo's decoder, upsampler and text tower; what they are given.

Needs only NumPy.
"""

from typing import Any

import numpy as np

from tools.inputs import random_tensors

Tensors = dict[str, np.ndarray]
WIDTH, LENGTH = 12, 5  # of the states of a text
DECODER: dict[str, Any] = dict(
    sample_size=8, layers_per_block=1, block_out_channels=[32, 64], in_channels=3, out_channels=6,
    down_block_types=["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    up_block_types=["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=24,
    class_embed_type="identity", attention_head_dim=16, resnet_time_scale_shift="scale_shift",
)  # fmt: skip
PROJECTION: dict[str, Any] = dict(
    clip_extra_context_tokens=4, clip_embeddings_dim=WIDTH, time_embed_dim=128,
    cross_attention_dim=24,
)  # fmt: skip
UPSAMPLER: dict[str, Any] = dict(
    sample_size=8, layers_per_block=1, block_out_channels=[32, 64], in_channels=6, out_channels=3,
    down_block_types=["ResnetDownsampleBlock2D"] * 2, up_block_types=["ResnetUpsampleBlock2D"] * 2,
    add_attention=False,
)  # fmt: skip
# The ids of start, padding and end are those that the released file says and its tower ignores.
TEXT: dict[str, Any] = dict(
    hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
    hidden_act="quick_gelu", projection_dim=24, max_position_embeddings=77, bos_token_id=0,
    pad_token_id=1, eos_token_id=2,
)  # fmt: skip
# One that is padded, the empty one, and one that is cut off.
PROMPTS = ["an openmoji drawing of a red apple", "", " and ".join(["a red apple"] * 40)]
# The seed of the weights of each part.
SEEDS = {
    "decoder": 0, "text_proj": 1, "super_res_first": 2, "super_res_last": 3, "text_encoder": 5,
}  # fmt: skip


def tensors(part: str, shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """Random tensors for these names."""
    return random_tensors.transformer(SEEDS[part], {k: tuple(x) for k, x in shapes.items()})


def given() -> Tensors:
    """Two noised pictures at their steps, small ones beside them, vectors, and texts of 5 and 2."""
    draw = np.random.default_rng(4)
    shapes = {
        "x_t": (2, 8, 8, 3), "low_res": (2, 8, 8, 3), "text": (2, LENGTH, WIDTH),
        "text_vector": (2, WIDTH), "vector": (2, WIDTH),
    }  # fmt: skip
    made: Tensors = {
        name: (draw.integers(-256, 257, shape) / 128).astype(np.float32)
        for name, shape in shapes.items()
    }
    mask = np.arange(LENGTH) < np.array([[5], [2]])
    return {**made, "step": np.array([3, 871]), "text_mask": mask}
