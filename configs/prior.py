"""Priors of DALL-E 2: from a text to the CLIP vector of a picture (Ramesh et al. 2022, sec. 2.2).

    python -m diffjax.main --config configs/prior.py --workdir runs/prior
    python -m diffjax.evaluate runs/prior --out prior.json

emoji (the default): a diffusion prior of 0.3 M parameters for the vectors of clip:emoji; minutes on
2 CPU cores. emoji_ar: an autoregressive one of the same size. tiny, tiny_ar: for tests, take
seconds.

At scale, for accelerators: paper and paper_ar are the networks of table 3, of 1.2 B and 0.8 B
parameters, with the paper's optimiser; karlo is the network of Karlo, for the vectors of CLIP
ViT-L/14. Their CLIPs and data are named by --config.vectors.clip=clip:PLACE and --config.data.name
(docs/prior.md).
"""

import ml_collections

from configs import common, pieces

PRESETS = ("emoji", "emoji_ar", "tiny", "tiny_ar", "paper", "paper_ar", "karlo")


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    if preset in ("paper", "paper_ar", "karlo"):
        return at_scale(preset)
    autoregressive = preset.endswith("_ar")
    stage = pieces.prior_ar_stage if autoregressive else pieces.prior_stage
    config = stage("prior", 64)
    for_a_laptop(config)
    if autoregressive:
        config.autoregressive.update(components=32, buckets=64, dots=32)
        config.sample.update(guidance_weight=2.0, best_of=4)
    if preset.startswith("tiny"):
        for_tests(config, sampled=not autoregressive)
    if preset == "tiny_ar":
        config.autoregressive.update(components=4, buckets=8, dots=4)
        config.sample.num_images = 2
    return config


def for_a_laptop(config: ml_collections.ConfigDict) -> None:
    """A small network for the vectors of the drawings of emoji."""
    config.data.batch_size = 32
    config.model.update(width=96, num_blocks=2, num_heads=4, dtype="float32")
    config.optim.update(learning_rate=2e-3, warmup_steps=50, decay="cosine", weight_decay=0.06)
    config.train.update(
        num_steps=1_200, ema=("decay_0.99",), log_every=20, sample_every=1_200, save_every=400,
        snapshot_every=0, evaluate_examples=256,
    )  # fmt: skip


def for_tests(config: ml_collections.ConfigDict, sampled: bool) -> None:
    """Settings for tests, which take seconds."""
    common.for_tests(config, sampled)
    config.data.size_px = 16
    config.model.update(width=16, num_blocks=1, num_heads=2)
    config.train.update(evaluate_examples=8, snapshot_every=0)


def at_scale(preset: str) -> ml_collections.ConfigDict:
    """The paper's network and optimiser (table 3); karlo has another network and CLIP."""
    stage = pieces.prior_ar_stage if preset == "paper_ar" else pieces.prior_stage
    config = stage("prior", 256)
    config.data.update(name="", batch_size=4096)
    config.vectors.update(clip="", width=1024)
    config.text.update(encoder="clip:", width=1024, max_tokens=256)
    config.model.remat = "products"
    config.optim.update(learning_rate=1.1e-4, weight_decay=6e-2, b2=0.96, eps=1e-6)
    config.train.update(
        num_steps=600_000, ema=("decay_0.9999",), log_every=100, sample_every=10_000,
        save_every=5_000, snapshot_every=0,
    )  # fmt: skip
    if preset == "paper_ar":
        return config
    config.vectors.scale = 17.2
    config.sample.update(num_steps=64)
    if preset == "karlo":
        config.vectors.update(width=768, scale=0.0)
        config.text.update(width=768, max_tokens=77, drop=0.2)
        config.model.num_blocks = 20
        config.sample.update(num_steps=25, guidance_weight=4.0)
    return config
