"""GLIDE's upsampler: text and 64 x 64 -> 256 x 256 (Nichol et al. 2022, sec. 4).

    python -m diffjax.main --config configs/glide256.py --workdir runs/glide/glide256

The small picture is enlarged bilinearly and is three more channels. emoji (the default): a network
of 2.3 M parameters on drawings. tiny: for tests, takes seconds.

At scale, for accelerators: paper: 1.64 B parameters; released: the 398 M of OpenAI's files. Both
are sampled in 27 steps, of which most are at low noise (app. B.2).
"""

import ml_collections

from configs import common, glide64, pieces, sr256

PRESETS = glide64.PRESETS
# width, then width, layers and heads of the text transformer
AT_SCALE = {"paper": (384, 1024, 24, 16), "released": (192, 512, 16, 8)}


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    told = dict(tokens=pieces.prompt_tokens(), low_res=pieces.low_res(64))
    told["low_res"].max_aug_level = 0.0
    config = pieces.stage("glide256", 256, **told)
    config.start = pieces.start()
    config.model.from_low_res = False
    if preset in AT_SCALE:
        config.model.update(
            kind="unet", mults=(1, 1, 2, 2, 4, 4), num_blocks=2, attention_levels=(3, 4, 5),
            **glide64.network(*AT_SCALE[preset]),
        )  # fmt: skip
        glide64.chain(config, "linear")
        config.data.batch_size = 512
        config.train.num_steps = 1_600_000
        config.sample.update(num_steps=27, spacing="fifths", guidance_weight=1.0)
        if preset == "paper":
            config.mesh.fsdp = 8
        return config
    if preset == "tiny":
        glide64.tiny(config)
        config.diffusion.schedule = "linear"
        config.data.size_px = 16
        config.low_res.size_px = 8
        config.sample.update(num_steps=5, spacing="fifths", guidance_weight=1.0)
        return config
    common.for_a_laptop(config)
    like = sr256.get_config("emoji")
    for section in ("diffusion", "optim", "train", "sample"):
        config[section].update(like[section])
    config.data.batch_size = 8
    config.tokens.update(vocabulary="emoji", length=24)
    config.model.update(
        kind="unet", width=24, mults=(1, 2, 4), num_blocks=1, attention_levels=(2,), head_width=24,
        patch=4, from_low_res=True, finish=16, **glide64.words(96, 2, 3),
    )  # fmt: skip
    return config
