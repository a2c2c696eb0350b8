"""The task of a stage that learns on its own way from noise to pictures, not on noised pictures."""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffjax.core.types import PRNGKey, PRNGKeys
from diffjax.devices.mesh import Rules
from diffjax.diffusion.process import mean_of_each
from diffjax.diffusion.sampling import sampler
from diffjax.diffusion.sampling.spacing import SPACINGS
from diffjax.diffusion.sampling.step import image_of
from diffjax.models.perceptual import Perceptual
from diffjax.tasks import sampling
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import by_noise_level
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


@register
@dataclass(frozen=True)
class Rehearsed:
    """A denoiser of few steps that is trained where its own sampling leads it.

    Noised pictures hold what a sampler's x_t do not: the right colours and edges under the noise.
    So a network believes its own mistakes of earlier steps, and the last ones do not mend them
    (Ning et al. 2023, "Input perturbation"; Deng et al. 2022, sec. 3.3). Here x_t comes of the
    steps that sampling takes, and what it shall say there is the picture of the caption itself.
    That is a regression: it suits a stage whose conditions nearly say which picture is meant.

    of: the task, without weights; its settings say the steps, of DDIM and without guidance.
    perceptual: a distance whose parameters are `frozen["perceptual"]`; weight: of it beside the
    squared error. frozen: also the own frozen weights of `of` under "own".
    """

    of: Denoising
    perceptual: Perceptual | None = None
    weight: float = 0.0
    frozen: Params = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """The name of the task that it learns."""
        return self.of.name

    @property
    def whole_batch(self) -> bool:
        """Whether its loss compares examples with each other."""
        return self.of.whole_batch

    @property
    def sharding(self) -> Rules:
        """Those of its network."""
        return self.of.sharding

    @property
    def whole(self) -> Denoising:
        """The task with its own frozen weights: what samples it."""
        return dataclasses.replace(self.of, frozen=self.frozen.get("own", {}))

    def columns(self) -> ExampleShapes:
        """Those of the task."""
        return self.of.columns()

    def init(self, key: PRNGKey) -> Params:
        """Those of the task; a run begins with trained ones, `start.base`."""
        return self.of.init(key)

    def first_memory(self) -> Memory:
        """That of the task."""
        return self.of.first_memory()

    def draw(
        self, key: PRNGKey, batch: Columns, step: Int[Array, ""], memory: Memory = None
    ) -> Columns:
        """The draws of the task: `eps` is where a row begins, `u` says at which rung it learns."""
        return self.whole.draw(key, batch, step, memory)

    def remember(self, memory: Memory, batch: Columns, losses: Losses) -> Memory:
        """That of the task."""
        return self.of.remember(memory, batch, losses)

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """|x_0_hat(x_t) - x_0|^2 + weight * perceptual distance, x_t being on the row's own way.

        No gradient goes through the steps that led to x_t.
        """
        task = self.whole
        x_0, told = task.seen(batch)
        settings = task.settings
        rungs = SPACINGS[settings.spacing](task.schedule, settings.num_steps)
        samples = sampling.denoiser(
            jax.lax.stop_gradient(params), told, batch, task=task, settings=settings
        )
        step = sampler.by_name(settings.sampler)
        way = sampler.trajectory(samples, batch["eps"], logsnrs=rungs[:-1], step=step, key=None)
        count = settings.num_steps
        rung = jnp.clip(jnp.floor((1.0 - batch["u"]) * count), 0, count - 1).astype(jnp.int32)
        x_t = jax.vmap(lambda own, at: own[at], in_axes=(1, 0))(way.x, rung)
        logsnr_t = jnp.take(rungs, rung)
        x_0_hat = image_of(sampling.plain_denoiser(params, told, task), x_t, logsnr_t)
        error = mean_of_each(jnp.square(x_0_hat - x_0))
        loss = error
        if self.perceptual is not None:
            unlike = self.perceptual.distance(self.frozen["perceptual"], x_0_hat, x_0)
            loss = error + self.weight * unlike
        return Losses(batch["weight"] * loss, by_noise_level(error, logsnr_t))

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """Pictures in its steps."""
        return self.whole.preview(params, batch, keys)
