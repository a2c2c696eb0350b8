"""Measures whether an emoji cascade draws what the prompt says, and how sharp its second stage is.

    python -m tools.evaluate_demo --stages runs/emoji/base64,runs/emoji/sr256 --out RESULT.json

There are four sets of prompts. *seen*: the drawing was in the training data. *style*: training saw
the thing only in the other style. *compositional*: it saw the profession and the skin tone, but
never together. *test*: it saw neither the name nor any drawing of it. A sample is *right* if the
drawing that was asked for is the nearest of all drawings of the data set; its *name* is right if
the nearest drawing shows that thing in any style. Distances are measured in two feature spaces: the
means of 16 x 16 squares of pixels, and the features of a classifier that tells all drawings apart
(tools/emoji_classifier.py). Intervals are Wilson's, 95 %.

The second stage is given shrunk true pictures, so that its results can be compared with the truth,
and with bicubic enlargement. Takes an hour on two cores; --share 0.1 takes a tenth of each set.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from diffjax.build import loading
from diffjax.core import command
from diffjax.data import transforms
from diffjax.data.emoji import splits
from diffjax.data.record import first_caption, image_of
from diffjax.data.sources.tfds import open_source
from diffjax.evaluation import fidelity, retrieval
from diffjax.generation.chain import generate, prompt_columns
from diffjax.images import pixels
from diffjax.tasks.conditions import shrink
from tools import emoji_classifier

SETS = {"seen": ("train", 500), "style": ("style", 200), "compositional": ("compositional", 200),
        "test": ("test", 200)}  # fmt: skip
WEIGHTS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
CURVE_PROMPTS, ENLARGED = 100, 64
BATCH = 20


@dataclass(frozen=True)
class Drawings:
    """All drawings of the data set."""

    images: UInt8[np.ndarray, "n s s 3"]
    names: list[str]
    captions: list[str]
    splits: list[str]


@functools.cache
def drawings(size_px: int) -> Drawings:
    """Every drawing at a size, with its first caption, in the order of names."""
    rows = []
    for split in splits.SPLITS:
        source = open_source(f"emoji/{size_px}", split)
        for index in range(len(source)):
            record = source[index]
            picture = transforms.decode(image_of(record))
            rows.append((str(record["name"]), first_caption(record), split, picture))
    rows.sort(key=lambda row: row[:2])
    names, captions, found, images = (list(column) for column in zip(*rows, strict=True))
    return Drawings(np.stack(images), names, captions, found)


def chosen(every: Drawings, split: str, count: int) -> list[int]:
    """Up to `count` drawings of a split, the same on every machine."""
    members = [i for i, have in enumerate(every.splits) if have == split]
    key = lambda i: hashlib.sha256(every.captions[i].encode()).digest()  # noqa: E731
    return sorted(members, key=key)[:count]


def draw(trained, encoder, captions: list[str], seed: int = 0) -> UInt8[np.ndarray, "n s s 3"]:
    """The base stage's picture for each caption, in batches of one shape."""
    made = []
    for start in range(0, len(captions), BATCH):
        part = captions[start : start + BATCH]
        text, mask = encoder.encode(part + [""] * (BATCH - len(part)), encoder.max_length)
        text = jnp.asarray(text, jnp.bfloat16).astype(jnp.float32)
        seeds = seed + start + jnp.arange(BATCH)
        (picture,) = generate([trained], prompt_columns(text, mask), seeds=seeds)
        made.append(np.asarray(pixels.to_uint8(picture))[: len(part)])
        print(f"  {min(start + BATCH, len(captions))} of {len(captions)}", flush=True)
    return np.concatenate(made)


def spaces(classifier: dict):
    """The two feature spaces, by name."""
    return {
        "pixels": retrieval.small_pixels,
        "classifier": functools.partial(emoji_classifier.features, classifier),
    }


def share(hits: np.ndarray) -> dict:
    """A share with its interval."""
    low, high = retrieval.interval(int(hits.sum()), len(hits))
    return {"share": float(hits.mean()), "low": low, "high": high, "of": len(hits)}


