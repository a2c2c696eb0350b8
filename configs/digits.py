"""Handwritten digits by class, the smallest thing to train: 1,797 pictures of 8 x 8 pixels.

    python -m diffjax.main --config configs/digits.py --workdir runs/digits

classes (the default): 0.8 M parameters, predicts x_0, a class condition dropped in a tenth of the
rows for guidance; under two minutes on 2 CPU cores. Of 500 samples a classifier trained on the true
digits names at least 95 % as asked. tiny: for tests, seconds. The data come with scikit-learn
(requirements-dev.txt).
"""

import ml_collections

from configs import common

PRESETS = ("classes", "tiny")


def get_config(preset: str = "classes") -> ml_collections.ConfigDict:
    config = common.stage_config("digits", 8)
    del config.text
    del config.low_res
    config.classes = ml_collections.ConfigDict(dict(num=10, drop=0.1))
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
    if preset == "tiny":
        config.data.batch_size = 8
        config.model.width = 16
        config.train.update(num_steps=4, log_every=2, sample_every=4, save_every=2)
        config.sample.update(num_steps=2, num_images=4)
    return config
