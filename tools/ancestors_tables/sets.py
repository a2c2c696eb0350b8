"""Sets of digits that the runs make, kept in files, so that tables share them."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from diffjax.build.guides import classifiers, guiding
from diffjax.build.stages import loading
from diffjax.core import rng
from diffjax.core.files import write_whole
from diffjax.data.sources import digits
from diffjax.generation.chain import Cascade
from diffjax.images import pixels
from diffjax.tasks import sampling
from diffjax.tasks.settings import SampleSettings
from tools.ancestors_tables import judge, runs
from tools.ancestors_tables.judge import Digits, Scores

CLASSES = 10


class Way(NamedTuple):
    """A run, and how it is sampled. scale: of guidance by the classifier."""

    run: str
    steps: int
    sampler: str = "ddpm_learned"
    noise: float = 0.0
    spacing: str = "linspace"
    weight: float = 1.0
    scale: float = 0.0

    def settings(self, usual: SampleSettings) -> SampleSettings:
        """The settings of a run's config with those of this way."""
        return dataclasses.replace(
            usual,
            num_steps=self.steps,
            sampler=self.sampler,
            noise=self.noise,
            spacing=self.spacing,
            guidance_weight=self.weight,
            classifier_guidance=self.scale,
        )


def labels(count: int) -> Int[np.ndarray, " n"]:
    """Each class as often as the others."""
    return np.arange(count) % CLASSES


def made(out: Path, way: Way, count: int, seed: int) -> Digits:
    """The digits of a way; read from OUT/sets if they were made before, of the same checkpoint."""
    cascade = sampled(out, way)
    whole = (cascade.origins, cascade.stages[0].settings, count, seed)
    name = hashlib.sha256(repr(whole).encode()).hexdigest()[:16]
    path = out / "sets" / f"{way.run}_{way.sampler}_{way.steps}_{name}.bin"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, draw(cascade, count, seed).tobytes())
    return np.frombuffer(path.read_bytes(), np.uint8).reshape(count, 8, 8)


def draw(cascade: Cascade, count: int, seed: int) -> Digits:
    """Draws `count` digits, each of a seed of its own."""
    stage = cascade.stages[0]
    keys = rng.per_example(jnp.arange(count) + seed * count)
    run = sampling.compiled(sampling.sample, stage.settings)
    found = run(stage.params, {"label": jnp.asarray(labels(count))}, keys, task=stage.task)
    # the three channels are nearly equal, as those of the data are
    grey = pixels.to_uint8(jnp.mean(found, axis=-1, keepdims=True))
    return np.asarray(grey)[..., 0]


def sampled(out: Path, way: Way) -> Cascade:
    """The trained run with the settings of a way, and with its classifier if that guides."""
    cascade = loaded(out, way.run)
    if way.scale:
        place = runs.trained(out, "classifier")
        cascade = classifiers.guided(cascade, [guiding.Guide(place)])
    return cascade.with_settings([way.settings(cascade.stages[0].settings)])


@functools.lru_cache(maxsize=8)
def loaded(out: Path, run: str) -> Cascade:
    """A run, trained first if it is not yet."""
    return loading.load([runs.trained(out, run)])


def scores(out: Path, way: Way, count: int, seeds: int) -> list[Scores]:
    """The numbers of a way against all real digits, of each of `seeds` sets."""
    params, (real, _) = judge.trained(out), digits.load()
    found = []
    for seed in range(seeds):
        one = judge.scores(params, made(out, way, count, seed), labels(count), real)
        print(f"{way}, seed {seed}: {one}", flush=True)
        found.append(one)
    return found
