"""LoRA: teaches a trained stage a new thing or style from a few pictures (docs/lora.md).

    python -m diffjax.main --config configs/lora.py --workdir runs/lora
    python -m diffjax.main --config configs/lora.py:dreambooth:runs/base64 --workdir runs/dog \\
        --config.data.name=folder:photos --config.lora.prior=folder:runs/class

emoji (the default): the drawing style of eight pictures in examples/glyphs, which the shipped
cascade has not seen, beside drawings that it has; minutes on 2 quiet CPU cores. dreambooth: a thing
of your own, with pictures of its class beside it (Ruiz et al. 2023). Both change the 64 px stage of
the shipped cascade, or what is named after a second colon: a workdir, an export, or a Stable
Diffusion of others. tiny: for tests, takes seconds.
"""

from pathlib import Path

import ml_collections

from configs import base64, latent, pieces
from diffjax.build.others import stable_diffusion
from diffjax.build.stages import bases, places
from diffjax.build.stages.bases import SHIPPED, UNTRAINED
from diffjax.core.command import path

PRESETS = ("emoji", "dreambooth", "tiny")
WITH_PLACE = True
# A style is in all of a small network: its attention alone learns some of it.
EVERYWHERE = (
    "attention", r"(.*/)?res/conv_.*kernel",
    r"(.*/)?(res/scale_shift|conditioning/.*|head/conv)/kernel",
)  # fmt: skip
GLYPHS = Path(__file__).resolve().parent.parent / "examples/glyphs"


def get_config(which: str = "emoji") -> ml_collections.ConfigDict:
    preset, _, where = which.partition(":")
    config = of_base(where or (UNTRAINED if preset == "tiny" else SHIPPED))
    if preset == "tiny":
        config.lora.rank = 2
        return config
    config.data.update(
        name="", split="train", validation=0.0, names=(), validation_names=(), captions="either",
        embeddings="", image_key="image", caption_key="captions", flip=False, workers=0,
    )  # fmt: skip
    config.optim.update(
        name="adam", learning_rate=1e-4, warmup_steps=10, decay="constant", b1=0.9, b2=0.999,
        eps=1e-8, weight_decay=0.0, clip_norm=1.0, groups=(),
    )  # fmt: skip
    config.train.update(
        num_steps=500, accumulate=1, ema=("decay_0.98",), log_every=20, sample_every=100,
        evaluate_every=0, save_every=100, snapshot_every=0,
    )  # fmt: skip
    config.data.batch_size = 8
    if preset == "emoji":
        config.data.update(name=f"folder:{GLYPHS}", batch_size=32)
        config.lora.update(
            targets=EVERYWHERE, rank=16, prior="emoji/64", prior_share=0.75, prior_weight=3.0,
            prior_target="base",
        )  # fmt: skip
        config.optim.update(learning_rate=1e-3)
        config.train.update(num_steps=300)
    return config


def of_base(where: str) -> ml_collections.ConfigDict:
    """The config of the base, the first stage of `where`, with a section `lora`."""
    if where == UNTRAINED:
        config = base64.get_config("tiny")
    elif where != SHIPPED and places.is_others(path(where)):
        config = stable_diffusion.as_config(path(where), latent.get_config("sd1"), "lora.base")
    else:
        config = bases.first_of(where)
    config.lora = pieces.lora(where)
    return config
