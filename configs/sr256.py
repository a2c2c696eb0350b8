"""The first super-resolution stage: text and 64 x 64 -> 256 x 256.

    python -m diffjax.main --config configs/sr256.py --workdir runs/sr256

emoji (the default): an Efficient U-Net of 1.5 M parameters, trained on whole pictures, because
crops do not show that the rims are white; a quarter of an hour on 2 CPU cores. fine: goes on from
the one that ships, or --config.start.base=runs/sr256, at a lower rate; that may lack the last
layers. After both it is the second stage of the cascade that ships. demo: trained on crops of 128
px; it attends only to the text, so it can sample whole pictures. tiny: for tests.

At the paper's scale, for accelerators: paper: app. F.2, 459 M parameters, with self-attention at
the lowest level; 5 days on 256 TPU v5e at 35 % of their peak (docs/scale.md). 600m: that of
NVIDIA's JAX-Toolbox, 617 M.
"""

import ml_collections

from configs import common, efficient, pieces

PRESETS = ("emoji", "fine", "demo", "tiny", "paper", "600m")
AT_SCALE = {"paper": efficient.PAPER, "600m": efficient.TOOLBOX}


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    told = dict(text=pieces.text(), low_res=pieces.low_res(64))
    config = pieces.stage("sr256", 256, **told)
    if preset in AT_SCALE:
        common.for_a_pod(config)
        config.model.update(attention="self", **AT_SCALE[preset])
        config.optim.name = "adam"
        config.sample.update(num_steps=128, guidance_weight=8.0, aug_level=0.1)
        return config
    config.model.from_low_res = False
    common.for_a_laptop(config)
    config.data.batch_size = 8
    config.model.update(
        kind="efficient_unet",
        width=64,
        mults=(1, 2),
        num_blocks=(1, 2),
        attention="cross",
        head_width=32,
        token_width=128,
        patch=4,
    )
    config.sample.update(num_steps=16, guidance_weight=1.0, aug_level=0.1)
    if preset in ("emoji", "fine"):
        # The network is too narrow to pass on the small picture, so it predicts a difference to it.
        # The layers of pixels after the patches took it from 2.6 to 4.5 dB above bicubic.
        config.model.update(width=48, head_width=24, from_low_res=True, finish=16)
        # The first stage's pictures are seldom noisier. With levels up to 1, most of the training
        # is on small pictures that hardly help, and results were worse than bicubic enlargement.
        config.low_res.max_aug_level = 0.3
        config.diffusion.times = "stratified"
        config.optim.update(warmup_steps=300, decay="cooldown")
        config.train.update(num_steps=7_000, ema=("decay_0.998",))
        config.sample.update(sampler="ddim", num_steps=4, aug_level=0.02)  # as base64's
    if preset == "fine":
        config.start = pieces.start()
        config.start.base = "shipped"
        config.data.batch_size = 4
        config.optim.update(learning_rate=5e-4, warmup_steps=50)
        config.train.update(num_steps=900, ema=("decay_0.99",), save_every=100)
    if preset == "demo":
        common.for_minutes(config)
        config.data.update(crop_px=128, batch_size=16)
        config.train.num_steps = 400
    if preset == "tiny":
        common.for_tests(config)
        config.data.update(size_px=64, crop_px=32)
        config.low_res.size_px = 16
        config.model.update(width=16, head_width=16, token_width=32)
    return config
