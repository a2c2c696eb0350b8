"""Objectives: (network, x_0, eps, u) -> the error of each example, without chance."""

from dataclasses import dataclass

from jaxtyping import Array, Float

from diffjax.core.types import Image, Network, Schedule
from diffjax.diffusion.predict import Kind
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.training.loss import weighted_error
from diffjax.diffusion.training.weighting import Weighting


@dataclass(frozen=True)
class Simple:
    """w |x_0 - x_0_hat|^2 of each example."""

    schedule: Schedule
    predict: Kind
    weighting: Weighting

    def __call__(
        self, network: Network, x_0: Image, eps: Image, u: Float[Array, " b"]
    ) -> Float[Array, " b"]:
        """[b]."""
        logsnr_t = self.schedule(u)
        output = network(diffuse(x_0, eps, logsnr_t), logsnr_t)
        return weighted_error(output, x_0, eps, logsnr_t, self.predict, self.weighting)


simple = Simple
