"""The task of a student that learns to make pictures in fewer steps than its teacher."""

import dataclasses
from dataclasses import dataclass, field

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core.types import PerExample, PRNGKey, PRNGKeys
from diffjax.devices.mesh import Rules
from diffjax.diffusion.process import diffuse, mean_of_each
from diffjax.diffusion.sampling.spacing import SPACINGS
from diffjax.diffusion.sampling.step import image_of
from diffjax.diffusion.training import distillation
from diffjax.diffusion.training.weighting import log_weight
from diffjax.tasks import sampling
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import by_noise_level
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import (
    ALONE,
    Columns,
    ExampleShapes,
    Losses,
    Memory,
    Params,
    Peers,
    register,
)

# The spacings of which every k-th rung of k n steps is a rung of n steps.
NESTED = ("uniform", "logsnr", "trailing")


@register
@dataclass(frozen=True)
class Distilled:
    """A network that takes one step of DDIM where its teacher, a copy of it, takes several.

    of: the student's task, without weights; its settings say the number of its steps, which are
    taken with DDIM and without guidance. teacher_steps: the number of the teacher's, a multiple of
    it. guided: the teacher's guidance and thresholds. checkpoint: a digest of the teacher, so that
    tasks of different teachers differ. frozen: the teacher's parameters under "teacher", and the
    own frozen weights of `of` under "own".
    """

    of: Denoising
    teacher_steps: int
    guided: SampleSettings
    checkpoint: str = ""
    frozen: Params = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """The name of the student's task."""
        return self.of.name

    @property
    def whole_batch(self) -> bool:
        """Whether its loss compares examples with each other."""
        return self.of.whole_batch

    @property
    def sharding(self) -> Rules:
        """Those of the student."""
        return self.of.sharding

    @property
    def whole(self) -> Denoising:
        """The student's task with its own frozen weights: what samples the student."""
        return dataclasses.replace(self.of, frozen=self.frozen["own"])

    def columns(self) -> ExampleShapes:
        """Those of the student's task."""
        return self.of.columns()

    def init(self, key: PRNGKey) -> Params:
        """The teacher's parameters; new ones of the same shapes if there is no teacher."""
        teacher = self.frozen.get("teacher")
        return self.of.init(key) if teacher is None else teacher

    def first_memory(self) -> Memory:
        """That of the student's task."""
        return self.of.first_memory()

    def draw(
        self, key: PRNGKey, batch: Columns, step: Int[Array, ""], memory: Memory = None
    ) -> Columns:
        """The draws of the student's task; `u` says which of its rungs an example is on."""
        return self.whole.draw(key, batch, step, memory)

    def remember(self, memory: Memory, batch: Columns, losses: Losses) -> Memory:
        """That of the student's task."""
        return self.of.remember(memory, batch, losses)

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """w |x_0_hat - what leads to where the teacher ends|^2 at a rung of the student's ladder.

        Both are told the same, so that a row without its text is distilled too. Salimans & Ho
        2022, alg. 2.
        """
        task = self.whole
        x_0, told = task.seen(batch)
        ladders = self.ladders(batch["u"])
        logsnr_t = ladders[:, 0]
        x_t = diffuse(x_0, batch["eps"], logsnr_t)
        known = task.known(batch)
        teacher = sampling.denoiser(
            self.frozen["teacher"], told, known, task=task, settings=self.guided
        )
        target = distillation.target(teacher, x_t, ladders)
        x_0_hat = image_of(sampling.plain_denoiser(params, told, task), x_t, logsnr_t)
        weight = jnp.exp(log_weight(task.weighting, logsnr_t))
        error = weight * mean_of_each(jnp.square(x_0_hat - target))
        return Losses(batch["weight"] * error, by_noise_level(error, logsnr_t))

    def ladders(self, u: PerExample) -> Float[Array, "b n"]:
        """For each example the teacher's rungs from one of the student's to its next.

        u: times in [0, 1], of which equal shares are the student's rungs; 1 is noise.
        """
        settings = self.of.settings
        rungs = SPACINGS[settings.spacing](self.of.schedule, self.teacher_steps)
        count = settings.num_steps
        steps = self.teacher_steps // count
        rung = jnp.clip(jnp.floor((1.0 - u) * count), 0, count - 1).astype(jnp.int32)
        return jnp.take(rungs, rung[:, None] * steps + jnp.arange(steps + 1))

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """Pictures of the student, in as many steps as it shall take."""
        return self.whole.preview(params, batch, keys)
