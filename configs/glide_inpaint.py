"""GLIDE that fills holes: a trained stage goes on with holes in its pictures (sec. 3.2).

    python -m diffjax.main --config configs/glide_inpaint.py --workdir runs/inpaint/glide64
    python -m diffjax.main --config configs/glide_inpaint.py:emoji_upsampler \\
        --workdir runs/inpaint/glide256
    python -m diffjax.edit inpaint --workdir runs/inpaint --picture a.png --mask m.png \\
        --prompt "..."

The picture with its hole and what is known of it are four more channels, whose weights begin at
zero. emoji (the default) begins with the weights of runs/glide/glide64, and emoji_upsampler with
those of runs/glide/glide256; --config.start.base=... names others. tiny and tiny_upsampler: for
tests. paper, released and their upsamplers: at scale, as configs/glide64.py and glide256.py.
"""

import ml_collections

from configs import glide64, glide256, pieces

PRESETS = tuple(f"{preset}{stage}" for preset in glide64.PRESETS for stage in ("", "_upsampler"))


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    size, upsampler, _ = preset.partition("_upsampler")
    config = (glide256 if upsampler else glide64).get_config(size)
    config.stage = "inpaint256" if upsampler else "inpaint64"
    config.mask = pieces.mask()
    config.mask.update(strokes=0.5, known=True)
    config.tokens.drop = 0.2
    config.optim.update(warmup_steps=min(config.optim.warmup_steps, 100))
    if size == "emoji":
        config.start.base = f"runs/glide/{'glide256' if upsampler else 'glide64'}"
        config.optim.update(learning_rate=3e-4)
        config.train.num_steps = 2_000 if upsampler else 8_000
    elif size != "tiny":
        config.train.num_steps = 200_000  # the paper does not say
        config.sample.num_steps = 27 if upsampler else 100
    return config
