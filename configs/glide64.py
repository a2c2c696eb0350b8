"""GLIDE's base: text -> 64 x 64, with a text transformer inside the network (Nichol et al. 2022).

    python -m diffjax.main --config configs/glide64.py --workdir runs/glide/glide64
    python -m diffjax.sample --workdir runs/glide --prompt "an openmoji drawing of a red apple"

emoji (the default): about 7,000 captioned drawings; a network of 4.6 M parameters, of which 1.0 M
read the text; a step has as much arithmetic as that of base64:emoji. tiny: for tests, takes
seconds.

At scale, for accelerators: paper: 3.56 B parameters, of which 1.32 B read the text (sec. 4);
released: the 385 M of OpenAI's files, which diffjax.sample --checkpoint reads. The paper first
trains without the empty text, and then goes on with it for guidance:
--config.start.base=runs/first --config.tokens.drop=0.2.
"""

import ml_collections

from configs import adm, base64, common, iddpm, pieces

PRESETS = ("emoji", "tiny", "paper", "released")
# width, then width, layers and heads of the text transformer
AT_SCALE = {"paper": (512, 2048, 24, 32), "released": (192, 512, 16, 8)}


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    told = dict(tokens=pieces.prompt_tokens())
    config = pieces.stage("glide64", 64, **told)
    config.start = pieces.start()
    config.model.canvas = 0  # channels of a grid that is computed from the text; in no paper
    if preset in AT_SCALE:
        config.model.update(
            kind="unet", mults=(1, 2, 3, 4), num_blocks=3, attention_levels=(1, 2, 3),
            **network(*AT_SCALE[preset]),
        )  # fmt: skip
        chain(config)
        config.train.num_steps = 2_500_000
        config.sample.update(num_steps=150, guidance_weight=3.0)
        if preset == "released":
            config.tokens.drop = 0.2
        else:
            config.mesh.fsdp = 8
        return config
    if preset == "tiny":
        return tiny(config)
    like = base64.get_config("emoji")
    for section in ("diffusion", "optim", "train", "sample"):
        config[section].update(like[section])
    config.data.batch_size = like.data.batch_size
    config.tokens.update(vocabulary="emoji", length=24, drop=0.1)
    config.model.update(
        kind="unet", width=48, mults=(1, 2), num_blocks=1, attention_levels=(1,), head_width=24,
        patch=4, canvas=64, dtype="float32", **words(128, 4, 4),
    )  # fmt: skip
    return config


def words(width: int, layers: int, heads: int) -> dict[str, int]:
    """The sizes of the text transformer."""
    return dict(text_width=width, text_layers=layers, text_heads=heads)


def network(width: int, *of_words: int) -> dict[str, object]:
    """ADM's network (Dhariwal & Nichol 2021) with a text transformer."""
    return dict(adm.network(), width=width, null_class=False, dropout=0.1, dtype="bfloat16",
                remat="products", scan=True, **words(*of_words))  # fmt: skip


def chain(config: ml_collections.ConfigDict, schedule: str = "discrete_cosine") -> None:
    """1,000 steps, of which the variance is learned, and how the paper trains (sec. 4)."""
    config.data.update(name="", batch_size=2048, aspect="random")
    config.diffusion.update(**iddpm.chain())
    config.diffusion.update(num_levels=1000, schedule=schedule)
    # the paper does not say the rate; this is ADM's for 256 px
    config.optim.update(name="adamw", learning_rate=1e-4, warmup_steps=0, clip_norm=0.0)
    config.train.update(sample_every=20_000, save_every=5_000, snapshot_every=0)
    config.sample.update(sampler="ddpm_learned", spacing="linspace", threshold="static")


def tiny(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """As the paper's in all but its sizes: a chain of 50 steps and pictures of 8 px."""
    config.model.update(kind="unet", num_blocks=1, attention_levels=(0,), mults=(1,),
                        **network(8, 8, 1, 2))  # fmt: skip
    chain(config)
    common.for_tests(config)
    config.data.size_px = 8
    config.tokens.update(vocabulary="emoji", length=8, drop=0.2)
    config.model.update(head_width=8, norm_groups=2, steps=50, dtype="float32", remat="none",
                        scan=False)  # fmt: skip
    config.diffusion.num_levels = 50
    config.train.ema = ("decay_0.9",)
    config.sample.guidance_weight = 3.0
    return config
