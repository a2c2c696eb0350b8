"""Bits per dimension of a whole cascade, by the chain rule.

A cascade of n stages draws z_1, the smallest picture, then z_2 given z_1, up to z_n = x. Let
q(z_k | z_k+1) say how a picture is shrunk. For any q Jensen's inequality gives

    -log p(x) <= E_q sum_k -log p(z_k | z_k-1)  +  E_q sum_(k<n) log q(z_k | z_k+1)

The stages' nats add up, the smaller pictures' entropies are paid back, and the sum is divided by
the dimensions of the largest picture, x.

- z_k a function f of z_k+1, rounded to 8 bits: q is a point mass, log q = 0. Of all z that may lead
  to x only z = f(x) is counted, p(x, f(x)) <= p(x): equal when the cascade never draws an x that
  does not shrink to the z it came from. Without rounding, log q would be +inf and the bound empty.
- z_k continuous and drawn with noise: log q is the noise's log-density. The gap is KL(q(z | x) ||
  p(z | x)): zero, for every x and every draw of z, when each stage is exact.
- Noise conditioning augmentation: the stage sees z' ~ q(z' | z), as the cascade draws it too. With
  z' one more latent of both p and q its density cancels: -log p(x | z) <= -E log p(x | z'), the
  same Jensen step. Exact stages then pay I(x; z | z'), what the noise hides of z.

A stage that is itself a bound (`bound.vlb`, `flow.dequantised_nats`) keeps the sum a bound.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from diffjax.core import rng
from diffjax.core.types import (
    Data,
    LogSnr,
    PerExample,
    PRNGKey,
    PRNGKeys,
    Reshaped,
    Schedule,
)
from diffjax.diffusion.likelihood.gaussian import gaussian_log_likelihood
from diffjax.diffusion.process import augment, sum_of_each

Keys: TypeAlias = PRNGKey | PRNGKeys
# (x, low_res, key) -> -log p(x | low_res) or a bound on it, [b] nats; low_res None: the first.
StageNats: TypeAlias = Callable[[Data, Reshaped | None, Keys], PerExample]
# (x, low_res as the network sees it, its logsnr, key) -> nats as above.
AugmentedStageNats: TypeAlias = Callable[[Data, Reshaped, LogSnr, Keys], PerExample]


class Shrunk(NamedTuple):
    """A smaller picture drawn from q(z | x), and log q(z | x) [b] in nats."""

    z: Reshaped
    log_q: PerExample


Shrink: TypeAlias = Callable[[Data, Keys], Shrunk]
Resize: TypeAlias = Callable[[Data], Reshaped]


class ChainBits(NamedTuple):
    """Bits per dimension of the largest picture, one per example.

    stages: each stage's share, smallest first; smaller pictures count fewer dimensions than x has.
    log_q: each shrinking's share, smallest first; 0 where it is a function.
    """

    stages: tuple[PerExample, ...]
    log_q: tuple[PerExample, ...]

    @property
    def total(self) -> PerExample:
        """The bound on -log2 p(x) per dimension."""
        return sum(self.stages + self.log_q, start=jnp.zeros_like(self.stages[0]))


def chain_bits_per_dim(
    stage_nats: Sequence[PerExample], log_q: Sequence[PerExample], dims: int
) -> ChainBits:
    """(sum_k -log p(z_k | z_k-1) + sum_(k<n) log q(z_k | z_k+1)) / (dims log 2).

    stage_nats, log_q: nats [b] of n stages and n - 1 shrinkings, smallest picture first.
    dims: how many numbers the largest picture holds, h w c.

    Raises:
      ValueError: for no stage, another number of shrinkings, or dims below 1.
    """
    if not stage_nats or len(log_q) != len(stage_nats) - 1:
        raise ValueError(
            f"stage_nats of {len(stage_nats)} stages, log_q of {len(log_q)} shrinkings: "
            "a cascade has at least one stage, and one shrinking fewer"
        )
    if dims < 1:
        raise ValueError(f"dims={dims}: at least 1")
    bits = lambda nats: nats / (dims * np.log(2.0))  # noqa: E731
    return ChainBits(tuple(map(bits, stage_nats)), tuple(map(bits, log_q)))


def cascade_bits_per_dim(
    stages: Sequence[StageNats], shrinks: Sequence[Shrink], x_0: Data, *, key: Keys
) -> ChainBits:
    """The chain's bits for pictures x_0: each is shrunk, stage by stage, and each stage gives nats.

    stages: n callables, smallest picture first, such as
      `lambda x, low_res, key: to_nats(vlb(bind(low_res), x, key=key, ...).total, x)`.
    shrinks: n - 1 callables, smallest first: shrinks[k] makes z_k from z_k+1, as the training of
      stage k + 1 does; see `rounded` and `noised`.
    """
    if len(shrinks) != len(stages) - 1:
        raise ValueError(f"{len(shrinks)} shrinks for {len(stages)} stages: one fewer than stages")
    key_shrink, key_stage = rng.split(key, 2)
    pictures: list[Data] = [x_0]
    log_q: list[PerExample] = []
    for shrink, key_z in zip(reversed(shrinks), rng.split(key_shrink, len(stages)), strict=False):
        z, log_density = shrink(pictures[0], key_z)
        pictures.insert(0, z)
        log_q.insert(0, log_density)
    nats = [
        stage(x, low_res, key_x)
        for stage, x, low_res, key_x in zip(
            stages, pictures, [None, *pictures[:-1]], rng.split(key_stage, len(stages)), strict=True
        )
    ]
    return chain_bits_per_dim(nats, log_q, int(np.prod(x_0.shape[1:])))


def rounded(resize: Resize) -> Shrink:
    """q is a point mass: z = resize(x), clipped and rounded to the 256 levels k / 127.5 - 1."""

    def shrink(x: Data, key: Keys) -> Shrunk:
        level = jnp.round(jnp.clip(resize(x) + 1.0, 0.0, 2.0) * 127.5)
        return Shrunk(level / 127.5 - 1.0, jnp.zeros(x.shape[:1], x.dtype))

    return shrink


def noised(resize: Resize, std: float) -> Shrink:
    """q(z | x) = N(resize(x), std^2), for stages that are densities of real pictures."""
    if not std > 0:
        raise ValueError(f"std={std}: above 0; without noise z has no density, see `rounded`")

    def shrink(x: Data, key: Keys) -> Shrunk:
        mean = resize(x)
        z = mean + std * rng.normal(key, mean.shape)
        log_q = gaussian_log_likelihood(z, mean, 2.0 * np.log(std))
        return Shrunk(z, sum_of_each(log_q))

    return shrink


def augmented(stage: AugmentedStageNats, aug_level: float, schedule: Schedule) -> StageNats:
    """A stage conditioned on a noised low_res, with the noise of level aug_level drawn here.

    Uses `augment.augment`, as training and sampling do. The bound holds for any level: see the
    text at the top of this module.
    """

    def nats(x: Data, low_res: Reshaped | None, key: Keys) -> PerExample:
        if low_res is None:
            raise ValueError("low_res=None: the first stage has no picture to augment")
        key_aug, key_stage = rng.split(key, 2)
        level = jnp.full(low_res.shape[:1], aug_level, low_res.dtype)
        noisy, logsnr = augment(low_res, level, key=key_aug, schedule=schedule)
        return stage(x, noisy, logsnr, key_stage)

    return nats
