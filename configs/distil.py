"""Distillation: a stage learns to draw in few steps what it draws in many (docs/distillation.md).

    python -m diffjax.main --config configs/distil.py --workdir runs/four
    python -m diffjax.main --config configs/distil.py:halve:runs/four --workdir runs/two
    python -m diffjax.sample --stages runs/two --prompt "a red apple"

emoji (the default): the 64 px stage of the shipped cascade learns to take 4 steps, with its
guidance in them. own: the same for the stage of a workdir or an export, named after a second colon.
halve: half as many steps as that student takes. tiny: for tests, takes seconds.
"""

import ml_collections

from configs import base64, pieces
from diffjax.build.stages import bases
from diffjax.build.stages.bases import SHIPPED, UNTRAINED
from diffjax.core.errors import require

PRESETS = ("emoji", "own", "halve", "tiny")
WITH_PLACE = True


def get_config(which: str = "emoji") -> ml_collections.ConfigDict:
    preset, _, where = which.partition(":")
    config = of_teacher(where or (UNTRAINED if preset == "tiny" else SHIPPED))
    steps = config.sample.num_steps
    config.distil.guidance_weight = config.sample.guidance_weight
    config.sample.update(
        sampler="ddim", noise=0.0, guidance_weight=1.0, spacing="uniform", num_steps=4
    )  # fmt: skip
    config.diffusion.update(weighting="truncated_snr", times="stratified")
    if preset == "emoji":
        config.distil.teacher_steps = steps
    if preset == "halve":
        require(steps % 2 == 0, "sample.num_steps", steps, f"of {where or SHIPPED} has no half")
        config.sample.num_steps = steps // 2
        config.distil.teacher_steps = steps
    if preset == "tiny":
        config.sample.num_steps = 2
        config.distil.teacher_steps = 4
        return config
    config.optim.update(
        learning_rate=2e-4, warmup_steps=100, decay="cosine", clip_norm=1.0, groups=()
    )
    config.train.update(
        num_steps=2_400, ema=("decay_0.99",), log_every=50, sample_every=500, save_every=500,
        evaluate_every=0, snapshot_every=0,
    )  # fmt: skip
    return config


def of_teacher(where: str) -> ml_collections.ConfigDict:
    """The config of the teacher, the first stage of `where`, with a section `distil`."""
    config = base64.get_config("tiny") if where == UNTRAINED else bases.first_of(where)
    if "lora" in config:  # its changes are merged into the teacher
        del config["lora"]
    config.distil = pieces.distil(where)
    return config
