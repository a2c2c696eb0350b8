"""The variational bound of the chain of T steps that a task was trained as, and its parts by time.

What papers report as the negative log-likelihood (Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021,
tables 1 and 2). Unlike the bound of infinitely many steps (`denoising.Bits`) it depends on the
variance of the steps and on their number.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import PRNGKeys
from diffjax.diffusion.likelihood.bound import vlb_by_time
from diffjax.diffusion.sampling.threshold import static_threshold
from diffjax.evaluation.denoising import denoiser_of
from diffjax.evaluation.measure import Numbers
from diffjax.tasks.denoising import Denoising, decoded
from diffjax.tasks.task import Columns, Params

GROUPS = 20  # of the steps, from noise to clean, in which the parts are summed
TOTAL, PARTS = "bits_per_dim", ("prior", "diffusion", "decoder")


@dataclass(frozen=True)
class ChainBound:
    """-log2 p(x | conditions) per dimension, at most, of ancestral sampling by all T steps.

    If the task is sampled with x_0_hat clipped to [-1, 1], so it is here, as in the code of
    improved DDPM: otherwise, where x_t is noise alone, a small error of eps is a large one of x_0.
    gamma: of the variance small^(1 - gamma) large^gamma of a network that does not learn one. The
    decoder then has the small variance, as in the code of Ho et al. 2020. groups: at most so many;
    the steps are split into this many of equal size, up to one.
    """

    gamma: float = 0.0
    groups: int = GROUPS

    def __call__(self, task: Denoising, params: Params, batch: Columns, keys: PRNGKeys) -> Numbers:
        """`bits_per_dim`, its `prior`, `diffusion` and `decoder`, and the parts by time.

        `term_I`: the bits per dimension of group I of the steps, of which the first is noisiest;
        all of them are `diffusion` and `decoder`. `mse_I`: the mean of |eps - eps_hat|^2 there.
        """
        column = batch[task.of]
        denoise = denoiser_of(task, params, batch, keys)
        if task.settings.threshold == "static":
            denoise = static_threshold(denoise)
        found = vlb_by_time(
            denoise,
            decoded(column),
            logsnrs=task.learning.ladder(task.schedule_of(params)),
            key=rng.stream(keys, "chain_bound"),
            gamma=self.gamma,
            decoder_gamma=0.0,
            eight_bit=column.dtype == jnp.uint8,
        )
        numbers = {TOTAL: found.bound.total, **found.bound._asdict()}
        terms, errors = (self._grouped(rows) for rows in (found.terms, found.error))
        numbers |= {f"term_{i}": jnp.sum(rows, axis=0) for i, rows in enumerate(terms)}
        return numbers | {f"mse_{i}": jnp.mean(rows, axis=0) for i, rows in enumerate(errors)}

    def _grouped(self, rows: Float[Array, "n b"]) -> list[Float[Array, "_ b"]]:
        return jnp.array_split(rows, min(self.groups, len(rows)))
