"""Diffusion transformers on latents: their sizes, and the presets of latent.py that have one."""

import ml_collections

from configs import common, pieces

# Peebles & Xie 2023, table 1; heads of 64, but for the largest.
SIZES = {
    "S": dict(width=384, num_blocks=12, head_width=64),
    "B": dict(width=768, num_blocks=12, head_width=64),
    "L": dict(width=1024, num_blocks=24, head_width=64),
    "XL": dict(width=1152, num_blocks=28, head_width=72),
}
DIT_PRESETS = ("tiny_dit", "dit_b", "dit_xl")


def get_config(preset: str) -> ml_collections.ConfigDict:
    """A preset of latent.py.

    dit_b: DiT-B/2 told text by joint attention, trained as a flow (Esser et al. 2024). dit_xl: the
    paper's DiT-XL/2, told classes, with its schedule and its learned variance; 675 M parameters.
    """
    told = dict(text=pieces.text()) if preset != "dit_xl" else dict(classes=pieces.classes(1000))
    config = pieces.latent_stage("latent", 256, **told)
    config.model.update(kind="dit", text="joint", qk_norm=True, token_width=512, dtype="float32")
    config.model.update(SIZES["XL" if preset == "dit_xl" else "B"], patch=2)
    as_a_flow(config)
    if preset == "tiny_dit":
        common.for_a_laptop(config)
        as_a_flow(config)
        common.for_tests(config)
        config.data.update(size_px=16)
        config.latent.update(autoencoder="untrained", factor=2, channels=2)
        config.model.update(width=16, num_blocks=2, head_width=8, token_width=32)
        return config
    config.model.update(dtype="bfloat16", scan=True, remat="products")
    config.data.update(name="", batch_size=256)
    config.latent.update(scale=(0.18215,), shift=(0.0,))  # of Stable Diffusion's autoencoder
    config.optim.update(name="adamw", warmup_steps=0, clip_norm=0.0)  # 1e-4 throughout
    config.train.update(num_steps=7_000_000, sample_every=10_000, save_every=5_000)
    if preset == "dit_b":
        config.text.update(encoder="google/t5-v1_1-base", width=768, max_tokens=77)
        config.optim.update(warmup_steps=1_000, clip_norm=1.0)
        return config
    config.data.update(caption_key="", flip=True)
    config.model.update(qk_norm=False)
    config.diffusion.update(
        predict="eps", weighting="eps", schedule="linear", times="uniform", objective="hybrid"
    )
    config.sample.update(
        sampler="ddpm_learned", spacing="trailing", num_steps=250, guidance_weight=1.5
    )
    return config


def as_a_flow(config: ml_collections.ConfigDict) -> None:
    """Straight paths, their velocity, times most of which lie in the middle, Euler's steps."""
    config.diffusion.update(schedule="flow", predict="flow", weighting="flow", times="logit_normal")
    config.sample.update(sampler="euler", num_steps=28, guidance_weight=4.0, threshold="none")
