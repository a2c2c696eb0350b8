"""How the codes of a codebook follow the latents that choose them, and how unused ones return."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core.types import PRNGKey
from diffjax.tasks.task import Memory

Codes = Float[Array, "k z"]


@dataclass(frozen=True)
class Following:
    """Averages over steps of how often each code is chosen, and by which latents.

    average: codes are the means of the latents that chose them, with averages that keep this share
    in each step (van den Oord et al. 2017, app. A.1). 0: codes are trained by their gradient.
    restart: a code that is chosen less often in a step, on average, becomes a latent of the batch
    at random (Dhariwal et al. 2020, "Jukebox", sec. 3.1). 0: none does.
    """

    average: float = 0.0
    restart: float = 0.0

    @property
    def remembers(self) -> bool:
        """Whether there is a memory at all."""
        return bool(self.average or self.restart)

    def first(self, num: int, width: int) -> Memory:
        """No code was chosen yet. `moved`: which codes the next parameters take from `codes`."""
        return {
            "steps": jnp.zeros(()),
            "count": jnp.zeros(num),
            "total": jnp.zeros((num, width)),
            "codes": jnp.zeros((num, width)),
            "moved": jnp.zeros(num, bool),
        }

    def after(
        self,
        memory: Memory,
        latents: Float[Array, "n z"],
        index: Int[Array, " n"],
        key: PRNGKey,
    ) -> Memory:
        """The memory after a batch: of all its places, the latent and the code it chose.

        N_k <- g N_k + (1 - g) n_k and m_k <- g m_k + (1 - g) sum z; code k is m_k / N_k.
        """
        num, keep = len(memory["count"]), self.average or 0.99
        chosen = jax.ops.segment_sum(jnp.ones(len(index)), index, num)
        sums = jax.ops.segment_sum(latents, index, num)
        count = keep * memory["count"] + (1 - keep) * chosen
        total = keep * memory["total"] + (1 - keep) * sums
        steps = memory["steps"] + 1
        # averages that begin at zero are too small by this factor
        per_step = count / (1 - keep**steps)
        dead = per_step < self.restart
        at = jax.random.randint(key, (num,), 0, len(latents))
        fresh = latents[at]
        if self.restart:
            one = 1 - keep**steps  # as if chosen once in each step
            count = jnp.where(dead, one, count)
            total = jnp.where(dead[:, None], one * fresh, total)
        moved = dead | (count > 0) if self.average else dead
        codes = jnp.where(dead[:, None], fresh, total / jnp.where(count > 0, count, 1.0)[:, None])
        return {"steps": steps, "count": count, "total": total, "codes": codes, "moved": moved}

    def moved(self, codes: Codes, memory: Memory) -> Codes:
        """The codes after a step of the optimiser, and after the memory."""
        return jnp.where(memory["moved"][:, None], memory["codes"], codes)
