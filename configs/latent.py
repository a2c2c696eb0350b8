"""Latent diffusion: text -> latents of an autoencoder -> pictures (Rombach et al. 2022).

    python -m diffjax.main --config configs/latent.py --workdir runs/latent \
        --config.latent.autoencoder=runs/autoencoder

emoji (the default): pictures of 256 px as latents of 32 x 32 x 8, from an autoencoder that
configs/autoencoder.py trained; hours on 2 CPU cores. tiny: for tests, with an untrained
autoencoder; takes seconds.
"""

import ml_collections

from configs import common, pieces

PRESETS = ("emoji", "tiny")


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    config = pieces.latent_stage("latent", 256, text=pieces.text())
    config.latent.channels = 8  # as configs/autoencoder.py:emoji has
    config.model.canvas = 0  # channels of a grid that is computed from the text; in no paper
    common.for_a_laptop(config)
    config.sample.threshold = "none"
    config.model.update(
        kind="unet",
        width=48,
        mults=(1, 2),
        num_blocks=1,
        attention_levels=(1,),
        head_width=24,
        token_width=256,
        patch=2,
        canvas=64,
    )
    # As for the pixels of base64.py, most noise levels are high ones, where the text is needed, and
    # the network says x_0.
    config.diffusion.update(
        schedule="uniform", logsnr_min=-16.0, logsnr_max=6.0, times="stratified"
    )
    config.data.batch_size = 16
    config.optim.update(warmup_steps=300, decay="cooldown")
    config.train.update(num_steps=65_000, ema=("decay_0.9995",))
    config.sample.update(sampler="ddim", guidance_weight=2.0)
    if preset == "tiny":
        common.for_tests(config)
        config.data.update(size_px=16)
        config.latent.update(autoencoder="untrained", factor=2, channels=2)
        config.model.update(width=16, head_width=16, token_width=32, canvas=0, patch=1, mults=(1,))
        config.model.attention_levels = (0,)
    return config
