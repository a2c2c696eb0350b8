"""Handwritten digits by class: 1,797 pictures of 8 x 8 pixels, the smallest model to train.

    python -m diffjax.main --config configs/digits.py --workdir runs/digits

    python -m diffjax.sample --workdir runs/digits --class 0-9 --seeds 0-3

classes (the default): 0.8 M parameters, predicts x_0, with a class condition that is dropped in a
tenth of the rows for guidance; trains in two minutes on 2 CPU cores. A classifier that was trained
on the true digits recognises at least 95 % of 500 samples as the digit that was asked for.
unconditional: has no condition. holes: gets a picture with a hole, which it fills. tiny,
tiny_unconditional, tiny_holes: for tests, take seconds. The data come with scikit-learn
(requirements-dev.txt).
"""

import ml_collections

from configs import common, pieces

PRESETS = ("classes", "unconditional", "holes", "tiny", "tiny_unconditional", "tiny_holes")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def get_config(preset: str = "classes") -> ml_collections.ConfigDict:
    told = {
        "unconditional": {},
        "holes": dict(mask=pieces.mask()),
    }.get(preset.removeprefix("tiny_"), dict(classes=pieces.classes(10, NAMES)))
    config = pieces.stage("digits", 8, **told)
    common.for_a_laptop(config)
    config.data.update(name="digits", batch_size=64)
    config.model.update(
        kind="unet",
        width=32,
        mults=(1, 2),
        num_blocks=1,
        attention_levels=(),
        head_width=16,
        token_width=16,
        patch=1,
    )
    config.optim.update(learning_rate=2e-3, warmup_steps=100, decay="cooldown")
    config.train.update(num_steps=700, ema=("decay_0.99",), log_every=100, sample_every=700)
    config.sample.update(
        sampler="ddim", num_steps=16, guidance_weight=2.0, num_images=40, threshold="static"
    )
    if preset.startswith("tiny"):
        config.data.batch_size = 8
        config.model.width = 16
        config.train.update(num_steps=4, log_every=2, sample_every=4, save_every=2)
        config.sample.update(num_steps=2, num_images=4)
    return config
