"""Well-known data sets, as tensorflow-datasets prepares them (TFRecord or ArrayRecord).

    python -m diffjax.main --config configs/datasets.py:cifar10 --workdir runs/cifar10

They are found where TFDS_DATA_DIR says, or in ~/tensorflow_datasets; nothing is downloaded here.

    coco         coco_captions/2014   64 px, five captions a picture; centre crop (GLIDE, sec. 4)
    imagenet64   imagenet_resized     64 px, 1,000 classes, area-averaged (Chrabaszcz et al. 2017)
    cifar10      cifar10              32 px, 10 classes, half mirrored (Ho et al. 2020, app. B)
    mnist        mnist                28 px, 10 classes, three equal channels, as they are
    flowers      oxford_flowers102    64 px, the names of the 102 classes as captions; centre crop
    celeba_hq    celeb_a_hq/256       64 px of 256, told nothing, half mirrored (Karras et al. 2018)

The nets are U-Nets of 15 to 60 M parameters in bfloat16 for one accelerator. A preset after tiny_
is for tests.
"""

import ml_collections

from configs import common, pieces

SETS = ("coco", "imagenet64", "cifar10", "mnist", "flowers", "celeba_hq")
PRESETS = (*SETS, *(f"tiny_{name}" for name in SETS))
# name, side of the pictures, what the model is told, and other keys of data
DATA: dict[str, tuple[str, int, dict[str, object]]] = {
    "coco": ("coco_captions/2014", 64, dict(caption_key="captions/text")),
    "imagenet64": ("imagenet_resized/64x64", 64, {}),
    "cifar10": ("cifar10", 32, dict(flip=True)),
    "mnist": ("mnist", 28, {}),
    "flowers": ("oxford_flowers102", 64, dict(caption_key="label")),
    "celeba_hq": ("celeb_a_hq/256", 64, dict(flip=True)),
}
CLASSES = {"imagenet64": 1000, "cifar10": 10, "mnist": 10}
TEXTS = ("coco", "flowers")


def get_config(preset: str = "cifar10") -> ml_collections.ConfigDict:
    which = preset.removeprefix("tiny_")
    name, size_px, keys = DATA[which]
    told = dict(text=pieces.text()) if which in TEXTS else {}
    if which in CLASSES:
        told = dict(classes=pieces.classes(CLASSES[which]))
    config = pieces.stage(which, size_px, **told)
    config.data.update(name=name, batch_size=128, **keys)
    config.model.update(
        kind="unet",
        width=128,
        mults=(1, 2, 2) if size_px < 64 else (1, 2, 3, 4),
        num_blocks=2,
        attention_levels=(1,) if size_px < 64 else (2, 3),
        head_width=64,
        token_width=512,
        dtype="bfloat16",
    )
    config.optim.update(learning_rate=2e-4, warmup_steps=1_000, decay="cosine")
    config.train.update(num_steps=200_000, sample_every=5_000, save_every=5_000)
    config.sample.update(guidance_weight=2.0 if told else 1.0, num_images=16)
    if preset != which:
        common.for_tests(config)
        config.data.update(name=name)
        config.model.update(width=16, mults=(1, 2), num_blocks=1, attention_levels=(),
                            head_width=16, token_width=32, dtype="float32")  # fmt: skip
    return config
