"""The base stage: text -> 64 x 64.

    python -m diffjax.main --config configs/base64.py --workdir runs/base64

emoji (the default): about 6,900 captioned pictures, a net of 3.7 M parameters that works at
16 x 16 (pixel-unshuffled by 4); on 2 CPU cores about 40 images/s. tiny: for tests, seconds.
"""

import ml_collections

from configs import common

PRESETS = ("emoji", "tiny")


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    config = common.stage_config("base64", 64)
    common.for_a_laptop(config)
    config.model.update(
        kind="unet",
        width=64,
        mults=(1, 2),
        num_blocks=1,
        attention_levels=(1,),
        head_width=32,
        token_width=128,
        patch=4,
    )
    config.data.batch_size = 16
    config.train.num_steps = 40_000
    if preset == "tiny":
        common.for_tests(config)
        config.data.update(size_px=16)
        config.model.update(width=16, head_width=16, token_width=32)
    return config
