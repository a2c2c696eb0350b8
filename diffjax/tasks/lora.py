"""The task of training low-rank changes of another task's kernels, with all else frozen."""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffjax.core import trees
from diffjax.core.types import PRNGKey, PRNGKeys
from diffjax.devices.mesh import Rules
from diffjax.diffusion.process import alpha_sigma, diffuse, per_example
from diffjax.diffusion.sampling.step import image_of
from diffjax.models import lora
from diffjax.tasks import sampling
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.task import (
    ALONE,
    Columns,
    ExampleShapes,
    Losses,
    Memory,
    Params,
    Peers,
    Task,
    drawn,
    first_memory,
    register,
    remembered,
)

# The column that says which rows show what the base can draw anyway.
PRIOR = "prior"
# What they shall lead to: their pictures, or what the base says of them.
PICTURES, OF_THE_BASE = PRIOR_TARGETS = ("pictures", "base")


@register
@dataclass(frozen=True)
class Adapted:
    """Another task whose parameters are W + alpha / rank A B, where A and B alone are trained.

    of: that task, without weights. targets: the paths of the kernels W that change. prior_weight:
    how much rows of the column `prior` count, which keep the network from forgetting its class
    (DreamBooth, Ruiz et al. 2023, eq. 2); None if there is no such column. keeps: such rows shall
    lead to what the base says of them, in place of their pictures (Li & Hoiem 2017, "Learning
    without Forgetting"); `of` is a task of denoising then. checkpoint: a digest of
    the base, so that tasks of different bases differ. frozen: the parameters
    of `of` under "base", and its own frozen weights under "own". So neither is in the train state.
    """

    of: Task
    rank: int
    alpha: float
    targets: tuple[str, ...]
    prior_weight: float | None = None
    keeps: bool = False
    checkpoint: str = ""
    frozen: Params = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """The name of the task whose kernels change."""
        return self.of.name

    @property
    def whole_batch(self) -> bool:
        """Whether its loss compares examples with each other."""
        return self.of.whole_batch

    @property
    def sharding(self) -> Rules:
        """Those of A and B."""
        return lora.SHARDING

    @property
    def whole(self) -> Task:
        """The task whose kernels change, with its own frozen weights; it takes `merged`."""
        return dataclasses.replace(self.of, frozen=self.frozen["own"])  # type: ignore[type-var]

    def merged(self, params: Params) -> Params:
        """The parameters of `whole`."""
        return lora.merged(self.frozen["base"], params, self.alpha / self.rank)

    def columns(self) -> ExampleShapes:
        """Those of the task, and `prior` if rows of it have a weight of their own."""
        own = {} if self.prior_weight is None else {PRIOR: jax.ShapeDtypeStruct((), jnp.bool_)}
        return {**self.of.columns(), **own}

    def init(self, key: PRNGKey) -> Params:
        """A and B of each target, before training."""
        shapes = trees.named_leaves(jax.eval_shape(self.of.init, key))
        kernels = {name: shapes[name].shape for name in self.targets}
        return lora.init(key, kernels, self.rank)

    def first_memory(self) -> Memory:
        """That of the task."""
        return first_memory(self.whole)

    def draw(
        self, key: PRNGKey, batch: Columns, step: Int[Array, ""], memory: Memory = None
    ) -> Columns:
        """The draws of the task."""
        return drawn(self.whole, key, batch, step, memory)

    def remember(self, memory: Memory, batch: Columns, losses: Losses) -> Memory:
        """The task's memory, of losses without the weight of the prior."""
        weighed = losses.per_example / self._weights(batch, len(losses.per_example))
        return remembered(self.whole, memory, batch, losses._replace(per_example=weighed))

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """The task's losses of the merged parameters; those of prior rows times their weight."""
        if self.prior_weight is None:
            return self.whole.loss(self.merged(params), batch, peers)
        if self.keeps:
            losses = self._losses_of_keeping(params, batch)
        else:
            losses = self.whole.loss(self.merged(params), batch, peers)
        weights = self._weights(batch, len(losses.per_example))
        return losses._replace(per_example=weights * losses.per_example)

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """The preview of the task with the merged parameters."""
        return self.whole.preview(self.merged(params), batch, keys)

    def _losses_of_keeping(self, params: Params, batch: Columns) -> Losses:
        """The losses, where x_0 and eps of prior rows are what the base sees in their x_t."""
        task, base = self.whole, self.frozen["base"]
        assert isinstance(task, Denoising)
        x_0, told = task.seen(batch)
        schedule = task.schedule_of(base)
        objective = task.learning.objective_of(schedule, task.predict, task.weighting)
        logsnr_t = objective.logsnr(batch["u"])
        x_t = diffuse(x_0, batch["eps"], logsnr_t)
        said = image_of(sampling.plain_denoiser(base, told, task), x_t, logsnr_t)
        alpha, sigma = alpha_sigma(logsnr_t, x_t)
        kept = per_example(batch[PRIOR], x_t)
        x_0 = jnp.where(kept, said, x_0)
        eps = jnp.where(kept, (x_t - alpha * said) / sigma, batch["eps"])
        return task.loss_of(self.merged(params), {**batch, "eps": eps}, x_0, told)

    def _weights(self, batch: Columns, rows: int) -> Array:
        if self.prior_weight is None:
            return jnp.ones(rows)
        return jnp.where(batch[PRIOR], self.prior_weight, 1.0)
