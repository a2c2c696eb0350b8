"""The base stage: text -> 64 x 64.

    python -m diffjax.main --config configs/base64.py --workdir runs/base64

emoji (the default): about 7,000 captioned pictures, a net of 3.9 M parameters that works at
16 x 16 (pixel-unshuffled by 4); two and a quarter hours on 2 CPU cores, at 115 to 130 images/s. It
is the first stage of the cascade that ships. fine: goes on from there or from
--config.start.base=runs/base64, with convolutions of single pixels after the patches. demo: 3.7 M
parameters without a canvas, trained on 16 things. tiny: for tests, takes seconds.

At the paper's scale, for accelerators; `--mode=compile --topology=v5e:16x16` plans without one:
2b: Imagen's base network (app. F.1), 2.26 B parameters; 15 days on 256 TPU v5e at 35 % of their
peak (docs/scale.md). 500m: that of NVIDIA's JAX-Toolbox, 503 M
(width 256, 4 heads). 300m: 294 M, for ablations as in app. D; the paper does not say its widths.
"""

import ml_collections

from configs import common, pieces

PRESETS = ("emoji", "fine", "demo", "tiny", "2b", "500m", "300m")
# Imagen, app. F.1: widths 512 x (1, 2, 3, 4), 3 blocks a level, attention to pixels and text at 32,
# 16 and 8 px, heads of 64. The token width is NeMo's for 2b and JAX-Toolbox's for the others.
AT_SCALE = {
    "2b": dict(width=512, token_width=2048, num_heads=0),  # heads as many as fill the channels
    "500m": dict(width=256, token_width=1024, num_heads=4),
    "300m": dict(width=192, token_width=1024, num_heads=4),
}


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    config = pieces.stage("base64", 64, text=pieces.text(), low_res=pieces.low_res())
    config.model.canvas = 0  # channels of a grid that is computed from the text; in no paper
    if preset in AT_SCALE:
        common.for_a_pod(config)
        config.model.update(
            kind="unet",
            mults=(1, 2, 3, 4),
            num_blocks=3,
            attention_levels=(1, 2, 3),
            head_width=64,
            **AT_SCALE[preset],
        )
        config.optim.name = "adafactor"  # Imagen, sec. 4.1: Adam for the other stages
        config.sample.guidance_weight = 1.35  # the run of table 1
        config.mesh.fsdp = 8
        return config
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
    if preset in ("emoji", "fine"):
        # The embedding of the text is wide, because it must tell apart all names. The rest is
        # narrow, so that more pictures can be seen in the same time.
        config.model.update(width=48, head_width=24, token_width=256, canvas=64)
        config.data.batch_size = 16
        # Drawings are flat, so they can be told apart through much noise, and only at higher noise
        # levels does the network have to use the text. Here 45 % of the levels are below a log SNR
        # of -6. On the cosine schedule it is 3 %; with a shift that gave 10 %, a network of this
        # kind learned far more slowly.
        config.diffusion.update(
            schedule="uniform", logsnr_min=-16.0, logsnr_max=6.0, times="stratified"
        )
        config.optim.update(warmup_steps=300, decay="cooldown")
        config.train.update(num_steps=65_000, ema=("decay_0.9995",))
        # In more steps the errors of this network add up: FD-lite0 is lower at 8 than at 16 or 32.
        config.sample.update(sampler="ddim", num_steps=8, guidance_weight=2.0)
    if preset == "fine":
        config.model.finish = 16
        config.start = pieces.start()
        config.start.base = "shipped"
        config.optim.learning_rate = 5e-4
        config.train.update(num_steps=4_500, ema=("decay_0.998",))
    if preset == "demo":
        common.for_minutes(config)
        config.data.batch_size = 16
        config.train.num_steps = 900
    if preset == "tiny":
        common.for_tests(config)
        config.data.update(size_px=16)
        config.model.update(width=16, head_width=16, token_width=32)
    return config
