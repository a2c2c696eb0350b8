"""The upsamplers of DALL-E 2: 64 -> 256 px and 256 -> 1024 px (Ramesh et al. 2022, sec. 2.3).

    python -m diffjax.main --config configs/unclip_sr.py:paper_256 --workdir runs/unclip/sr256

They are told the small picture alone, no text and no vector, and attend to nothing. In training the
small picture is degraded (`low_res.degrade`, docs/unclip.md). emoji (the default): 2.0 M parameters
on patches of 4 x 4 pixels, which answer with a difference to the small picture, for 2 CPU cores.
tiny, tiny_bsr: for tests, take seconds.

At the paper's scale, for accelerators (table 3): paper_256, 700 M parameters, blurred pictures, 27
steps of DDIM; paper_1024, 300 M, "bsr", 15 steps. Both train on crops of a quarter of the side, as
the paper says of both. karlo_256: the 700 M network of Karlo's first steps, which is the same but
for how it is told the step.
"""

import ml_collections

from configs import adm, common, pieces, sr256

PRESETS = ("emoji", "tiny", "tiny_bsr", "paper_256", "paper_1024", "karlo_256")
# side, width, mults, blocks of a level, batch, learning rate, sampling steps; table 3. The paper
# gives no mults of the first; these are Karlo's.
AT_SCALE = {
    "paper_256": (256, 320, (1, 2, 3, 4), 3, 1024, 1.2e-4, 27),
    "karlo_256": (256, 320, (1, 2, 3, 4), 3, 1024, 1.2e-4, 7),
    "paper_1024": (1024, 192, (1, 1, 2, 2, 4, 4), 2, 512, 1e-4, 15),
}


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    size_px = AT_SCALE[preset][0] if preset in AT_SCALE else {"emoji": 256}.get(preset, 16)
    config = pieces.stage(f"unclip_sr{size_px}", size_px, low_res=pieces.low_res(size_px // 4))
    config.low_res.max_aug_level = 0.0  # it is degraded instead
    if preset == "emoji":
        return emoji(config)
    large = preset in ("paper_1024", "tiny_bsr")
    config.low_res.degrade = "bsr" if large else "blur"
    config.data.update(caption_key="", crop_px=size_px // 4 if preset.startswith("paper") else 0)
    config.model.update(
        kind="unet", width=16, mults=(1, 2), num_blocks=1, **adm.network(),
        attention_levels=(), middle_attention=False,
    )  # fmt: skip
    # The paper names the schedules (table 3) and no variance: that of DDIM needs none.
    config.diffusion.update(
        schedule="linear" if large else "discrete_cosine", predict="eps", weighting="eps"
    )
    config.optim.update(name="adamw", b1=0.9, weight_decay=0.0, warmup_steps=0)
    config.sample.update(sampler="ddim", guidance_weight=1.0, threshold="static")
    if preset not in AT_SCALE:
        config.model.update(dtype="float32", head_width=16, norm_groups=4)
        common.for_tests(config)
        config.train.ema = ("decay_0.999",)
        return config
    _, width, mults, num_blocks, batch_size, rate, steps = AT_SCALE[preset]
    config.model.update(
        width=width, mults=mults, num_blocks=num_blocks, dropout=0.1, dtype="bfloat16",
        remat="products",
    )  # fmt: skip
    if preset == "karlo_256":
        config.model.update(scale_shift=False, dropout=0.0)
    config.data.update(name="", batch_size=batch_size)
    config.optim.learning_rate = rate
    config.train.update(
        num_steps=1_000_000, ema=("decay_0.9999",), sample_every=20_000, save_every=5_000
    )
    config.sample.num_steps = steps
    return config


def emoji(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """As sr256.py:emoji, without text."""
    common.for_a_laptop(config)
    like = sr256.get_config("emoji")
    for section in ("diffusion", "optim", "train", "sample"):
        config[section].update(like[section])
    config.low_res.degrade = "blur"
    config.data.update(caption_key="", batch_size=8)
    config.model.update(
        kind="unet", width=32, mults=(1, 2, 3), num_blocks=1, attention_levels=(),
        middle_attention=False, head_width=32, patch=4, from_low_res=True, finish=16,
    )  # fmt: skip
    config.sample.guidance_weight = 1.0
    return config
