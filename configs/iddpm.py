"""Improved DDPM: 4,000 steps of a cosine schedule, a learned variance (Nichol & Dhariwal 2021).

    python -m diffjax.main --config configs/iddpm.py --workdir runs/iddpm
    python -m diffjax.sample --workdir runs/iddpm --steps 250 --spacing linspace --class 0-9

digits (the default): pictures of 8 x 8 of ten classes, L_hybrid; minutes on 2 CPU cores.
digits_vlb: the bound itself, at times drawn by their losses. emoji: drawings of 32 px, told
nothing. tiny, tiny_vlb: for tests, take seconds.

The paper's, for accelerators, as openai/improved-diffusion trained them: cifar10 and cifar10_vlb,
52,546,438 parameters; imagenet64, 273,049,350 and told the class; imagenet64_uncond and
imagenet64_vlb, 121,063,942; lsun, 113,676,678 at 256 px with linear betas; and upsampler,
279,792,390, from 64 to 256 px. diffjax.sample --checkpoint reads their released files.
"""

import ml_collections

from configs import ddpm, pieces
from configs.digits import NAMES

HERE = ("digits", "digits_vlb", "emoji", "tiny", "tiny_vlb")
PUBLISHED = (
    "cifar10", "cifar10_vlb", "imagenet64", "imagenet64_uncond", "imagenet64_vlb", "lsun",
    "upsampler",
)  # fmt: skip
PRESETS = (*HERE, *PUBLISHED)
SIZES_PX = {"cifar10": 32, "imagenet64": 64, "lsun": 256, "upsampler": 256, "emoji": 32}


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
    data = preset.removesuffix("_vlb").removesuffix("_uncond")
    size_px = SIZES_PX.get(data, 8)
    told = {}
    if preset in ("imagenet64", "upsampler"):
        told = dict(classes=pieces.classes(1000))
        told["classes"].drop = 0.0
    if size_px == 8:
        told = dict(classes=pieces.classes(10, NAMES))
    if preset == "upsampler":
        told["low_res"] = pieces.low_res(64)
        told["low_res"].max_aug_level = 0.0
    config = pieces.stage("iddpm", size_px, **told)
    config.data.caption_key = ""
    config.model.update(
        kind="unet", width=128, mults=(1, 2, 2, 2), num_blocks=3, attention_levels=(1, 2),
        **network(),
    )  # fmt: skip
    config.diffusion.update(**chain())
    config.optim.update(name="adamw", learning_rate=1e-4, warmup_steps=0, clip_norm=0.0)
    config.sample.update(
        sampler="ddpm_learned", spacing="linspace", num_steps=250, threshold="static",
        guidance_weight=1.0,
    )  # fmt: skip
    if preset in PUBLISHED:
        published(config, preset)
    if preset.endswith("_vlb"):
        config.diffusion.update(objective="vlb", times="importance")
    if preset in HERE:
        ddpm.here(config, data)
        if data != "tiny":
            config.diffusion.num_levels = 1000
    return config


def network() -> dict[str, object]:
    """How the network differs from Imagen's, beside its sizes."""
    return dict(
        ddpm.network(), num_heads=4, norm_eps=1e-5, scale_shift=True, heads_first=True,
        resample="conv", sine_first=False,
    )  # fmt: skip


def chain() -> dict[str, object]:
    """L_hybrid at the 4,000 steps of the cosine schedule (sec. 3)."""
    return dict(
        schedule="discrete_cosine", discrete=True, num_levels=4000, predict="eps", weighting="eps",
        objective="hybrid", vlb_weight=0.001, times="uniform",
    )  # fmt: skip


def published(config: ml_collections.ConfigDict, preset: str) -> None:
    """What openai/improved-diffusion's README says of each of its models."""
    config.model.update(dtype="bfloat16", remat="products")
    config.data.update(name="imagenet_resized/64x64", batch_size=128)
    config.train.update(num_steps=1_500_000, sample_every=20_000, save_every=5_000)
    if preset.startswith("cifar10"):
        config.data.update(name="cifar10", flip=True)
        config.model.dropout = 0.3
        config.train.num_steps = 500_000
        return
    config.model.update(mults=(1, 2, 3, 4), attention_levels=(2, 3))
    if preset == "imagenet64":
        config.model.update(width=192, null_class=False, steps=4000)
        config.data.batch_size = 2048
        config.optim.learning_rate = 3e-4
        config.train.num_steps = 250_000
    if preset in ("lsun", "upsampler"):
        config.data.name = ""
        config.diffusion.schedule = "linear"
        config.model.update(mults=(1, 1, 2, 2, 4, 4), num_blocks=2, attention_levels=(4, 5))
    if preset == "lsun":
        config.model.update(attention_levels=(4,), num_heads=1, scale_shift=False)
        config.diffusion.num_levels = 1000
        config.train.num_steps = 1_200_000
    if preset == "upsampler":
        config.model.update(width=192, null_class=False, steps=4000)
        config.data.batch_size = 256
        config.optim.learning_rate = 3e-4
        config.train.num_steps = 500_000
