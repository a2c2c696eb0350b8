"""Makes the stage of a prior: of others, in Karlo's layout, and of one that was trained here."""

from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp

from diffjax.core.trees import Params
from diffjax.diffusion import schedule, table
from diffjax.diffusion.sampling import spacing
from diffjax.encoders.unclip import prior as others
from diffjax.tasks.conditions import Text
from diffjax.tasks.prior import MEAN, STD, DiffusionPrior
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Model
from diffjax.tasks.vectors import IMAGE_VECTOR, TextVector

__all__ = ["of_folder"]

NAME = "prior"
# How Karlo's prior is sampled by its own code.
STEPS, GUIDANCE = 25, 4.0


def of_folder(place: Path) -> tuple[DiffusionPrior, Params]:
    """The task and the parameters of a prior in Karlo's layout.

    It is told the states and the vector of CLIP's text tower, neither of them normalised, and so
    are not the vectors that it makes. No text is the empty one, which callers give as the negative
    prompt.

    Raises:
      ValueError: it is another network, or damaged.
    """
    found = others.load(place)
    noise = schedule.discrete_cosine()
    steps = table.steps_of(spacing.on_grid(noise))
    task = DiffusionPrior(
        name=NAME,
        model=cast(Model, found.model.clone(steps=steps)),
        shape=(found.width,),
        conditions=(Text(found.width, found.model.length), TextVector(found.width)),
        schedule=noise,
        predict="x_0",
        weighting="x_0",
        settings=SampleSettings(STEPS, guidance_weight=GUIDANCE, threshold="none"),
        of=IMAGE_VECTOR,
        frozen={MEAN: jnp.asarray(found.mean), STD: jnp.asarray(found.std)},
        normalised=False,
    )
    return task, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), found.params)
