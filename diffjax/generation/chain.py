"""Runs trained stages one after the other: text -> 64 -> 256 -> 1024 px."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Int

from diffjax.core import rng
from diffjax.core.errors import ConfigError, require
from diffjax.core.types import Image, Resized, Text, TextMask
from diffjax.diffusion.sampling.spacing import ON_A_TABLE, table_steps
from diffjax.encoders.clip.encoder import Clip
from diffjax.encoders.text import Reads, TextEncoder, TokenReader
from diffjax.generation.recipe import Origin
from diffjax.generation.telling import Teller
from diffjax.tasks import sampling
from diffjax.tasks.conditions import NEGATIVE, SHARE, Class, Condition, unprefixed
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, Params

MAX_SIZE_PX = 8192  # of pictures whose size a flag says


@dataclasses.dataclass(frozen=True)
class TrainedStage:
    """A task, its (averaged) parameters, and the settings with which it is sampled."""

    task: Denoising
    params: Params
    settings: SampleSettings


@dataclasses.dataclass(frozen=True)
class Cascade:
    """Stages that fit together, smallest first, with their origins and what reads their prompts.

    encoder: None if no stage is told a text. clip: the one that guides, None for none. teller: what
    tells a decoder the vector of its picture; None for no vector. styles: see `styles.with_style`.
    """

    stages: tuple[TrainedStage, ...]
    origins: tuple[Origin, ...]
    encoder: Reads | None
    clip: Clip | None = None
    teller: Teller | None = None
    styles: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of all stages, one stage after the other."""
        return tuple(one for stage in self.stages for one in stage.task.conditions)

    @property
    def classes(self) -> Class | None:
        """The condition on a class, if a stage has one or a classifier guides one."""
        told = next((one for one in self.conditions if isinstance(one, Class)), None)
        guides = (stage.task.classifier for stage in self.stages if stage.task.classifier)
        guided = (Class(one.num_classes, 0.0, one.names) for one in guides)
        return told or next(guided, None)

    def text_reader(self) -> Reads:
        """What reads prompts, which must exist.

        Raises:
          ConfigError: no stage is told a text.
        """
        name = self.stages[0].task.name
        if self.encoder is None:
            raise ConfigError(
                "--workdir", name, "takes no text, and this needs a model of text; "
                "diffjax.sample takes any"
            )  # fmt: skip
        return self.encoder

    def text_encoder(self) -> TextEncoder:
        """The encoder that embeds prompts, which must exist.

        Raises:
          ConfigError: no stage is told a text, or the network embeds its text itself.
        """
        reader, name = self.text_reader(), self.stages[0].task.name
        if isinstance(reader, TokenReader):
            raise ConfigError(
                "--workdir", name, "embeds its text inside the network, and this needs a model of "
                "an encoder's embeddings"
            )  # fmt: skip
        return reader

    def with_settings(self, settings: Sequence[SampleSettings]) -> "Cascade":
        """The same stages with other settings, one for each.

        Raises:
          ConfigError: a sampler needs a learned variance, and the stage has none; latents have a
            threshold; there are more steps than in the stage's table; or guidance leads away from
            no class, and the stage knows none.
        """
        for stage, new in zip(self.stages, settings, strict=True):
            require(
                new.threshold == "none" or stage.task.space is None,
                "--threshold",
                new.threshold,
                f'is for pictures, and {stage.task.name} learns latents: want "none"',
            )
            require(
                new.sampler != "ddpm_learned" or stage.task.learning.learns_variance,
                "--sampler",
                new.sampler,
                f"needs a learned variance: {stage.task.name} was trained without",
            )
            most = table_steps(stage.task.schedule)
            require(
                new.spacing not in ON_A_TABLE or new.num_steps <= most,
                "--steps",
                new.num_steps,
                f"at most {most} with spacing {new.spacing}",
            )
            classes = stage.task.condition(Class)
            require(
                classes is None or classes.null or new.guidance_weight == 1,
                "--guidance",
                new.guidance_weight,
                f"must be 1: {stage.task.name} always knew the class, and has no guess without",
            )
        stages = zip(self.stages, settings, strict=True)
        return dataclasses.replace(
            self, stages=tuple(dataclasses.replace(s, settings=new) for s, new in stages)
        )

    def at_size(self, size_px: int, flag: str = "--size") -> "Cascade":
        """The same for pictures of another side, which a network of latents takes as it is.

        Raises:
          ConfigError: there are several stages, or theirs is no network of latents of any size.
        """
        stage, task = self.stages[0], self.stages[0].task
        fits = len(self.stages) == 1 and task.space is not None
        fits = fits and not getattr(task.model, "canvas", 0) and not task.low_res
        what = f"{task.name} makes pictures of {task.size_px} px alone: a single stage of latents"
        require(fits, flag, size_px, f"{what} without a canvas can make others")
        assert task.space is not None
        step = task.space.factor * getattr(task.model, "stride", 1)
        whole = size_px > 0 and size_px % step == 0 and size_px <= MAX_SIZE_PX
        require(whole, flag, size_px, f"want a multiple of {step}, at most {MAX_SIZE_PX}")
        side = size_px // task.space.factor
        task = dataclasses.replace(task, shape=(side, side, *task.shape[2:]))
        origin = dataclasses.replace(self.origins[0], size_px=size_px)
        made = dataclasses.replace(stage, task=task)
        return dataclasses.replace(self, stages=(made,), origins=(origin,))


def generate(
    stages: Sequence[TrainedStage], columns: Columns, *, seeds: Int[Array, "b"]
) -> list[Resized]:
    """The pictures [b h w 3] of every stage, small to large, for b rows of columns and b seeds.

    columns: what the conditions of the stages read, see `prompt_columns`. If the first stage is a
    super-resolution stage, `low_res` is its input. Picture i depends only on row i and seed i.
    """
    keys = rng.per_example(seeds)
    pictures: list[Image] = []
    for stage in stages:
        run = sampling.compiled(sampling.sample, stage.settings)
        picture = run(stage.params, read_by(stage.task, columns), keys, task=stage.task)
        columns = {**columns, "low_res": picture}
        pictures.append(picture)
    return pictures


def prompt_columns(
    text: Text, mask: TextMask, negative: tuple[Text, TextMask] | None = None
) -> dict[str, Array]:
    """The columns of prompts. negative: the prompts that guidance moves away from."""
    columns = {"text": text, "text_mask": mask}
    if negative is not None:
        columns |= {f"{NEGATIVE}text": negative[0], f"{NEGATIVE}text_mask": negative[1]}
    return columns


def read_by(task: Denoising, columns: Columns) -> dict[str, Array]:
    """The columns that the task's conditions and critics read, also those of negative prompts.

    A condition of which there are no columns is told nothing, as a decoder without a vector.
    """
    known = {*task.prompts(), SHARE} if task.takes_prompts else set(task.prompts())
    for critic in (task.critic, task.classifier):
        known |= set(critic.reads) if critic else set()
    told = {name: column for name, column in columns.items() if unprefixed(name) in known}
    for one in task.conditions:
        if told and not told.keys() & one.prompts().keys():
            told |= one.nothing(len(next(iter(told.values()))))
    return told


def zeros(task: Denoising, count: int) -> dict[str, Array]:
    """Columns of zeros for `count` rows: no text, grey pictures."""
    return {
        name: jnp.zeros((count, *shape.shape), shape.dtype)
        for name, shape in task.prompts().items()
    }