def scores(made, every: Drawings, wanted: list[int], real: dict, functions: dict) -> dict:
    """For each feature space the shares of samples whose drawing or name is right.

    Also the share of samples whose drawing is among the nearest five."""
    result = {}
    for space, function in functions.items():
        rows = function(made)
        rank = retrieval.ranks(rows, real[space], np.array(wanted))
        asked = [every.names[i] for i in wanted]
        named = retrieval.found(rows, real[space], every.names, asked)
        result[space] = {"right": share(rank == 0), "first_five": share(rank < 5),
                         "name": share(named)}  # fmt: skip
    return result


def enlarged(trained, encoder, split: str, count: int) -> dict:
    """PSNR and SSIM of the second stage on true small pictures, beside bicubic's."""
    every = drawings(256)
    indices = chosen(every, split, count)
    rows = []
    for start in range(0, len(indices), 4):
        part = indices[start : start + 4]
        real = every.images[part]
        text, mask = encoder.encode([every.captions[i] for i in part], encoder.max_length)
        text = jnp.asarray(text, jnp.bfloat16).astype(jnp.float32)
        low_res = shrink(pixels.from_uint8(jnp.asarray(real)), trained.task.factor)
        low_res = pixels.from_uint8(pixels.to_uint8(low_res))  # the values that a PNG would hold
        columns = {**prompt_columns(text, mask), "low_res": low_res}
        (made,) = generate([trained], columns, seeds=start + jnp.arange(len(part)))
        plain = pixels.resize(low_res, *real.shape[1:3])
        for name, picture in (("made", made), ("bicubic", plain)):
            bytes_ = np.asarray(pixels.to_uint8(picture))
            values = zip(fidelity.psnr(bytes_, real), fidelity.ssim(bytes_, real), strict=True)
            rows += [(name, decibel, similar) for decibel, similar in values]
        print(f"  {min(start + 4, len(indices))} of {len(indices)}", flush=True)
    mean = lambda name, column: float(np.mean([r[column] for r in rows if r[0] == name]))  # noqa: E731
    result = {f"{name}_{key}": mean(name, column) for name in ("made", "bicubic")
              for key, column in (("psnr", 1), ("ssim", 2))}  # fmt: skip
    return result | {"of": len(indices), "gain_db": result["made_psnr"] - result["bicubic_psnr"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stages",
        type=command.paths,
        help="base64 and perhaps sr256; by default the cascade that ships",
    )
    parser.add_argument(
        "--classifier", type=Path, default=Path("runs/emoji_classifier.safetensors")
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="the share of each set that is used"
    )
    parser.add_argument("--ema", help="which average; by default the config's first")
    parser.add_argument("--no-curve", action="store_true", help="leave the guidance weights out")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()

    cascade = loading.load(loading.stage_dirs(None, flags.stages), flags.ema)
    stages, encoder = cascade.stages, cascade.text_encoder()
    every = drawings(64)
    if not flags.classifier.exists():
        emoji_classifier.save(flags.classifier, emoji_classifier.train(every.images))
    functions = spaces(emoji_classifier.load(flags.classifier))
    real = {name: function(every.images) for name, function in functions.items()}
    base = stages[0]
    result: dict = {"settings": dataclasses.asdict(base.settings), "sets": {}, "curve": {}}
    for name, (split, count) in SETS.items():
        wanted = chosen(every, split, max(1, round(flags.share * count)))
        made = draw(base, encoder, [every.captions[i] for i in wanted])
        result["sets"][name] = scores(made, every, wanted, real, functions)
        print(name, json.dumps(result["sets"][name]), flush=True)
    wanted = chosen(every, "train", max(1, round(flags.share * CURVE_PROMPTS)))
    for weight in () if flags.no_curve else WEIGHTS:
        settings = dataclasses.replace(base.settings, guidance_weight=weight)
        made = draw(
            dataclasses.replace(base, settings=settings),
            encoder,
            [every.captions[i] for i in wanted],
            seed=10_000,
        )
        result["curve"][str(weight)] = scores(made, every, wanted, real, functions)
    if len(stages) > 1:
        count = max(1, round(flags.share * ENLARGED))
        result["enlarged"] = {
            name: enlarged(stages[1], encoder, split, count)
            for name, split in (("seen", "train"), ("test", "test"))
        }
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    flags.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result.get("enlarged", {})))


if __name__ == "__main__":
    main()
