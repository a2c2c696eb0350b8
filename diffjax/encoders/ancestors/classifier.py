"""Files of guided-diffusion's classifiers of noised pictures, with an attention pool."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from diffjax.core.trees import Params, PyTree
from diffjax.encoders.ancestors.names import Shape, source_of
from diffjax.encoders.ancestors.openai import MOST_BLOCKS, STEM
from diffjax.encoders.matching import Tensor, matched
from diffjax.models.classifier import Classifier

POOL, OUT, TIME = "out.2.positional_embedding", "out.2.c_proj.weight", "time_embed.0.weight"


class Facts(NamedTuple):
    """What the shapes of the tensors say.

    first, last: the channels of the first and of the last level. blocks: on the way down. side: of
    the last level's pictures. embedding: the width of the sinusoids.
    """

    first: int
    last: int
    blocks: int
    side: int
    classes: int
    embedding: int


def is_one(stored: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of such a classifier."""
    return POOL in stored


def facts_of(stored: Mapping[str, Tensor], where: Path) -> Facts:
    """What the shapes of a classifier's tensors say.

    Raises:
      ValueError: they are not those of such a classifier; one line.
    """
    shapes = [
        tuple(stored[name].shape) if name in stored else () for name in (STEM, POOL, OUT, TIME)
    ]
    if [len(shape) for shape in shapes] != [4, 2, 3, 2] or not all(map(all, shapes)):
        raise ValueError(f"{where}: holds no classifier of guided-diffusion with attention pool")
    stem, pool, out, time = shapes
    names = (f"input_blocks.{n}.0." for n in range(1, MOST_BLOCKS))
    blocks = sum(f"{name}in_layers.0.weight" in stored for name in names)
    return Facts(stem[0], pool[0], blocks, math.isqrt(pool[1] - 1), out[0], time[1])


def facts_of_model(model: Classifier, size_px: int) -> Facts:
    """The same of a network for pictures of this side."""
    levels = len(model.mults)
    return Facts(
        first=model.width * model.mults[0],
        last=model.width * model.mults[-1],
        blocks=levels * (model.num_blocks + 1) - 1,
        side=size_px // model.stride,
        classes=model.outputs,
        embedding=(model.embedding_width or 4 * model.width) // 4,
    )


def difference(there: Facts, wanted: Facts) -> str:
    """What of a file is not as wanted, in words; "" if all is."""
    if there.classes != wanted.classes:
        return f"knows {there.classes} classes, and the config's {wanted.classes}"
    for name, said, asked in zip(Facts._fields, there, wanted, strict=True):
        if said != asked:
            return f"is of another size: {name} is {said}, and the config's is {asked}"
    return ""


def params_of(
    model: Classifier, shapes: PyTree, stored: Mapping[str, Tensor], where: Path
) -> Params:
    """The parameters of a network, whose tree of shapes is given, from tensors that fit it.

    Raises:
      ValueError: a tensor is missing, has another shape, or is none of this network's; one line.
    """
    shape = Shape(len(model.mults), model.num_blocks, tuple(model.attention_levels))
    params, left = matched(
        shapes, lambda ours: source_of("openai", ours, shape), stored, where, "this classifier"
    )
    if left:
        raise ValueError(f"{where}: {min(left)} is not of this classifier, {len(left)} in all")
    return params
