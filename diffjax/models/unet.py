"""The U-Net: Imagen's 64 px network, and its ancestors.

By default it is Imagen's (Saharia et al. 2022, app. F.1). With other fields it is the network of
DDPM (Ho et al. 2020), of improved DDPM (Nichol & Dhariwal 2021), ADM (Dhariwal & Nichol 2021) or
GLIDE (Nichol et al. 2022); configs/ddpm.py, iddpm.py, adm.py and glide64.py have their values.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float, Int

from diffjax.core.types import Image, LogSnr, PRNGKeys, Resized, Text, TextMask, TokenIds
from diffjax.models.layers.blocks import Head
from diffjax.models.layers.finish import Finish
from diffjax.models.levels import SHARDING as SHARDING
from diffjax.models.levels import Conditions, Levels


class UNet(Levels):
    """Residual blocks with attention on the way down and up; skips are concatenated.

    from_low_res: it answers with a difference to the small picture, for networks that are too
    narrow to pass that on; it predicts x_0 then. In no paper. finish: the channels of `Finish`, for
    networks on patches; 0: none.
    """

    from_low_res: bool = False
    finish: int = 0

    @nn.compact
    def __call__(
        self,
        x_t: Image,
        logsnr_t: LogSnr,
        text: Text | None = None,
        text_mask: TextMask | None = None,
        label: Int[Array, " b"] | None = None,
        vector: Float[Array, "b v"] | None = None,
        masked: Image | None = None,
        mask: Float[Array, "b h w 1"] | None = None,
        low_res: Image | None = None,
        dropout_key: PRNGKeys | None = None,
        tokens: TokenIds | None = None,
    ) -> Resized:
        """Noisy picture, noise level and conditions -> eps, v or x_0, as the network was trained.

        masked, mask: a picture with a hole, and the hole as 1.0; they are concatenated as channels,
        and so is low_res, a smaller picture that was enlarged. dropout_key: None for no dropout.
        tokens: of the text, for a network with `words`.
        """
        conditions = self._conditions(logsnr_t, text, text_mask, label, vector, tokens)
        inputs = [x_t] if masked is None or mask is None else [x_t, masked, mask]
        inputs += [] if low_res is None else [low_res]
        channels = self.out_channels or x_t.shape[-1]
        answer = self._answer(inputs, conditions, dropout_key, channels)
        answer = answer + low_res if self.from_low_res and low_res is not None else answer
        if self.finish:
            last = Finish(self.finish, self.convolution, self.dtype, name="finish")
            answer = last(answer, inputs, conditions[0])
        return answer

    # called inside a compact method
    def _answer(
        self,
        inputs: Sequence[Resized],
        conditions: Conditions,
        dropout_key: PRNGKeys | None,
        channels: int,
    ) -> Resized:
        """What the network says: the way down, the middle, the way up, and the head."""
        h, skips = self._down(inputs, conditions, dropout_key)
        num = self.num_blocks
        for level in range(len(self.mults) - 1, -1, -1):
            block = functools.partial(
                self._block, level=level, conditions=conditions, dropout_key=dropout_key
            )
            # outside of the scan: the first block has a wider input, the last a narrower skip
            h = block(h, name=f"up_{level}_0", skip=skips.pop())
            equal = [skips.pop() for _ in range(num - 1)]
            h, _ = self._equal_blocks(h, level, f"up_{level}", conditions, dropout_key, equal)
            h = block(h, name=f"up_{level}_{num}", skip=skips.pop())
            if level > 0:
                h = self._moved(h, level, level - 1, conditions, dropout_key)
        parts = (self.patch, self.convolution, self.norm_groups, self.norm_eps)
        return Head(channels, *parts, name="head")(h)
