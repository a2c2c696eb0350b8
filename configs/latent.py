"""Latent diffusion: text -> latents of an autoencoder -> pictures (Rombach et al. 2022).

    python -m diffjax.main --config configs/latent.py --workdir runs/latent

emoji (the default): pictures of 256 px as latents of 32 x 32 x 8, of the autoencoder that ships;
--config.latent.autoencoder=runs/autoencoder takes one that configs/autoencoder.py trained. Hours on
2 CPU cores. tiny: for tests, with an untrained autoencoder; takes seconds.

sd1: Stable Diffusion 1, 859,520,964 parameters, with the options of its training, for accelerators.
Autoencoder and text encoder are those of a checkpoint of others, in one place:
--config.latent.autoencoder=diffusers:PLACE/vae --config.text.encoder=sd:PLACE
(docs/stable_diffusion.md).

With a diffusion transformer, see configs/dit.py: dit_b is DiT-B/2 told text, trained as a flow;
dit_xl is the paper's DiT-XL/2 told classes, 675 M parameters; tiny_dit is for tests.
"""

import ml_collections

from configs import common, dit, pieces

PRESETS = ("emoji", "tiny", "sd1", *dit.DIT_PRESETS)


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    if preset == "sd1":
        return sd1()
    if preset in dit.DIT_PRESETS:
        return dit.get_config(preset)
    config = pieces.latent_stage("latent", 256, text=pieces.text())
    config.latent.update(autoencoder="shipped", channels=8)
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


def sd1() -> ml_collections.ConfigDict:
    """The network of v1-inference.yaml, and the options of training that its card says."""
    text = pieces.text()
    text.update(encoder="sd:", width=768, max_tokens=77)
    config = pieces.latent_stage("latent", 512, text=text)
    config.data.update(name="", batch_size=2048, aspect="centre")
    config.latent.update(scale=(0.18215,), shift=(0.0,))
    config.model = ml_collections.ConfigDict(
        dict(
            kind="latent_unet", width=320, mults=(1, 2, 4, 4), num_blocks=2,
            attention_levels=(0, 1, 2), num_heads=8, head_width=64, remat="products",
            dtype="bfloat16",
        )
    )  # fmt: skip
    config.diffusion.update(schedule="quadratic", predict="eps", weighting="eps")
    config.optim.update(
        name="adamw", learning_rate=1e-4, warmup_steps=10_000, weight_decay=0.01, clip_norm=0.0
    )
    config.train.num_steps = 500_000
    config.sample.update(
        sampler="ddim", spacing="leading_1", num_steps=50, guidance_weight=7.5, threshold="none"
    )
    return config
