"""Makes the tasks of Karlo's prior, decoder and upsampler, of a folder in diffusers' layout."""

from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp

from diffjax.core.trees import Params
from diffjax.diffusion import schedule, table
from diffjax.diffusion.sampling import spacing
from diffjax.encoders.unclip import decoder, prior, upsampler
from diffjax.models.layers import convolve
from diffjax.models.turns import Turns
from diffjax.tasks.conditions import Embedding, LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import Learning
from diffjax.tasks.prior import MEAN, STD, DiffusionPrior
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Model
from diffjax.tasks.vectors import IMAGE_VECTOR, TextVector

LENGTH = 77  # tokens of a text of CLIP
FACTOR = 4  # of the upsampler
# How Karlo's code samples them.
STEPS, PRIOR_GUIDANCE, GUIDANCE, LARGE_STEPS = 25, 4.0, 8.0, 7
PRIOR = "prior"
# In training, the shares of the examples without text and vector.
NO_TEXT, NO_VECTOR = 0.3, 0.1


def prior_of(place: Path) -> tuple[DiffusionPrior, Params]:
    """The task and the parameters of a prior in the folder of Karlo, or in its own.

    It is told the states and the vector of CLIP's text tower, neither of them normalised, and so
    are not the vectors that it makes. No text is the empty one, which callers give as the negative
    prompt.

    Raises:
      ValueError: it is another network, or damaged.
    """
    found = prior.load(place)
    noise = schedule.discrete_cosine()
    steps = table.steps_of(spacing.on_grid(noise))
    task = DiffusionPrior(
        name=PRIOR,
        model=cast(Model, found.model.clone(steps=steps)),
        shape=(found.width,),
        conditions=(Text(found.width, found.model.length), TextVector(found.width)),
        schedule=noise,
        predict="x_0",
        weighting="x_0",
        settings=SampleSettings(
            STEPS, spacing="linspace", guidance_weight=PRIOR_GUIDANCE, threshold="none"
        ),
        of=IMAGE_VECTOR,
        frozen={MEAN: jnp.asarray(found.mean), STD: jnp.asarray(found.std)},
        normalised=False,
    )
    return task, _single(found.params)


def decoder_of(place: Path) -> tuple[Denoising, Params]:
    """The task and the parameters of the decoder in a folder of a whole Karlo.

    It is told the states and the vector of CLIP's text tower, and the vector of the picture, none
    of them normalised. No text is the empty one, which callers give as the negative prompt.

    Raises:
      ValueError: it is another network, or damaged.
    """
    found, noise = decoder.load(place), schedule.discrete_cosine()
    model = found.model.clone(
        steps=table.steps_of(spacing.on_grid(noise)), convolution=convolve.fastest_convolution()
    )
    task = Denoising(
        name="decoder",
        model=cast(Model, model),
        shape=(found.side, found.side, 3),
        conditions=(
            Text(found.width, LENGTH, NO_TEXT),
            TextVector(found.width),
            Embedding(IMAGE_VECTOR, found.width, NO_VECTOR),
        ),
        schedule=noise,
        predict="eps",
        weighting="eps",
        settings=SampleSettings(
            STEPS, "ddpm_learned", spacing="linspace", guidance_weight=GUIDANCE, threshold="static"
        ),
        learning=Learning(objective="hybrid"),
    )
    return task, _single(found.params)


def upsampler_of(place: Path) -> tuple[Denoising, Params]:
    """The task and the parameters of the upsampler in a folder of a whole Karlo.

    It is told the small picture alone. The second of its networks takes the last step.

    Raises:
      ValueError: it is another network, or damaged.
    """
    found, noise = upsampler.load(place), schedule.discrete_cosine()
    levels = spacing.on_grid(noise)
    model = found.model.clone(
        steps=table.steps_of(levels), convolution=convolve.fastest_convolution()
    )
    small = LowRes(found.side // FACTOR, FACTOR, max_level=0.0, noised=False, cubic=True)
    task = Denoising(
        name="upsampler",
        model=cast(Model, Turns(model, above=float(levels[:2].mean()))),
        shape=(found.side, found.side, 3),
        conditions=(small,),
        schedule=noise,
        predict="eps",
        weighting="eps",
        settings=SampleSettings(
            LARGE_STEPS, "ddpm", spacing="linspace", guidance_weight=1.0, threshold="static"
        ),
    )
    return task, _single({"first": found.first, "last": found.last})


def _single(params: Params) -> Params:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
