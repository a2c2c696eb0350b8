"""Two networks that take turns: one for all steps but the last, and one for that."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffjax.core.trees import Params
from diffjax.core.types import Image, LogSnr, PRNGKey, Resized
from diffjax.devices.mesh import Rules
from diffjax.models.unet import UNet


@dataclasses.dataclass(frozen=True)
class Turns:
    """Two `UNet`s of one shape, as Karlo's upsampler has them; `last` is asked above a log SNR.

    All rows of a call have one noise level.
    """

    model: UNet
    above: float

    @property
    def sharding(self) -> Rules:
        """Those of the network, which name a parameter wherever it lies."""
        return self.model.sharding

    @property
    def stride(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.model.stride

    def init(self, key: PRNGKey, *inputs: Array, **told: Array) -> dict[str, Params]:
        """Initial parameters of both."""
        keys = dict(zip(("first", "last"), jax.random.split(key), strict=True))
        made = {
            name: self.model.init(k, *inputs, **told)["params"]  # type: ignore[arg-type]
            for name, k in keys.items()
        }
        return {"params": made}

    def apply(
        self, variables: dict[str, Params], x_t: Image, logsnr_t: LogSnr, **told: Array
    ) -> Resized:
        """What the network whose turn it is says."""

        def says(name: str) -> Resized:
            params = {"params": variables["params"][name]}
            return self.model.apply(params, x_t, logsnr_t, **told)  # type: ignore[arg-type,return-value]

        ends = jnp.all(logsnr_t > self.above)
        return jax.lax.cond(ends, lambda: says("last"), lambda: says("first"))
