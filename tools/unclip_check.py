"""How well a decoder of emoji keeps what a CLIP sees.

python -m tools.unclip_check runs/unclip/decoder --num 100 --out unclip.json

On drawings that it was trained on: how often the CLIP finds the very drawing, or one of its name,
by a picture that was decoded from its vector, among these drawings and among all of the training
data; the same of variations; how far variations and reconstructions are from the drawing; and how
far the ends of interpolations are from reconstructions.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from diffjax.build.inputs import reading
from diffjax.build.stages import decoders, loading, places
from diffjax.core import command
from diffjax.core.errors import Ending
from diffjax.core.types import Image
from diffjax.data import transforms
from diffjax.data.record import image_of
from diffjax.editing import unclip
from diffjax.editing.unclip import Pair
from diffjax.generation import rows
from diffjax.generation.chain import TrainedStage
from diffjax.images import pixels
from diffjax.tasks.vectors import IMAGE_VECTOR

BATCH = 16


def main(arguments: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("decoder", type=command.path)
    flags.add_argument("--num", type=int, default=100)
    flags.add_argument("--steps", type=int, default=32)
    flags.add_argument("--guidance", type=float, default=2.0)
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
    names = np.array([str(record.get("name", "")) for record in known])
    every = np.array([record[IMAGE_VECTOR] for record in known], np.float32)
    size_px = options.data.size_px
    drawings = np.stack(
        [transforms.square(transforms.load(image_of(records[i])), size_px, "centre") for i in at]
    )
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
    again = made(stages["plain"], pair, seeds)
    varied = [made(stages["guided"], pair, seeds + s * asked.num, eta=1.0) for s in (0, 1)]
    way = unclip.between(
        Pair(*(x[:1] for x in pair)), Pair(*(x[1:2] for x in pair)), jnp.array([0.0, 1.0])
    )
    ends = made(stages["plain"], way, np.zeros(2, int))
    found = {
        "drawings": asked.num,
        "decoded": retrieval(clip.of_pictures(decoded), every, names, at),
        "variations": retrieval(clip.of_pictures(varied[0]), every, names, at),
        "reconstructions": retrieval(clip.of_pictures(again), every, names, at),
        "distance": {
            "of reconstructions": apart(again, drawings),
            "between variations": apart(varied[0], varied[1]),
            "of variations": apart(varied[0], drawings),
            "of ends of interpolations from reconstructions": apart(ends, again[:2]),
        },
    }
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


def retrieval(
    ours: Float[np.ndarray, "n v"], every: Float[np.ndarray, "m v"], names: np.ndarray, at: list
) -> dict[str, dict[str, float]]:
    """How often the nearest drawing is the very one, and one of the same name.

    every, names: of the training data. at: which of these were asked for.
    """
    found = {}
    for among, members in (("these", np.array(at)), ("all", np.arange(len(every)))):
        nearest = members[np.argmax(ours @ every[members].T, axis=1)]
        very = float(np.mean(nearest == np.array(at)))
        found[among] = {"very": very, "name": float(np.mean(names[nearest] == names[at]))}
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
