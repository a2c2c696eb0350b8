"""Measures whether an emoji cascade draws what the prompt says, and how sharp its second stage is.

There are five sets of prompts. *seen*: the drawing was in the training data. *style*: training saw
the thing only in the other style. *compositional*: it saw the profession and the skin tone, but
never together. *test*: it saw neither the name nor any drawing of it. *plain*: seen, but the prompt
names no style, so that either one is right and only *name* counts; as in `diffjax.sample` it gets
one. A sample is *right* if the drawing that was asked for is the nearest of all drawings of the
data set; its *name* is right if the nearest drawing shows that thing in any style. Distances are
measured in two feature spaces: the means of 16 x 16 squares of pixels, and the features of a
classifier that tells all drawings apart (`evaluation/classifier.py`). Intervals are Wilson's, 95 %.

The second stage is given shrunk true pictures, so that its results can be compared with the truth,
and with bicubic enlargement.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from diffjax.core.json_types import JsonObject
from diffjax.encoders.text import Reads, TokenReader
from diffjax.evaluation import classifier, fidelity, retrieval
from diffjax.evaluation.drawings import Drawings, chosen, drawings
from diffjax.generation.chain import TrainedStage, generate, prompt_columns
from diffjax.generation.jobs import Job
from diffjax.generation.rows import columns_of
from diffjax.generation.styles import with_style
from diffjax.generation.telling import Tell
from diffjax.images import pixels
from diffjax.tasks.conditions import shrink
from diffjax.tasks.vectors import IMAGE_VECTOR

# The split of each set of prompts, and how many of its prompts are drawn by default.
SETS = {"seen": ("train", 500), "style": ("style", 200), "compositional": ("compositional", 200),
        "test": ("test", 200), "plain": ("train", 200)}  # fmt: skip
PLAIN = "plain"
WEIGHTS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
CURVE_PROMPTS, ENLARGED = 100, 64
BATCH, ENLARGED_BATCH = 20, 4
# The guidance curve uses other seeds than the sets.
CURVE_SEED = 10_000

Spaces: TypeAlias = Mapping[str, Callable[[UInt8[np.ndarray, "n h w c"]], Float[np.ndarray, "n d"]]]


@dataclasses.dataclass(frozen=True)
class Judge:
    """All drawings, and their features in each feature space."""

    every: Drawings
    spaces: Spaces
    real: Mapping[str, Float[np.ndarray, "n d"]]


def judge_of(every: Drawings, told_apart: dict) -> Judge:
    """Makes the judge of these drawings. told_apart: the parameters of the classifier."""
    spaces: Spaces = {
        "pixels": retrieval.small_pixels,
        "classifier": functools.partial(classifier.features, told_apart),
    }
    return Judge(every, spaces, {name: space(every.images) for name, space in spaces.items()})


def sets(
    base: TrainedStage,
    encoder: Reads,
    judge: Judge,
    most: int | None = None,
    seed: int = 0,
    tell: Tell | None = None,
    styles: Mapping[str, str] | None = None,
) -> JsonObject:
    """The shares of right samples for each set of prompts, of which at most `most` are drawn.

    tell: what tells a decoder the vectors of its pictures. styles: of `with_style`, which prompts
    of *plain* get as those of users do.
    """
    result: JsonObject = {}
    for name, (split, count) in SETS.items():
        wanted = chosen(judge.every, split, count if most is None else min(count, most))
        prompts = [judge.every.captions[i] for i in wanted]
        if name == PLAIN:
            plain = (judge.every.plain[i] for i in wanted)
            prompts = [with_style(one, seed + i, styles or {}) for i, one in enumerate(plain)]
        made = draw(base, encoder, prompts, seed, name, tell)
        result[name] = scores(judge, wanted, made)
    return result


def guidance(
    base: TrainedStage,
    encoder: Reads,
    judge: Judge,
    most: int | None = None,
    seed: int = 0,
    tell: Tell | None = None,
) -> JsonObject:
    """The shares of right samples for prompts of the training data, by guidance weight."""
    count = CURVE_PROMPTS if most is None else min(CURVE_PROMPTS, most)
    wanted = chosen(judge.every, "train", count)
    curve: JsonObject = {}
    for weight in WEIGHTS:
        settings = dataclasses.replace(base.settings, guidance_weight=weight)
        stage = dataclasses.replace(base, settings=settings)
        title = f"guidance {weight:g}"
        captions = [judge.every.captions[i] for i in wanted]
        made = draw(stage, encoder, captions, seed + CURVE_SEED, title, tell)
        curve[str(weight)] = scores(judge, wanted, made)
    return curve


def draw(
    stage: TrainedStage,
    encoder: Reads,
    captions: Sequence[str],
    seed: int,
    title: str,
    tell: Tell | None = None,
) -> UInt8[np.ndarray, "n s s 3"]:
    """The base stage's picture for each caption, in batches of one shape."""
    made = []
    for start in range(0, len(captions), BATCH):
        part = captions[start : start + BATCH]
        filled = [*part, *[""] * (BATCH - len(part))]
        columns = told(encoder, filled)
        seeds = seed + start + jnp.arange(BATCH)
        if tell is not None:
            columns[IMAGE_VECTOR] = tell([Job(caption, 0) for caption in filled], seeds)
        (picture,) = generate([stage], columns, seeds=seeds)
        made.append(np.asarray(pixels.to_uint8(picture))[: len(part)])
        print(f"{title}: {start + len(part)} of {len(captions)} drawn", flush=True)
    return np.concatenate(made)


