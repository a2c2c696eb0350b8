"""The decoder of DALL-E 2: a CLIP's vector of a picture, and its text -> 64 x 64.

    python -m diffjax.main --config configs/decoder.py --workdir runs/unclip/decoder

Of Ramesh et al. 2022, sec. 2.1. emoji (the default): the network of base64.py, told the vector by
the CLIP that ships beside the text; 3.9 M parameters, hours on 2 CPU cores. tiny: for tests, takes
seconds.
"""

import ml_collections

from configs import common, pieces

PRESETS = ("emoji", "tiny")
VECTOR = "image_vector"  # the column, which a prior makes of the text (configs/prior.py)


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    config = pieces.stage("decoder", 64, text=pieces.text(), **told("clip:emoji", 128))
    config.text.drop = 0.5
    config.model.canvas = 0  # channels of a grid that is computed from the conditions; in no paper
    common.for_a_laptop(config)
    # As base64.py: most noise levels are high ones, where the conditions are needed.
    config.diffusion.update(
        schedule="uniform", logsnr_min=-16.0, logsnr_max=6.0, times="stratified"
    )
    config.model.update(
        kind="unet",
        width=48,
        mults=(1, 2),
        num_blocks=1,
        attention_levels=(1,),
        head_width=24,
        token_width=256,
        patch=4,
        canvas=64,
    )
    config.data.batch_size = 16
    config.optim.update(warmup_steps=300, decay="cooldown")
    config.train.update(num_steps=65_000, ema=("decay_0.9995",))
    config.sample.update(sampler="ddim", guidance_weight=2.0)
    if preset == "tiny":
        common.for_tests(config)
        config.data.size_px = 16
        config.model.update(width=16, head_width=16, token_width=32, canvas=0)
        config.train.ema = ("decay_0.999",)
    return config


def told(clip: str, width: int) -> dict[str, ml_collections.ConfigDict]:
    """The vector of the picture, without which a tenth of the examples trains (sec. 2.1)."""
    return dict(vectors=pieces.vectors(clip, width), embedding=pieces.embedding(VECTOR, width))
