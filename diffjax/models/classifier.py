"""A classifier of noised pictures: the first half of ADM's U-Net, pooled by attention."""

from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from diffjax.core.types import Image, LogSnr, PRNGKeys
from diffjax.devices.mesh import Rules
from diffjax.models.layers.blocks import Norm
from diffjax.models.layers.pool import AttentionPool
from diffjax.models.levels import SHARDING as OF_LEVELS
from diffjax.models.levels import Levels

SHARDING: Rules = ((r"(.*/)?pool/positions", (None,)), *OF_LEVELS)


class Classifier(Levels):
    """The way down and the middle of a U-Net, a norm, silu, and a pool (Dhariwal & Nichol 2021).

    outputs: the number of classes. Fields of the way up have no effect. The pool is float32, and
    so are the logits.
    """

    outputs: int = 1_000
    sharding: ClassVar[Rules] = SHARDING

    @nn.compact
    def __call__(
        self, x_t: Image, logsnr_t: LogSnr, dropout_key: PRNGKeys | None = None
    ) -> Float[Array, "b k"]:
        """Noised picture of one size, its noise level -> logits."""
        conditions = self._conditions(logsnr_t)
        h, _ = self._down([x_t], conditions, dropout_key)
        h = nn.silu(Norm(self.norm_eps, self.norm_groups, name="norm")(h))
        return AttentionPool(self.outputs, self.head_width, name="pool")(h)
