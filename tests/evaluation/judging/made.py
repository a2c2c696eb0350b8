"""Collections of pictures and answers to their pages, made without any network."""

import json

import numpy as np

from diffjax.evaluation.judging import collection
from diffjax.evaluation.judging.collection import Collection, Prompt
from diffjax.generation import recipe
from diffjax.generation.recipe import Origin, Recipe
from diffjax.images import png
from diffjax.tasks.settings import SampleSettings

PROMPTS = (Prompt("a red apple", "Colors"), Prompt("two dogs", "Counting"))


def pictures(folder, systems=("a", "b"), prompts=PROMPTS, seeds=(0, 1), px=8):
    """A collection whose pictures are noise, other noise for each system."""
    collection.begin(folder, Collection(tuple(prompts), tuple(seeds)))
    for number, system in enumerate(systems):
        (folder / system).mkdir(exist_ok=True)
        draw = np.random.default_rng(number)
        index = 0
        for prompt in prompts:
            for seed in seeds:
                for side in (px // 2, px):
                    said = Recipe(
                        prompt.text, seed, ((Origin("one", side, 1, "live", "a" * 64),
                        SampleSettings()),), "c" * 64,
                        {"diffjax": "0.1.0", "jax": "0.1", "platform": "cpu"},
                    )  # fmt: skip
                    picture = draw.integers(0, 256, (side, side, 3), np.uint8)
                    path = folder / system / f"{index:04d}_seed{seed}_{side}px.png"
                    png.write(path, picture, recipe.to_json(said))
                index += 1
    return folder


def answers(path, page, judge, sides):
    """A file as the page saves it. judge: a number."""
    said = {"format": 1, "page": page, "judge": f"{judge:032x}", "answers": sides}
    path.write_text(json.dumps(said))
    return path


def key_of(folder):
    """The key of the only page of a collection."""
    (path,) = (folder / "pages").glob("*.json")
    return json.loads(path.read_text())
