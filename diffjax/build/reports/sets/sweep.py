"""Sweeps: the numbers of sets for every combination of settings of sampling.

A sweep writes its file after every combination. If it is stopped, the same command goes on: rows
that the file has are kept, and the others are made.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from jax.sharding import Mesh

from diffjax.build.reports.loaded import Asked, Loaded
from diffjax.build.reports.sets import part
from diffjax.build.reports.sets import said as said_lib
from diffjax.core.errors import ConfigError, StorageError, require
from diffjax.core.files import read_json
from diffjax.core.json_types import Json, JsonObject
from diffjax.generation.jobs import SETTINGS
from diffjax.tasks.settings import SampleSettings, fault, faults

FLAG = "--sweep"
# An axis of the grid: the field of SampleSettings, and its values. A point: a value of each field.
Value: TypeAlias = int | float | str
Axis: TypeAlias = tuple[str, tuple[Value, ...]]
Point: TypeAlias = dict[str, Value]
# Short names beside those of the flags of diffjax.sample.
SHORT = {"aug": "aug_level"}
NAMES = {flag.removeprefix("--"): name for flag, (name, _, _) in SETTINGS.items()} | SHORT
KINDS = {name: kind for name, kind, _ in SETTINGS.values()}


def axes_of(texts: Sequence[str]) -> tuple[Axis, ...]:
    """The axes of texts such as "guidance=0,1,2".

    Raises:
      ConfigError: no such setting, a value that is not allowed, or one that comes twice.
    """
    axes: list[Axis] = []
    for text in texts:
        name, equals, values = text.partition("=")
        known = f"want NAME=VALUE,VALUE with a NAME of {', '.join(NAMES)}"
        require(bool(equals) and name.strip() in NAMES, FLAG, text, known)
        field = NAMES[name.strip()]
        require(field not in dict(axes), FLAG, text, f"{name} is swept twice: give all its values")
        axes.append((field, tuple(_value(text, field, one) for one in values.split(","))))
        distinct = len(set(axes[-1][1])) == len(axes[-1][1])
        require(distinct, FLAG, text, "has a value twice")
    return tuple(axes)


def _value(text: str, field: str, word: str) -> Value:
    try:
        value = KINDS[field](word.strip())
    except ValueError:
        value = None
    wrong = fault(field, value)
    require(not wrong, FLAG, text, wrong)
    return value


def grid(axes: Sequence[Axis]) -> Iterator[Point]:
    """All combinations; the last axis changes first."""
    names = [name for name, _ in axes]
    for values in itertools.product(*(values for _, values in axes)):
        yield dict(zip(names, values, strict=True))


def at(loaded: Sequence[Loaded], point: Point) -> list[Loaded]:
    """The stages with these settings; noise on the small picture is of stages that have one.

    Raises:
      ConfigError: the settings do not go together.
    """
    found = []
    for one in loaded:
        mine = {k: v for k, v in point.items() if k != "aug_level" or one.stage.task.low_res}
        settings = _with(one.stage.settings, mine)
        stage = dataclasses.replace(one.stage, settings=settings)
        learned = settings.sampler != "ddpm_learned" or stage.task.learning.learns_variance
        allowed = f"needs a learned variance: {stage.task.name} was trained without"
        require(learned, FLAG, settings.sampler, allowed)
        found.append(dataclasses.replace(one, stage=stage))
    return found


def _with(settings: SampleSettings, point: Point) -> SampleSettings:
    changed = SampleSettings(**{**dataclasses.asdict(settings), **point})
    for name, wrong in faults(changed).items():
        raise ConfigError(FLAG, f"{name}={getattr(changed, name)}", wrong)
    return changed


def rows_of(
    loaded: Sequence[Loaded],
    asked: Asked,
    axes: Sequence[Axis],
    mesh: Mesh,
    there: Sequence[Json],
) -> Iterator[list[Json]]:
    """The rows so far, after each row: those that are `there` already, then a new one each time.

    A row has `at`, its point, and what the part `sets` says of it.

    Raises:
      ConfigError: the settings of a point do not go together; known before any is drawn.
      InputError: what `part.scored` refuses.
    """
    points = list(grid(axes))
    stages = [at(loaded, point) for point in points]
    rows = list(there)
    made = [row["at"] for row in rows if isinstance(row, dict)]
    yield rows
    if all(point in made for point in points):
        return
    scene = part.scene_of(loaded, asked, mesh)
    for point, ready in zip(points, stages, strict=True):
        if point in made:
            continue
        print(f"sweep: {points.index(point) + 1} of {len(points)}: {said(point)}", flush=True)
        found = part.scored(ready, scene, asked)
        said_lib.say(found)
        rows.append({"at": dict(point), **found})
        yield rows


def said(point: Point) -> str:
    """A point as people write it."""
    return ", ".join(f"{name} {value}" for name, value in point.items())


def kept_rows(path: Path, same: JsonObject, names: Sequence[str]) -> list[Json]:
    """The rows of a sweep in a file that may be gone on with; [] if there is no file.

    same: what must be the same for the rows to be those of this sweep. names: of its axes.

    Raises:
      ConfigError: the file holds something else, or was made of other stages or with other flags.
    """
    remedy = "is there already, and is not this sweep begun earlier; --overwrite replaces it"
    try:
        found = read_json(path, "")
    except FileNotFoundError:
        return []
    except StorageError:
        raise ConfigError("--out", str(path), remedy) from None
    alike = {name: found.get(name) for name in same} == json.loads(json.dumps(same))
    sweep = found.get("sweep")
    rows = sweep.get("rows") if isinstance(sweep, dict) else None
    axes = sweep.get("axes") if isinstance(sweep, dict) else None
    if not alike or not isinstance(rows, list) or axes != list(names):
        raise ConfigError("--out", str(path), remedy)
    return rows
