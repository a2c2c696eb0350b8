"""The second super-resolution stage: text and 256 x 256 -> 1024 x 1024.

    python -m diffjax.main --config configs/sr1024.py --workdir runs/sr1024

emoji (the default): trained on crops of 256 px with their 64 px counterparts, as Imagen's is
(app. F.3), on the linear schedule. Making the data set at 1024 px takes about 15 minutes, once. The
time of the training has not been measured. tiny: for tests, takes seconds.

At the paper's scale, for accelerators. paper: app. F.3, 457 M parameters, attends only to the text,
trained on crops of 256 px; 5 days on 256 TPU v5e at 35 % of their peak (docs/scale.md). 600m: the
blocks of JAX-Toolbox in the same form, 614 M.
"""

import ml_collections

from configs import common, efficient, pieces

PRESETS = ("emoji", "tiny", "paper", "600m")
AT_SCALE = {"paper": efficient.PAPER, "600m": efficient.TOOLBOX}


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    told = dict(text=pieces.text(), low_res=pieces.low_res(256))
    config = pieces.stage("sr1024", 1024, **told)
    if preset in AT_SCALE:
        common.for_a_pod(config)
        config.data.crop_px = 256
        config.diffusion.schedule = "linear"  # app. F.3
        config.model.update(attention="cross", **AT_SCALE[preset])
        config.optim.name = "adam"
        config.sample.update(num_steps=32, guidance_weight=1.0, aug_level=0.1)
        return config
    common.for_a_laptop(config)
    config.data.update(crop_px=256, batch_size=8)
    config.diffusion.schedule = "linear"
    config.model.update(
        kind="efficient_unet",
        width=32,
        mults=(1, 2),
        num_blocks=(1, 2),
        attention="cross",
        head_width=32,
        token_width=128,
        patch=4,
    )
    config.train.num_steps = 20_000
    config.sample.update(num_steps=8, guidance_weight=1.0, aug_level=0.1)
    if preset == "tiny":
        common.for_tests(config)
        config.data.update(size_px=128, crop_px=32)
        config.low_res.size_px = 32
        config.model.update(width=16, head_width=16, token_width=32)
    return config
