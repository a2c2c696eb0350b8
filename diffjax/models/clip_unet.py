"""The decoder of Karlo: ADM's U-Net, told everything by the towers of a CLIP."""

from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from diffjax.core.types import Image, LogSnr, PRNGKeys, Resized, Text, TextMask
from diffjax.devices.mesh import Rules
from diffjax.models.layers.clip_conditioning import ClipConditioning
from diffjax.models.unet import SHARDING as OF_UNET
from diffjax.models.unet import UNet

# A rule for each parameter.
SHARDING: Rules = (
    (r"(.*/)?text_vector/kernel", (None, "fsdp")),
    (r"(.*/)?no_vector", (None,)),
    *OF_UNET,
)


class ClipUNet(UNet):
    """`UNet` with `ClipConditioning` in the place of `Conditioning`."""

    sharding: ClassVar[Rules] = SHARDING

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x_t: Image,
        logsnr_t: LogSnr,
        text: Text,
        text_mask: TextMask,
        text_vector: Float[Array, "b v"],
        vector: Float[Array, "b v"],
        dropout_key: PRNGKeys | None = None,
    ) -> Resized:
        """As `UNet`. text_vector, vector: those of the text and of the picture."""
        told = ClipConditioning(
            4 * self.width,
            self.token_width,
            self.dtype,
            features=0 if self.steps is None else self.width,
            steps=self.steps,
            name="conditioning",
        )(logsnr_t, text, text_mask, text_vector, vector)
        return self._answer([x_t], told, dropout_key, self.out_channels or x_t.shape[-1])