def told(encoder: Reads, captions: Sequence[str]) -> dict[str, Array]:
    """The columns of captions; the blank ones that fill a batch are encoded like the others."""
    if isinstance(encoder, TokenReader):
        return columns_of(encoder, captions)
    text, mask = encoder.encode(captions, encoder.max_length)
    return prompt_columns(jnp.asarray(text, jnp.bfloat16).astype(jnp.float32), mask)


def scores(judge: Judge, wanted: Sequence[int], made: UInt8[np.ndarray, "n s s 3"]) -> JsonObject:
    """For each feature space the shares of samples whose drawing or name is right.

    Also the share of samples whose drawing is among the nearest five.
    """
    result: JsonObject = {}
    for name, space in judge.spaces.items():
        rows, real = space(made), judge.real[name]
        rank = retrieval.ranks(rows, real, np.array(wanted))
        asked = [judge.every.names[i] for i in wanted]
        named = retrieval.found(rows, real, judge.every.names, asked)
        result[name] = {"right": share(rank == 0), "first_five": share(rank < 5),
                        "name": share(named)}  # fmt: skip
    return result


def share(hits: Bool[np.ndarray, " n"]) -> JsonObject:
    """A share with its interval: `share`, `low`, `high`, and `of`, the number of samples."""
    low, high = retrieval.interval(int(hits.sum()), len(hits))
    return {"share": float(hits.mean()), "low": low, "high": high, "of": len(hits)}


def enlarged(
    stage: TrainedStage, encoder: Reads, most: int | None = None, seed: int = 0
) -> JsonObject:
    """PSNR and SSIM of the second stage and of bicubic, on true small pictures, seen and unseen."""
    count = ENLARGED if most is None else min(ENLARGED, most)
    splits = {"seen": "train", "test": "test"}
    return {
        name: _enlarged(stage, encoder, split, count, seed, name) for name, split in splits.items()
    }


def _enlarged(
    stage: TrainedStage, encoder: Reads, split: str, count: int, seed: int, title: str
) -> JsonObject:
    every = drawings(stage.task.size_px)
    indices = chosen(every, split, count)
    rows: dict[str, list[float]] = {}
    for start in range(0, len(indices), ENLARGED_BATCH):
        part = indices[start : start + ENLARGED_BATCH]
        real = every.images[part]
        low_res = shrink(pixels.from_uint8(jnp.asarray(real)), stage.task.factor)
        low_res = pixels.from_uint8(pixels.to_uint8(low_res))  # the values that a PNG would hold
        columns = {**told(encoder, [every.captions[i] for i in part]), "low_res": low_res}
        (made,) = generate([stage], columns, seeds=seed + start + jnp.arange(len(part)))
        plain = pixels.resize(low_res, *real.shape[1:3])
        for name, picture in (("made", made), ("bicubic", plain)):
            bytes_ = np.asarray(pixels.to_uint8(picture))
            rows.setdefault(f"{name}_psnr", []).extend(fidelity.psnr(bytes_, real))
            rows.setdefault(f"{name}_ssim", []).extend(fidelity.ssim(bytes_, real))
        print(f"enlarged, {title}: {start + len(part)} of {len(indices)}", flush=True)
    means = {name: float(np.mean(values)) for name, values in rows.items()}
    return {**means, "of": len(indices), "gain_db": means["made_psnr"] - means["bicubic_psnr"]}
