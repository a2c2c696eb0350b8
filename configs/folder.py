"""Your own pictures, at 64 x 64 px or less.

    python -m diffjax.main --config configs/folder.py:photos --workdir runs/photos

photos is a folder with pictures anywhere below it, or any data set of docs/data.md, such as
"tar:shards/*.tar". What the model is told follows from what lies there: captions if there are any,
else the classes of class folders, else nothing. Where some folders have captions and others none,
the names of these are captions too. One record in twenty is kept for validation, by the
hash of its name. On a CPU the net is the one of base64.py, 3.9 M parameters, about 120 pictures/s
on 2 cores; on an accelerator it has 113 M parameters. Every picture is seen about 200 times, in
2,000 to 200,000 steps. tiny:photos is for tests.
"""

import glob
import os
import statistics
from pathlib import Path

import ml_collections

from configs import common, pieces
from diffjax.data.record import image_of
from diffjax.data.sources.open import KINDS, Wanted, open_source
from diffjax.data.transforms import decode

LOOKED_AT = 32  # records whose sizes choose the size of the pictures that are made
SIZES_PX = (64, 32, 16)
PASSES = 200


def get_config(where: str = "") -> ml_collections.ConfigDict:
    tiny = where.startswith("tiny:")
    where = where.removeprefix("tiny:")
    if not where:
        raise ValueError("name your folder after a colon: --config configs/folder.py:photos")
    known = where.split(":")[0] in KINDS or where.split("/")[0] in ("emoji", "fake", "digits")
    known = known and not Path(where).expanduser().is_dir()  # a folder may be called digits
    name = where if known else f"folder:{Path(where).expanduser().absolute()}"
    source = open_source(name, Wanted(validation=0.05))
    size_px = _size_px(source)
    classes = getattr(source, "classes", ())
    captioned = getattr(source, "captioned", lambda: True)()
    if captioned:
        told = dict(text=pieces.text())
    else:
        told = dict(classes=pieces.classes(len(classes), tuple(classes))) if classes else {}
    config = pieces.stage("folder", size_px, **told)
    config.data.update(name=name, validation=0.05, max_bad_fraction=0.1, flip=not classes)
    if getattr(source, "told_by_folders", lambda: False)():
        config.data.captions = "either"
    if _on_an_accelerator():
        _large(config)
    else:
        _small(config)
    steps = PASSES * len(source) // config.data.batch_size
    config.train.num_steps = min(200_000, max(2_000, steps))
    if tiny:
        common.for_tests(config)
        config.data.update(name=name, size_px=16)
        config.model.update(width=16, head_width=16, token_width=32)
    return config


def _size_px(source) -> int:
    """The largest of SIZES_PX that half of the pictures have."""
    sides = []
    for index in range(0, len(source), len(source) // LOOKED_AT + 1):
        try:
            sides.append(min(decode(image_of(source[index])).shape[:2]))
        except ValueError:
            continue  # broken: the run counts it
    median = statistics.median(sides) if sides else SIZES_PX[0]
    return next((size for size in SIZES_PX if size <= median), SIZES_PX[-1])


def _on_an_accelerator() -> bool:
    """Whether there is a TPU or a GPU; devices are not started, since processes meet later."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    return any(map(glob.glob, ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*")))


def _small(config: ml_collections.ConfigDict) -> None:
    """That of base64.py: most of its work is done at 16 x 16."""
    common.for_a_laptop(config)
    config.data.batch_size = 16
    config.model.update(
        kind="unet", width=48, mults=(1, 2), num_blocks=1, attention_levels=(1,), head_width=24,
        token_width=256, patch=max(1, config.data.size_px // 16), canvas=64 * ("text" in config),
    )  # fmt: skip
    config.optim.update(warmup_steps=300, decay="cooldown")
    config.train.update(sample_every=500, save_every=500)
    config.sample.update(sampler="ddim", guidance_weight=2.0, threshold="dynamic")


def _large(config: ml_collections.ConfigDict) -> None:
    """A third of the paper's 300m, in bfloat16."""
    config.data.batch_size = 256
    config.model.update(
        kind="unet", width=128, mults=(1, 2, 3, 4), num_blocks=2, attention_levels=(1, 2, 3),
        head_width=64, token_width=512, dtype="bfloat16",
    )  # fmt: skip
    config.optim.update(learning_rate=2e-4, warmup_steps=1_000, decay="cosine")
    config.train.update(sample_every=2_000, save_every=1_000)
