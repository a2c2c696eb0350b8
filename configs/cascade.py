"""The cascade: its stages trained one after the other, each in its own folder of the workdir.

    python -m diffjax.main --config configs/cascade.py --workdir runs/cascade
    python -m diffjax.sample --workdir runs/cascade --prompt "an openmoji drawing of a red apple"

emoji (the default): base64 and sr256 on all emoji; a night on 2 CPU cores. demo: the same two
networks for a few minutes on a few dozen pictures, which is what `make demo` runs. tiny: for tests.
A stage's key is overridden as --config.base64.train.num_steps=500.
"""

import ml_collections

from configs import base64, sr256

PRESETS = ("emoji", "demo", "tiny")
DEMO_NAMES = (
    "red_apple",
    "banana",
    "watermelon",
    "strawberry",
    "pizza",
    "hamburger",
    "grinning_face",
    "red_heart",
    "rainbow",
    "sunflower",
    "cactus",
    "dog_face",
    "penguin",
    "frog",
    "smiling_face_with_sunglasses",
    "soccer_ball",
)


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stages = ("base64", "sr256")
    stage_preset = "tiny" if preset == "tiny" else "emoji"
    config.base64 = base64.get_config(stage_preset)
    config.sr256 = sr256.get_config(stage_preset)
    if preset == "tiny":  # the picture that the first stage makes is what the second starts from
        config.sr256.low_res.size_px = config.base64.data.size_px
    if preset == "demo":
        for stage in (config.base64, config.sr256):
            stage.data.names = DEMO_NAMES
            stage.train.update(ema=("decay_0.99",), sample_every=0, save_every=500)
        config.base64.train.num_steps = 900
        config.sr256.train.num_steps = 400
    return config
