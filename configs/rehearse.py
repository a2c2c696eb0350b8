"""Rehearsal: a stage of few steps learns on its own way from noise (docs/rehearsal.md).

    python -m diffjax.main --config configs/rehearse.py --workdir runs/few/base64
    python -m diffjax.sample --stages runs/few/base64 --prompt "a red apple"

emoji (the default): goes on from the 64 px stage of the shipped cascade, in 4 steps without
guidance. sr256: from its second stage, in 2 steps; half of the small pictures are blurred, as those
of a first stage are. own: as emoji for the stage of a workdir or an export, named after a second
colon. tiny: for tests, takes seconds.
"""

import ml_collections

from configs import base64, pieces, sr256
from diffjax.build.stages import bases

PRESETS = ("emoji", "sr256", "own", "tiny")
WITH_PLACE = True


def get_config(which: str = "emoji") -> ml_collections.ConfigDict:
    preset, _, where = which.partition(":")
    where = where or bases.SHIPPED
    if preset == "own":
        config = bases.first_of(where)
        config.model.finish = config.model.get("finish", 0)
    elif preset == "sr256":
        config = sr256.get_config("fine")
    else:
        config = base64.get_config("fine" if preset == "emoji" else "tiny")
    if preset == "emoji":
        # A caption without a style means two drawings, and their mean is neither.
        config.data.caption_words = ("openmoji", "twemoji")
    config.rehearsal = pieces.rehearsal()
    config.start = pieces.start()
    config.start.base = where
    config.sample.update(
        sampler="ddim", noise=0.0, guidance_weight=1.0, spacing="uniform", num_steps=4
    )  # fmt: skip
    config.diffusion.times = "stratified"
    # What no condition says, a way cannot know; the mean of all drawings is not to be learned.
    for section in ("text", "tokens", "classes", "embedding"):
        if section in config:
            config[section].drop = 0.0
    if preset == "tiny":
        config.start.base = ""
        config.sample.num_steps = 2
        config.rehearsal.perceptual = ""
        return config
    config.optim.update(
        learning_rate=5e-4, warmup_steps=100, decay="cooldown", clip_norm=1.0, groups=()
    )
    config.train.update(
        num_steps=2_300, ema=("decay_0.998",), log_every=50, sample_every=500, save_every=500,
        evaluate_every=0, snapshot_every=0,
    )  # fmt: skip
    if preset == "sr256":
        config.low_res.update(degrade="blur", max_aug_level=0.2)
        config.sample.num_steps = 2
        config.train.update(num_steps=700, ema=("decay_0.99",))
    return config
