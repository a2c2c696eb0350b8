"""ADM's classifiers of noised pictures, whose gradients guide (Dhariwal & Nichol 2021, sec. 4).

    python -m diffjax.main --config configs/adm_classifier.py --workdir runs/classifier

    python -m diffjax.sample --workdir runs/digits --class 0-9 --guide-by runs/classifier \\
        --classifier-guidance 2

digits (the default): the 1,797 pictures of configs/digits.py, a net of 0.6 M parameters; a minute
on 2 CPU cores. tiny: for tests, takes seconds.

64, 128, 256 and 512 are the paper's (table 12): pictures of that side of ImageNet's 1,000 classes,
which --config.data.name=... names; 65, 43, 54 and 54 M parameters. The noise is that of
configs/adm.py of the same size.
"""

import ml_collections

from configs import digits, pieces

PRESETS = ("digits", "tiny", "64", "128", "256", "512")
# For each side: entries of mults, blocks of a level, noise, weight decay, batch, peak of the
# learning rate and steps. The first level of 512 is half as wide as the network's `width`.
AT_SCALE = {
    "64": ((1, 2, 3, 4), 4, "discrete_cosine", 0.2, 1024, 6e-4, 300_000),
    "128": ((1, 1, 2, 3, 4), 2, "linear", 0.05, 256, 3e-4, 300_000),
    "256": ((1, 1, 2, 2, 4, 4), 2, "linear", 0.05, 256, 3e-4, 500_000),
    "512": ((1, 2, 2, 4, 4, 8, 8), 2, "linear", 0.05, 256, 3e-4, 500_000),
}


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
    if preset in AT_SCALE:
        return at_scale(preset)
    config = pieces.classifier_stage("classifier", 8, 10, digits.NAMES)
    config.data.update(name="digits", validation=0.1, batch_size=64, aspect="centre", flip=False)
    config.model.update(
        width=32, mults=(1, 2), num_blocks=1, attention_levels=(1,), head_width=16, norm_groups=0,
        steps=0, dtype="float32",
    )  # fmt: skip
    config.diffusion.update(schedule="cosine", discrete=False)
    config.classifying.min_crop = 1.0
    config.optim.update(learning_rate=2e-3, warmup_steps=50)
    config.train.update(
        num_steps=1_000, log_every=100, sample_every=1_000, save_every=500, snapshot_every=0,
        evaluate_every=500, evaluate_examples=256,
    )  # fmt: skip
    if preset == "tiny":
        config.data.batch_size = 8
        config.model.width = 16
        config.train.update(
            num_steps=4, log_every=2, sample_every=4, save_every=2, evaluate_every=0,
            evaluate_examples=16,
        )  # fmt: skip
        config.sample.num_images = 4
    return config


def at_scale(preset: str) -> ml_collections.ConfigDict:
    """The paper's networks and training (Dhariwal & Nichol 2021, table 12)."""
    mults, num_blocks, noise, weight_decay, batch_size, rate, num_steps = AT_SCALE[preset]
    config = pieces.classifier_stage("classifier", int(preset), 1_000)
    config.data.update(name="", batch_size=batch_size)
    config.model.update(
        width=64 if preset == "512" else 128,
        embedding_width=512,
        mults=mults,
        num_blocks=num_blocks,
        attention_levels=tuple(
            level for level in range(len(mults)) if int(preset) // 2**level in (32, 16, 8)
        ),
        remat="products",
    )
    config.diffusion.schedule = noise
    config.optim.update(learning_rate=rate, weight_decay=weight_decay)
    config.train.update(
        num_steps=num_steps, log_every=100, sample_every=10_000, save_every=5_000,
        snapshot_every=0, evaluate_every=10_000, evaluate_examples=1_024,
    )  # fmt: skip
    return config
