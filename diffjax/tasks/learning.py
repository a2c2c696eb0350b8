"""Options of the training of a denoising task: what it learns beside x_0, how errors count."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffjax.core import rng
from diffjax.core.types import Data, LogSnr, Network, PRNGKey, Reshaped, Schedule
from diffjax.diffusion import schedule as schedules
from diffjax.diffusion.predict import Kind, to_x_0
from diffjax.diffusion.sampling.spacing import at_steps, on_grid, uniform
from diffjax.diffusion.table import staircase
from diffjax.diffusion.training import objectives, uncertainty
from diffjax.diffusion.training.offset import offset_noise
from diffjax.tasks.task import Columns, Params

Name: TypeAlias = Literal["simple", "hybrid", "vlb"]


@dataclass(frozen=True)
class Learning:
    """The choices of a training objective.

    objective: "simple" is the weighted error; "vlb" is the variational bound with `num_levels`
    levels, in bits per dimension; "hybrid" is the first plus vlb_weight times the second (Nichol &
    Dhariwal 2021, eq. 16). The last two learn the variance, so the network has twice the channels.
    discrete: training visits the `num_levels` steps of the schedule's table alone, as a chain of so
    many steps; else levels between them too. over: "u" weights levels as the schedule visits them,
    "logsnr" by their width in log SNR (Kingma & Gao 2023). self_condition: how often the network
    gets its own guess (Chen et al. 2022). uncertainty: features of a learned uncertainty by level,
    0 for none (Karras et al. 2024).
    learned_schedule: hidden units of a learned monotone schedule, 0 for none (Kingma et al. 2021).
    precondition: EDM's scaling of the input (Karras et al. 2022). offset_noise: the deviation of
    what is added to the noise of a whole channel (Guttenberg 2023), 0 for none.
    """

    objective: Name = "simple"
    over: Literal["u", "logsnr"] = "u"
    num_levels: int = 1000
    vlb_weight: float = 0.001
    self_condition: float = 0.0
    uncertainty: int = 0
    learned_schedule: int = 0
    precondition: bool = False
    offset_noise: float = 0.0
    discrete: bool = False

    @property
    def learns_variance(self) -> bool:
        """Whether the network also predicts a variance."""
        return self.objective != "simple"

    def init(self, key: PRNGKey) -> Params:
        """The initial parameters that are not the network's."""
        own = {}
        if self.uncertainty:
            own["uncertainty"] = uncertainty.init(self.uncertainty)
        if self.learned_schedule:
            own["schedule"] = schedules.monotone_init(
                rng.stream(key, "schedule"), self.learned_schedule
            )
        return own

    def draw(self, key: PRNGKey, rows: int) -> Columns:
        """`sees_guess` [b], equal for the whole batch, so that half of the steps need no guess."""
        if not self.self_condition:
            return {}
        coin = jax.random.bernoulli(rng.stream(key, "self_condition"), self.self_condition)
        return {"sees_guess": jnp.broadcast_to(coin, (rows,))}

    def noise(self, key: PRNGKey, eps: Data) -> Data:
        """The noise of a batch: eps, with that of whole channels if it is wanted."""
        if not self.offset_noise:
            return eps
        return offset_noise(eps, rng.stream(key, "offset_noise"), self.offset_noise)

    def schedule_of(self, schedule: Schedule, params: Params) -> Schedule:
        """The learned schedule if there is one, else `schedule`."""
        return schedules.monotone(params["schedule"]) if self.learned_schedule else schedule

    def ladder(self, schedule: Schedule) -> Float[Array, " n"]:
        """The rungs of the chain of `num_levels` steps, from noise down to the clean end."""
        if not self.discrete:
            return uniform(schedule, self.num_levels)
        return at_steps(on_grid(schedule, self.num_levels), np.arange(self.num_levels)[::-1])

    def objective_of(
        self, schedule: Schedule, predict: Kind, weighting: str
    ) -> objectives.Objective:
        """(network, x_0, eps, u) -> the error of each example."""
        if self.objective == "simple":
            levels = on_grid(schedule, self.num_levels) if self.discrete else None
            visited = schedule if levels is None else staircase(levels)
            return objectives.simple(visited, predict, weighting, self.over)
        ladder = self.ladder(schedule)
        if self.objective == "vlb":
            return objectives.vlb(ladder, predict, gamma=None)
        return objectives.hybrid(ladder, predict, weighting, self.vlb_weight)

    def beside(self, x_t: Data, guess: Data) -> Reshaped:
        """The input of the network: x_t, and for a self-conditioned network also its last guess."""
        return jnp.concatenate([x_t, guess], axis=-1) if self.self_condition else x_t

    def for_training(self, network: Network, predict: Kind, batch: Columns) -> Network:
        """The network with its own first guess as a further input, or with zeros in its place.

        `sees_guess` decides which. No gradient goes through the guess.
        """
        if not self.self_condition:
            return network
        coin: Bool[Array, ""] = batch["sees_guess"][0]

        def conditioned(x_t: Data, logsnr_t: LogSnr) -> Reshaped:
            nothing = jnp.zeros_like(x_t)

            def guess() -> Data:
                output = network(self.beside(x_t, nothing), logsnr_t)[..., : x_t.shape[-1]]
                x_0_hat = to_x_0(output, x_t, logsnr_t, predict)
                return jax.lax.stop_gradient(x_0_hat).astype(x_t.dtype)

            seen = jax.lax.cond(coin, guess, lambda: nothing)
            return network(self.beside(x_t, seen), logsnr_t)

        return conditioned

    def uncertain(
        self, error: Float[Array, " b"], logsnr_t: LogSnr, params: Params
    ) -> Float[Array, " b"]:
        """L / e^u + u with u learned by level; the error itself if no uncertainty is learned."""
        if not self.uncertainty:
            return error
        return uncertainty.uncertain(error, uncertainty.apply(params["uncertainty"], logsnr_t))


def by_noise_level(error: Float[Array, " b"], logsnr: LogSnr) -> dict[str, Float[Array, " b"]]:
    """The error at high noise (logsnr < 0) and at low noise; NaN for rows of the other kind."""
    noisy = logsnr < 0
    return {
        "loss_noisy": jnp.where(noisy, error, jnp.nan),
        "loss_clean": jnp.where(noisy, jnp.nan, error),
    }
