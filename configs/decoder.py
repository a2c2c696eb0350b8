"""The decoder of DALL-E 2: a CLIP's vector of a picture, and its text -> 64 x 64.

    python -m diffjax.main --config configs/decoder.py --workdir runs/unclip/decoder

Of Ramesh et al. 2022, sec. 2.1. emoji (the default): the network of base64.py, told the vector by
the CLIP that ships beside the text; 4.0 M parameters, hours on 2 CPU cores. It can begin with the
weights of the stage that ships, --config.start.base=shipped. tiny: for tests, takes seconds.

At the paper's scale, for accelerators; `--mode=compile --topology=v5e:16x16` plans without one.
Their CLIPs and data are named by --config.vectors.clip=clip:PLACE and --config.data.name:
paper: GLIDE's base with its text transformer, 3.56 B parameters (table 3). karlo: that of Karlo,
893 M, told the states and the vector of CLIP ViT-L/14's text tower.
"""

import ml_collections

from configs import adm, common, glide64, pieces

PRESETS = ("emoji", "tiny", "paper", "karlo")
VECTOR = "image_vector"  # the column, which a prior makes of the text (configs/prior.py)


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    if preset in ("paper", "karlo"):
        return {"paper": paper, "karlo": karlo}[preset]()
    config = pieces.stage("decoder", 64, text=pieces.text(), **told("clip:emoji", 128))
    config.text.drop = 0.5
    config.start = pieces.start()
    config.model.canvas = 0  # channels of a grid that is computed from the conditions; in no paper
    common.for_a_laptop(config)
    # As base64.py: most noise levels are high ones, where the conditions are needed.
    config.diffusion.update(
        schedule="uniform", logsnr_min=-16.0, logsnr_max=6.0, times="stratified"
    )
    config.model.update(
        kind="unet",
        width=48,
        mults=(1, 2),
        num_blocks=1,
        attention_levels=(1,),
        head_width=24,
        token_width=256,
        patch=4,
        canvas=64,
    )
    config.data.batch_size = 16
    config.optim.update(warmup_steps=300, decay="cooldown")
    config.train.update(num_steps=65_000, ema=("decay_0.9995",))
    config.sample.update(sampler="ddim", guidance_weight=2.0)
    if preset == "tiny":
        common.for_tests(config)
        config.data.size_px = 16
        config.model.update(width=16, head_width=16, token_width=32, canvas=0)
        config.train.ema = ("decay_0.999",)
    return config


def told(clip: str, width: int) -> dict[str, ml_collections.ConfigDict]:
    """The vector of the picture, without which a tenth of the examples trains (sec. 2.1)."""
    return dict(vectors=pieces.vectors(clip, width), embedding=pieces.embedding(VECTOR, width))


def paper() -> ml_collections.ConfigDict:
    """GLIDE's base told the vector of a CLIP, and the training of table 3."""
    config = glide64.get_config("paper")
    config.stage = "decoder"
    config.update(told("", 1024))
    config.tokens.drop = 0.5
    at_scale(config)
    config.sample.guidance_weight = 1.25  # of the run on COCO
    return config


def karlo() -> ml_collections.ConfigDict:
    """The network of Karlo's decoder_900M_vit_l.yaml, and what it says of training."""
    text = pieces.text()
    text.update(encoder="clip:", width=768, max_tokens=77, drop=0.3)
    config = pieces.stage("decoder", 64, text=text, **told("", 768))
    config.model.update(
        kind="clip_unet", mults=(1, 2, 3, 4), num_blocks=3, attention_levels=(1, 2, 3),
        **dict(adm.network(), width=320, token_width=1536, dtype="bfloat16", remat="products"),
    )  # fmt: skip
    glide64.chain(config)
    at_scale(config)
    config.sample.update(num_steps=25, guidance_weight=8.0)
    return config


def at_scale(config: ml_collections.ConfigDict) -> None:
    """How the paper trains its decoder (table 3)."""
    config.optim.update(learning_rate=1.2e-4, b1=0.9)
    config.train.update(num_steps=800_000, ema=("decay_0.9999",))
    config.sample.num_steps = 250
