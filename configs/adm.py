"""ADM: the network of guided diffusion, and its upsamplers (Dhariwal & Nichol 2021).

    python -m diffjax.main --config configs/adm.py --workdir runs/adm
    python -m diffjax.sample --workdir runs/adm --steps 250 --spacing linspace --class 0-9

digits (the default): pictures of 8 x 8 of ten classes; minutes on 2 CPU cores. emoji: drawings of
32 px, told nothing. upsampler_digits: 4 to 8 px. tiny, tiny_upsampler: for tests, take seconds.

The paper's (table 11), for accelerators, as openai/guided-diffusion trained them: 64, 128, 256 and
512 for ImageNet, of 295,904,454, 421,529,606, 553,838,086 and 558,997,638 parameters, told the
class; 256_uncond and lsun, told nothing; upsampler_256 (64 to 256 px, 311,795,910) and
upsampler_512 (128 to 512 px), told the class. diffjax.sample --checkpoint reads their released
files.
"""

import ml_collections

from configs import ddpm, iddpm, pieces
from configs.digits import NAMES

HERE = ("digits", "emoji", "upsampler_digits", "tiny", "tiny_upsampler")
# side, width, mults, attention levels (32, 16 and 8 px), batch, steps, learning rate; table 11
AT_SCALE = {
    "64": (64, 192, (1, 2, 3, 4), (1, 2, 3), 2048, 540_000, 3e-4),
    "128": (128, 256, (1, 1, 2, 3, 4), (2, 3, 4), 256, 4_360_000, 1e-4),
    "256": (256, 256, (1, 1, 2, 2, 4, 4), (3, 4, 5), 256, 1_980_000, 1e-4),
    "256_uncond": (256, 256, (1, 1, 2, 2, 4, 4), (3, 4, 5), 256, 1_980_000, 1e-4),
    # widths of 128 times these are the paper's 256 times 0.5, 1, 1, 2, 2, 4, 4
    "512": (512, 128, (1, 2, 2, 4, 4, 8, 8), (4, 5, 6), 256, 1_940_000, 1e-4),
    "lsun": (256, 256, (1, 1, 2, 2, 4, 4), (3, 4, 5), 256, 1_000_000, 1e-4),
    "upsampler_256": (256, 192, (1, 1, 2, 2, 4, 4), (3, 4, 5), 256, 500_000, 1e-4),
    # its README says 32 and 16 px, table 13 of the paper 32, 16 and 8; here as in the released file
    "upsampler_512": (512, 192, (1, 1, 2, 2, 4, 4), (4, 5), 256, 1_050_000, 1e-4),
}
PRESETS = (*HERE, *AT_SCALE)
SMALL_PX = {"upsampler_256": 64, "upsampler_512": 128, "upsampler_digits": 4, "tiny_upsampler": 4}


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
    size_px = AT_SCALE[preset][0] if preset in AT_SCALE else {"emoji": 32}.get(preset, 8)
    told = {}
    if preset not in ("256_uncond", "lsun", "emoji"):
        at_scale = preset in AT_SCALE
        told["classes"] = pieces.classes(1000) if at_scale else pieces.classes(10, NAMES)
        told["classes"].drop = 0.0 if at_scale else 0.1
    if preset in SMALL_PX:
        told["low_res"] = pieces.low_res(SMALL_PX[preset])
        told["low_res"].max_aug_level = 0.0
    config = pieces.stage("adm_upsampler" if preset in SMALL_PX else "adm", size_px, **told)
    config.data.caption_key = ""
    config.model.update(
        kind="unet", num_blocks=3 if preset == "64" else 2, **network(),
        width=192, mults=(1, 2, 3, 4), attention_levels=(1, 2, 3),
    )  # fmt: skip
    config.diffusion.update(**iddpm.chain())
    config.diffusion.update(num_levels=1000)
    config.optim.update(name="adamw", warmup_steps=0, clip_norm=0.0)
    config.sample.update(
        sampler="ddpm_learned", spacing="linspace", num_steps=250, threshold="static",
        guidance_weight=1.0,
    )  # fmt: skip
    if preset in AT_SCALE:
        at_scale_of(config, preset)
    else:
        ddpm.here(config, "digits" if preset == "upsampler_digits" else preset.split("_")[0])
        config.model.update(num_heads=0, head_width=16)
    return config


def network() -> dict[str, object]:
    """How ADM differs from Imagen's network, beside its sizes (table 3, app. H)."""
    return dict(iddpm.network(), num_heads=0, head_width=64, resample="block", heads_first=True)


def at_scale_of(config: ml_collections.ConfigDict, preset: str) -> None:
    """The sizes and the training of table 11, and what the README's flags say."""
    _, width, mults, attention_levels, batch_size, num_steps, rate = AT_SCALE[preset]
    config.model.update(
        width=width, mults=mults, attention_levels=attention_levels, dtype="bfloat16",
        remat="products",
    )  # fmt: skip
    if "classes" in config:
        config.model.null_class = False
    config.data.update(name="imagenet2012", batch_size=batch_size, flip=True, aspect="random")
    config.optim.learning_rate = rate
    config.train.update(num_steps=num_steps, sample_every=20_000, save_every=5_000)
    if preset != "64":
        config.diffusion.schedule = "linear"
    if preset == "64":
        config.data.name = "imagenet_resized/64x64"
        config.model.update(heads_first=False, dropout=0.1)
    if preset in ("128", "upsampler_256"):
        config.model.update(num_heads=4, head_width=0)
    if preset == "512":
        config.model.embedding_width = 1024
    if preset == "lsun":
        config.data.name = ""
        config.model.dropout = 0.1
