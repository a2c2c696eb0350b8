"""DDPM: a U-Net that predicts noise at the 1,000 steps of a chain (Ho et al. 2020).

    python -m diffjax.main --config configs/ddpm.py --workdir runs/ddpm
    python -m diffjax.sample --workdir runs/ddpm --steps 1000 --spacing trailing --class 0-9

digits (the default): pictures of 8 x 8 of ten classes, 0.2 M parameters; five minutes on 2
CPU cores.
emoji: drawings of 32 px, told nothing. tiny: for tests, takes seconds.

The paper's, for accelerators: cifar10, 35,746,307 parameters at 32 px, and lsun, 113,673,219 at
256 px. Its data are yours: --config.data.name=... Their FID is 3.17 on CIFAR-10 and 4.90 on
LSUN Bedroom with 114 M (tables 1 and 3). They are the networks of google/ddpm-cifar10-32 and
google/ddpm-bedroom-256, which diffjax.sample --checkpoint reads.
"""

import ml_collections

from configs import pieces
from configs.digits import NAMES

PRESETS = ("digits", "emoji", "tiny", "cifar10", "lsun")


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
    size_px = {"digits": 8, "emoji": 32, "tiny": 8, "cifar10": 32, "lsun": 256}[preset]
    told = {} if size_px > 8 else dict(classes=pieces.classes(10, NAMES))
    config = pieces.stage("ddpm", size_px, **told)
    config.data.caption_key = ""
    config.model.update(
        kind="unet", width=128, mults=(1, 2, 2, 2), num_blocks=2, attention_levels=(1,),
        **network(),
    )  # fmt: skip
    config.diffusion.update(**chain())
    config.optim.update(learning_rate=2e-4, warmup_steps=5_000)
    config.sample.update(
        sampler="ddpm", noise=1.0, spacing="trailing", num_steps=1000, threshold="static",
        guidance_weight=1.0,
    )  # fmt: skip
    if size_px > 8 and preset != "emoji":
        config.model.update(dtype="bfloat16", remat="products")
        config.data.update(name="cifar10", batch_size=128, flip=True)
        config.model.dropout = 0.1 if preset == "cifar10" else 0.0
        config.train.update(num_steps=800_000, sample_every=20_000, save_every=5_000)
    if preset == "lsun":
        config.data.update(name="", batch_size=64)
        config.model.update(mults=(1, 1, 2, 2, 4, 4), attention_levels=(4,))
        config.optim.learning_rate = 2e-5
        config.train.num_steps = 2_400_000  # of Bedroom
        config.sample.noise = 0.0
    if preset in ("digits", "emoji", "tiny"):
        here(config, preset)
    return config


def network() -> dict[str, object]:
    """How DDPM's network differs from Imagen's, beside its sizes (app. B, and its code)."""
    return dict(
        token_width=1,  # there is no text
        head_width=0,
        num_heads=1,
        norm_groups=32,
        norm_eps=1e-6,
        scale_shift=False,
        attention_bias=True,
        heads_first=False,  # with one head it is the same
        resample="conv_after",
        steps=1000,  # told the step of the chain: 0 to 999
        sine_first=True,
        embedding_width=0,  # 0: four widths
        dropout=0.0,
        null_class=True,
    )


def chain() -> dict[str, object]:
    """L_simple at the 1,000 steps of linear betas (sec. 4)."""
    return dict(
        schedule="linear", discrete=True, num_levels=1000, predict="eps", weighting="eps",
        times="uniform",
    )  # fmt: skip


def here(config: ml_collections.ConfigDict, preset: str) -> None:
    """The sizes and settings of runs on 2 CPU cores, for any of the ancestors.

    preset: digits, emoji or tiny; its data are those of the config's side.
    """
    config.model.update(
        width=16, mults=(1, 2), num_blocks=1, attention_levels=(1,), norm_groups=8, dtype="float32"
    )
    config.optim.update(learning_rate=1e-3, warmup_steps=100, decay="cooldown")
    config.train.update(
        ema=("decay_0.999",), log_every=100, sample_every=1_000, save_every=1_000,
        snapshot_every=1_000,
    )  # fmt: skip
    if preset == "emoji":
        config.data.update(name="emoji/32", batch_size=32)
        config.model.update(width=48, mults=(1, 2, 2))
        config.train.num_steps = 20_000
    else:
        config.data.update(name="digits", batch_size=64)
        config.optim.learning_rate = 2e-3
        config.train.update(num_steps=3_000, sample_every=3_000)
        config.sample.update(num_images=40)
    if preset == "tiny":
        config.data.batch_size = 8
        config.model.dropout = 0.1
        config.optim.learning_rate = 1e-3
        config.diffusion.num_levels = 50
        config.train.update(num_steps=4, log_every=2, sample_every=4, save_every=2)
        config.sample.update(num_steps=2, num_images=4)
