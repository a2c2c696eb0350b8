"""Makes a report on trained stages, as plain data in several parts."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from diffjax.build import evaluation
from diffjax.build.inputs.styles import styles_of
from diffjax.build.reports import bounds
from diffjax.build.reports.loaded import Asked, Loaded, load, made_with, no_chain, tell_of, whose
from diffjax.build.reports.sets import folder, part, said, sweep
from diffjax.core.errors import require
from diffjax.core.json_types import Json, JsonObject
from diffjax.devices import mesh as mesh_lib
from diffjax.encoders.text import Reads
from diffjax.evaluation import classifier, emoji
from diffjax.evaluation.denoising import TIMES, CascadeBits, lowest
from diffjax.evaluation.drawings import JUDGED_PX, drawings
from diffjax.evaluation.evaluator import Evaluator, rows_for
from diffjax.generation.chain import TrainedStage
from diffjax.generation.recipe import settings_to_json
from diffjax.generation.telling import is_told_vectors

__all__ = [
    "PARTS",
    "Asked",
    "Loaded",
    "Part",
    "load",
    "made_with",
    "of_pictures",
    "report",
    "swept",
    "whose",
]


class Part(NamedTuple):
    """A part of a report. fault: the reason why stages cannot have this part; "" if they can."""

    ask: Callable[[Sequence[Loaded], Asked], Json]
    fault: Callable[[Sequence[Loaded]], str]


def report(loaded: Sequence[Loaded], asked: Asked, parts: Sequence[str] = ()) -> JsonObject:
    """The parts, and everything on which their numbers depend.

    parts: by default those of USUAL that these stages can have.

    Raises:
      ConfigError: these stages cannot have a part, or there is no such split.
    """
    faults = {name: PARTS[name].fault(loaded) for name in parts or USUAL}
    if not parts:
        faults["sets"] = faults["sets"] or part.not_installed(asked)
    for name, fault in faults.items():
        require(not parts or not fault, "--parts", name, fault)
        if fault:
            print(f"no {name}: {fault}", flush=True)
    made = {name: PARTS[name].ask(loaded, asked) for name, fault in faults.items() if not fault}
    return {
        "format": 1,
        "asked": {"num": asked.num, "seed": asked.seed, "split": asked.split},
        "made_with": made_with(),
        "of": list(whose(loaded)),
        **made,
    }


def swept(
    loaded: Sequence[Loaded], asked: Asked, axes: Sequence[sweep.Axis], out: Path | None
) -> Iterator[JsonObject]:
    """The report of a sweep, after each of its rows.

    out: a file with the same sweep, begun earlier, whose rows are kept; None to begin anew.

    Raises:
      ConfigError: these stages make no pictures, settings do not go together, or the file holds
        something else.
    """
    fault = part.fault(loaded)
    require(not fault, sweep.FLAG, axes[0][0], fault)
    same: JsonObject = {
        "format": 1,
        "asked": {
            "num": asked.num, "seeds": list(part.seeds_of(loaded, asked)), "split": asked.split,
            "extractor": asked.extractor, "clip": asked.clip, "against": asked.against,
            "any_count": asked.any_count,
        },
        "of": list(whose(loaded)),
    }  # fmt: skip
    names = [name for name, _ in axes]
    there = [] if out is None else sweep.kept_rows(out, same, names)
    for rows in sweep.rows_of(loaded, asked, axes, _mesh(), there):
        yield {**same, "made_with": made_with(), "sweep": {"axes": list(names), "rows": rows}}


def of_pictures(source: str, asked: Asked) -> JsonObject:
    """The report on pictures that are there already; see `sets.folder`."""
    return {
        "format": 1,
        "asked": {"num": asked.num, "split": asked.split},
        "made_with": made_with(),
        "of": [],
        "sets": folder.report(source, asked, _mesh()),
    }


def stages(loaded: Sequence[Loaded], asked: Asked) -> Json:
    """The evaluation of train.evaluate_every, of each stage."""
    return [_stage(one, asked) for one in loaded]


def chain(loaded: Sequence[Loaded], asked: Asked) -> Json:
    """The bound of the whole cascade in bits per dimension, on the data of its last stage."""
    last, mesh = loaded[-1], _mesh()
    split, count, seed = _choices(last.options, asked)
    found = evaluation.examples_of(last.options, last.encoder, split, count)
    rows = rows_for(len(found), last.options.data.batch_size, mesh)
    of = tuple(one.stage.task for one in loaded)
    ask = Evaluator(of, found, (CascadeBits(),), (), mesh, rows, seed)
    numbers = ask(tuple(one.stage.params for one in loaded))
    shares = {one.name: lowest(numbers, one.name) for one in of}
    total = sum(share for share, _ in shares.values())
    print(f"chain: bits_per_dim {total:.5g}", flush=True)
    return {
        **_data(last.options, split, len(found), seed),
        "dims": last.stage.task.size_px**2 * 3,
        "times": TIMES,
        "bits_per_dim": total,
        "stages": {name: {"share": share, "to": end} for name, (share, end) in shares.items()},
        "numbers": dict(numbers),
    }


def drawn(loaded: Sequence[Loaded], asked: Asked) -> Json:
    """How often it draws the emoji that is asked for, and how sharp its second stage is."""
    base, encoder = _base(loaded)
    judge, seed, tell = _judge(base, asked), asked.seed or 0, tell_of(loaded)
    of_data = styles_of(loaded[0].options)
    sets = emoji.sets(base, encoder, judge, asked.num, seed, tell, of_data)
    found: JsonObject = {"sets": sets}
    if len(loaded) > 1:
        found["enlarged"] = emoji.enlarged(loaded[1].stage, encoder, asked.num, seed)
    return {**_judged(loaded, asked), **found}


def guidance(loaded: Sequence[Loaded], asked: Asked) -> Json:
    """How often it draws the emoji that is asked for, by guidance weight."""
    base, encoder = _base(loaded)
    judge, seed, tell = _judge(base, asked), asked.seed or 0, tell_of(loaded)
    curve = emoji.guidance(base, encoder, judge, asked.num, seed, tell)
    return {**_judged(loaded, asked), "curve": curve}


def bits(loaded: Sequence[Loaded], asked: Asked) -> Json:
    """The bound of each stage as the chain of T steps that it was trained as."""
    return bounds.bounds(loaded, asked, _mesh())


def drawn_sets(loaded: Sequence[Loaded], asked: Asked) -> Json:
    """The pictures that the stages make, compared as a set with real ones."""
    found = part.sets(loaded, asked, _mesh())
    said.say(found)
    return found


def _no_chain(loaded: Sequence[Loaded]) -> str:
    return "wants two stages or more" if len(loaded) < 2 else no_chain(loaded)


def _no_bound(loaded: Sequence[Loaded]) -> str:
    if any(one.stage.task.space for one in loaded):
        return "a stage learns latents, whose bound says nothing of pictures"
    if is_told_vectors(loaded[0].stage.task):
        return "a decoder's bound is of pictures whose vector is known, and says nothing of others"
    if 0 < sum(one.encoder is None for one in loaded) < len(loaded):
        return "its stages are told their text by unequal encoders"
    return _no_chain(loaded)


def _no_emoji(loaded: Sequence[Loaded]) -> str:
    first = loaded[0]
    if not evaluation.is_emoji(first.options):
        return f"{first.options.data.name} is not the emoji data set"
    if first.encoder is None or first.stage.task.low_res_px:
        return f"{first.stage.task.name} does not draw from text alone"
    return _no_chain(loaded) if len(loaded) > 1 else ""


# Another evaluation, such as an FID, adds a line here.
PARTS: dict[str, Part] = {
    "stages": Part(stages, lambda loaded: ""),
    "chain": Part(chain, _no_bound),
    "emoji": Part(drawn, _no_emoji),
    "guidance": Part(guidance, _no_emoji),
    "sets": Part(drawn_sets, part.fault),
    "bits": Part(bits, bounds.fault),
}
# The parts that are made by default. Guidance takes as long as all others together, and bits ask
# the network T times.
USUAL = ("stages", "chain", "sets", "emoji")


def _stage(one: Loaded, asked: Asked) -> JsonObject:
    options, task = one.options, one.stage.task
    split, count, seed = _choices(options, asked)
    ask = evaluation.evaluator_of(
        options, one.encoder, task, _mesh(), split=split, count=count, seed=seed
    )
    for line in evaluation.left_out(options, task):
        print(f"{task.name}: {line}", flush=True)
    numbers = ask(one.stage.params)
    for name, value in numbers.items():
        print(f"{task.name}: {name} {value:.5g}", flush=True)
    best, end = lowest(numbers)
    return {
        "name": task.name,
        **_data(options, split, len(ask.examples), seed),
        "times": TIMES,
        "bits_per_dim": {"lowest": best, "to": end},
        "numbers": dict(numbers),
    }


def _choices(options: ConfigDict, asked: Asked) -> tuple[str, int, int]:
    """Split, number of examples and seed: those that were asked for, or those of the config."""
    return (
        asked.split or options.data.validation_split,
        asked.num or options.train.evaluate_examples,
        options.seed if asked.seed is None else asked.seed,
    )


def _data(options: ConfigDict, split: str, count: int, seed: int) -> JsonObject:
    return {"data": options.data.name, "split": split, "examples": count, "seed": seed}


def _base(loaded: Sequence[Loaded]) -> tuple[TrainedStage, Reads]:
    encoder = loaded[0].encoder
    assert encoder is not None  # `_no_emoji`
    return loaded[0].stage, encoder


def _judge(base: TrainedStage, asked: Asked) -> emoji.Judge:
    every = drawings(min(base.task.size_px, JUDGED_PX))
    return emoji.judge_of(every, classifier.trained_at(asked.classifier, every.images))


def _judged(loaded: Sequence[Loaded], asked: Asked) -> JsonObject:
    """Everything but the stages on which the shares of right drawings depend."""
    return {
        "data": loaded[0].options.data.name,
        "seed": asked.seed or 0,
        "classifier": hashlib.sha256(asked.classifier.read_bytes()).hexdigest(),
        "settings": settings_to_json(loaded[0].stage.settings),
    }


def _mesh() -> jax.sharding.Mesh:
    return mesh_lib.make_mesh(devices=mesh_lib.sampling_devices())
