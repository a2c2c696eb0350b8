"""Says what the numbers of sets depend on, in a report and on the screen."""

import hashlib
import json
from collections.abc import Sequence

from diffjax.build.reports.loaded import Loaded
from diffjax.build.reports.sets.opening import Judges
from diffjax.core.json_types import JsonObject
from diffjax.evaluation.metrics.statistics import Statistics
from diffjax.evaluation.sets import Set
from diffjax.generation.recipe import settings_to_json


def sampled(loaded: Sequence[Loaded]) -> list[JsonObject]:
    """Which parameters of each stage were sampled, and how; those of a prior first."""
    told = loaded[0].teller
    prior = [(told.prior.origin, told.prior.settings)] if told and told.prior else []
    return [
        {
            "name": origin.name,
            "average": origin.average,
            "step": origin.step,
            "settings": settings_to_json(settings),
        }
        for origin, settings in [*prior, *((one.origin, one.stage.settings) for one in loaded)]
    ]


def judged_by(judges: Judges, real: Set | None, made: Statistics) -> JsonObject:
    """The extractor and the CLIP, and which pictures were compared.

    statistics_hash: changes with the pictures, extractor or resize of either set.
    """
    extractor, clip = judges.extractor, judges.clip
    sides = {"made": made} if real is None else {"real": real.statistics, "made": made}
    told: JsonObject = {
        name: {"count": one.count, "pictures": one.pictures} for name, one in sides.items()
    }
    mark = json.dumps([extractor.name, extractor.resize, told], sort_keys=True)
    return {
        "extractor": {
            "name": extractor.name,
            "resize": extractor.resize,
            "features": extractor.width,
        },
        "clip": None if clip is None else {"name": clip.name, "weights": clip.fingerprint},
        "statistics": told,
        "statistics_hash": hashlib.sha256(mark.encode()).hexdigest(),
    }


def say(found: JsonObject) -> None:
    """Prints the numbers with their spread, and what they depend on."""
    numbers, deviations = found["numbers"], found.get("deviation", {})
    left_out = found["left_out"]
    assert isinstance(numbers, dict)
    assert isinstance(deviations, dict)
    assert isinstance(left_out, dict)
    for name, value in numbers.items():
        spread = f" +- {deviations[name]:.2g}" if name in deviations else ""
        print(f"sets: {name} {value:.5g}{spread}", flush=True)
    for name, why in left_out.items():
        print(f"sets: no {name}: {why}", flush=True)
    for line in told(found):
        print(f"sets: {line}", flush=True)


def told(found: JsonObject) -> list[str]:
    """What the numbers depend on, in a few lines."""
    extractor, stages = found["extractor"], found.get("stages", [])
    assert isinstance(extractor, dict)
    assert isinstance(stages, list)
    lines = []
    if "seeds" in found:
        assert isinstance(found["seeds"], list)
        seeds = ", ".join(map(str, found["seeds"]))
        lines.append(
            f"{found['examples']} pictures of {found['data']} {found['split']}, seeds {seeds}"
        )
    for one in stages:
        assert isinstance(one, dict)
        how = one["settings"]
        assert isinstance(how, dict)
        lines.append(
            f"{one['name']}: {how['sampler']}, {how['num_steps']} steps, guidance "
            f"{how['guidance_weight']:g}, average {one['average']} of step {one['step']}"
        )
    lines.append(f"{extractor['name']}, {extractor['resize']}")
    lines.append(f"statistics {str(found['statistics_hash'])[:16]}")
    return lines
