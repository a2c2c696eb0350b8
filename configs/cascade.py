"""The cascade: its stages trained one after the other, each in its own folder of the workdir.

    python -m diffjax.main --config configs/cascade.py --workdir runs/cascade
    python -m diffjax.sample --workdir runs/cascade --prompt "an openmoji drawing of a red apple"

emoji (the default): base64 and sr256 on all emoji, two and a half hours on 2 CPU cores; the
cascade that ships. demo: smaller, minutes on a few dozen pictures, as `make demo` runs. tiny: for
tests.
A stage's key is overridden as --config.base64.train.num_steps=500.
"""

import ml_collections

from configs import base64, sr256

PRESETS = ("emoji", "demo", "tiny")


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stages = ("base64", "sr256")
    config.base64 = base64.get_config(preset)
    config.sr256 = sr256.get_config(preset)
    if preset == "tiny":  # the second stage starts from pictures of the first stage's size
        config.sr256.low_res.size_px = config.base64.data.size_px
    return config
