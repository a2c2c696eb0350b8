"""How well a decoder of emoji keeps what a CLIP sees.

python -m tools.checks.unclip_check runs/unclip/decoder --num 100 --out unclip.json

On drawings that it was trained on: how often the nearest drawing to a picture that was decoded from
its vector, alone and with its first caption, is the very one, or one of its name, among these
drawings and among all of the training data. Nearest by the vectors of the CLIP, and by pixels, as
in `diffjax.evaluate`. The same of variations and reconstructions; how far both are from the
drawing; and how far the ends of interpolations are from reconstructions. A sheet has lines of the
drawings, decoded, decoded with the caption, reconstructed, and two variations.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from diffjax.build.inputs import reading
from diffjax.build.stages import decoders, loading, places
from diffjax.core import command
from diffjax.core.errors import Ending
from diffjax.core.types import Image
from diffjax.data import transforms
from diffjax.data.record import Record, first_caption, image_of
from diffjax.editing import unclip
from diffjax.editing.unclip import Pair
from diffjax.evaluation import retrieval
from diffjax.generation import chain, rows
from diffjax.generation.chain import TrainedStage
from diffjax.images import pixels, png
from diffjax.tasks.vectors import IMAGE_VECTOR

BATCH, SHOWN = 16, 12
Places: TypeAlias = Int[np.ndarray, " n"]


class Judge(NamedTuple):
    """features: of pictures in bytes, as rows; the nearer, the more alike. real: of the data."""

    features: Callable[[UInt8[np.ndarray, "n h w 3"]], Float[np.ndarray, "n d"]]
    real: Float[np.ndarray, "m d"]


def main(arguments: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("decoder", type=command.path)
    flags.add_argument("--num", type=int, default=100)
    flags.add_argument("--steps", type=int, default=32)
    flags.add_argument("--guidance", type=float, default=2.0)
    flags.add_argument("--noise", type=float, default=1.0, help="eta of the variations")
    flags.add_argument("--sheet", type=Path, help="a file for the first pictures of each kind")
    flags.add_argument("--out", type=Path, default=Path("unclip.json"))
    asked = flags.parse_args(arguments)
    cascade = loading.load([asked.decoder])
    clip, options = decoders.clip_of([asked.decoder]), places.options_of(asked.decoder)
    own = dataclasses.replace(cascade.stages[0].settings, num_steps=asked.steps, threshold="static")
    guided = dataclasses.replace(own, guidance_weight=asked.guidance)
    plain = dataclasses.replace(own, guidance_weight=1.0)
    stages = {
        name: [dataclasses.replace(cascade.stages[0], settings=settings)]
        for name, settings in (("guided", guided), ("plain", plain))
    }
    records = reading.source_of(options)
    at = [i * len(records) // asked.num for i in range(asked.num)]
    known = [records[i] for i in range(len(records))]
    size_px = options.data.size_px
    pictures = np.stack([square(record, size_px) for record in known])
    drawings, every = pictures[at], np.array([x[IMAGE_VECTOR] for x in known], np.float32)
    names = np.array([str(record.get("name", "")) for record in known])
    judges = {
        "clip": Judge(clip.of_pictures, every),
        "pixels": Judge(retrieval.small_pixels, retrieval.small_pixels(pictures)),
    }
    nearest = functools.partial(shares, judges, names=names, at=np.array(at))
    vectors = clip.of_pictures(drawings)
    pairs = [
        unclip.pair_of(
            stages["plain"], jnp.asarray(vectors[part]), bytes_to(drawings[part]), seed=0
        )
        for part in parts(asked.num)
    ]
    pair = Pair(*(jnp.concatenate(x) for x in zip(*pairs, strict=True)))
    noise = Pair(pair.vector, jnp.asarray(np.random.default_rng(0).normal(size=pair.noise.shape)))
    seeds = np.arange(asked.num)
    decoded = made(stages["guided"], Pair(noise.vector, noise.noise.astype(jnp.float32)), seeds)
    captions = [first_caption(records[i]) for i in at]
    states, mask = cascade.text_encoder().encode(captions)
    told = [
        chain.generate(
            stages["guided"],
            {**chain.prompt_columns(states[part], mask[part]), IMAGE_VECTOR: noise.vector[part]},
            seeds=jnp.asarray(seeds[part], jnp.int32),
        )[0]
        for part in parts(asked.num)
    ]
    captioned = rows.to_bytes(jnp.concatenate(told))
    again = made(stages["plain"], pair, seeds)
    varied = [made(stages["guided"], pair, seeds + s * asked.num, eta=asked.noise) for s in (0, 1)]
    way = unclip.between(
        Pair(*(x[:1] for x in pair)), Pair(*(x[1:2] for x in pair)), jnp.array([0.0, 1.0])
    )
    ends = made(stages["plain"], way, np.zeros(2, int))
    found = {
        "drawings": asked.num,
        "decoded": nearest(decoded),
        "decoded with the caption": nearest(captioned),
        "variations": nearest(varied[0]),
        "reconstructions": nearest(again),
        "distance": {
            "of reconstructions": apart(again, drawings),
            "between variations": apart(varied[0], varied[1]),
            "of variations": apart(varied[0], drawings),
            "of ends of interpolations from reconstructions": apart(ends, again[:2]),
        },
    }
    if asked.sheet:
        shown = (drawings, decoded, captioned, again, *varied)
        lines = [np.concatenate(list(pictures[:SHOWN]), axis=1) for pictures in shown]
        png.write(asked.sheet, np.concatenate(lines), None)
    asked.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def parts(num: int) -> list[slice]:
    """The rows of each call."""
    return [slice(i, min(i + BATCH, num)) for i in range(0, num, BATCH)]


def bytes_to(pictures: UInt8[np.ndarray, "n h w 3"]) -> Image:
    """Pictures in [-1, 1]."""
    return pixels.from_uint8(jnp.asarray(pictures))


def made(
    stages: Sequence[TrainedStage], pair: Pair, seeds: np.ndarray, eta: float = 0.0
) -> UInt8[np.ndarray, "n h w 3"]:
    """The decoder's pictures of the pairs, in bytes."""
    found = []
    for part in parts(len(seeds)):
        rows_of = Pair(*(x[part] for x in pair))
        small, *_ = unclip.pictures_of(
            stages, rows_of, seeds=jnp.asarray(seeds[part], jnp.int32), eta=eta
        )
        found.append(rows.to_bytes(small))
    return np.concatenate(found)


def square(record: Record, size_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle square of the picture of a record."""
    return transforms.square(transforms.load(image_of(record)), size_px, "centre")


def shares(
    judges: Mapping[str, Judge], made: UInt8[np.ndarray, "n h w 3"], names: np.ndarray, at: Places
) -> dict[str, dict[str, float]]:
    """How often the nearest drawing is the very one, and one of the same name, by each judge.

    names: of the training data. at: which of these were asked for.
    """
    found = {}
    for title, judge in judges.items():
        features = judge.features(made)
        for among, members in (("these", at), ("all", np.arange(len(names)))):
            far = retrieval.distances(features, judge.real[members])
            nearest = members[np.argmin(far, axis=1)]
            found[f"by {title} among {among}"] = {
                "very": float(np.mean(nearest == at)),
                "name": float(np.mean(names[nearest] == names[at])),
            }
    return found


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The mean distance of pictures, rms over pixels, in bytes."""
    squares = (one.astype(float) - other.astype(float)) ** 2
    return float(np.sqrt(squares.mean(axis=(1, 2, 3))).mean())


if __name__ == "__main__":
    try:
        main()
    except Ending as error:
        raise SystemExit(error.line()) from None
