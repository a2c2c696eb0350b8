"""Autoencoders: pictures as latents, in which diffusion is cheaper (Rombach et al. 2022).

    python -m diffjax.main --config configs/autoencoder.py --workdir runs/autoencoder

emoji (the default): drawings of 256 px as latents of 32 x 32 x 8; about two hours on 2 CPU cores.
fine: from there on, the decoder alone learns, by the perceptual distance too, so its latents stay
what they were. It needs `pip install diffjax[lite0]`, and half an hour on one core.
tiny: for tests, takes seconds.

At the paper's scale, for accelerators, with the numbers of its released configs: kl_f4, kl_f8,
kl_f16 and kl_f32 draw the latent from a Gaussian, vq_f4 and vq_f8 have a codebook; the number says
how many times shorter the latent's side is. kl_f8 is Stable Diffusion's. Their data are not here:
--config.data.name=... names yours. The perceptual distance is that of EfficientNet-lite0;
--config.autoencoding.perceptual=lpips:FOLDER takes the paper's, of VGG16.
"""

import ml_collections

from configs import common, pieces

# Of models/first_stage_models: multipliers, levels with attention, latent channels, codes, the
# adversary's first step and its weight.
AT_SCALE = {
    "kl_f4": ((1, 2, 4), (), 3, 0, 50_001, 0.5),
    "kl_f8": ((1, 2, 4, 4), (), 4, 0, 50_001, 0.5),
    "kl_f16": ((1, 1, 2, 2, 4), (4,), 16, 0, 50_001, 0.5),
    "kl_f32": ((1, 1, 2, 2, 4, 4), (4, 5), 64, 0, 50_001, 0.5),
    "vq_f4": ((1, 2, 4), (), 3, 8_192, 0, 0.75),
    "vq_f8": ((1, 2, 2, 4), (3,), 4, 16_384, 0, 0.6),
}
PRESETS = ("emoji", "fine", "tiny", *AT_SCALE)
# The encoder stays as it is.
STILL = (r"autoencoder/(encoder|moments)/.* rate=0",)


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    if preset in AT_SCALE:
        return at_scale(preset)
    config = pieces.autoencoder_stage("autoencoder", 256)
    config.data.update(batch_size=8, crop_px=64, flip=True)
    config.model.update(
        channels=48, mults=(1, 2, 3), num_blocks=1, patch=2, latent=8, dtype="float32"
    )
    config.autoencoding.update(perceptual="", adversary_weight=0.0, kl_weight=1e-5)
    config.optim.update(
        learning_rate=1e-3, warmup_steps=200, decay="cosine", b1=0.9, b2=0.99, clip_norm=1.0
    )
    config.train.update(
        num_steps=9_000, ema=("decay_0.999",), log_every=50, sample_every=2_000, save_every=500,
        snapshot_every=0, evaluate_every=2_000, evaluate_examples=64,
    )  # fmt: skip
    if preset == "fine":
        config.start.base = "shipped"
        config.autoencoding.update(perceptual="lite0", perceptual_weight=0.2, kl_weight=0.0)
        config.optim.update(learning_rate=2e-4, warmup_steps=50, groups=STILL)
        config.train.update(num_steps=1_500, ema=("decay_0.99",), log_every=20, save_every=100)
    if preset == "tiny":
        common.for_tests(config, sampled=False)
        config.data.update(size_px=16, crop_px=0)
        config.model.update(channels=8, mults=(1, 2), patch=1, latent=2)
        config.autoencoding.update(
            perceptual="", adversary_weight=0.5, adversary_start=2, adversary_layers=1,
            adversary_width=8,
        )  # fmt: skip
        config.train.update(evaluate_every=0, evaluate_examples=8)
        config.sample.num_images = 2
    return config


def at_scale(preset: str) -> ml_collections.ConfigDict:
    """The networks, losses and optimiser of the released configs, for 256 px.

    Their rate of 4.5e-6 is for each example of a batch; theirs had 12 on each of 8 GPUs or so.
    """
    mults, attention, latent, codes, start, weight = AT_SCALE[preset]
    config = pieces.autoencoder_stage("autoencoder", 256)
    config.data.update(name="", batch_size=96, aspect="random", flip=True)
    config.model.update(
        mults=mults, attention_levels=attention, latent=latent, codes=codes, remat="products"
    )
    config.autoencoding.update(adversary_start=start, adversary_weight=weight)
    config.optim.learning_rate = 4.5e-6 * config.data.batch_size
    config.train.update(
        num_steps=400_000, log_every=100, sample_every=10_000, save_every=5_000, snapshot_every=0
    )
    return config
