"""The vectors that a frozen CLIP makes of captions, as what fills a cache of captions.

One vector stands where other encoders have a row for each token, so `encoders/cache` keeps them as
it keeps embeddings.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffjax.data.record import clean
from diffjax.encoders.clip.encoder import Clip


@dataclasses.dataclass(frozen=True)
class CaptionVectors:
    """Captions -> the unit vector of each, as an embedding of one token."""

    clip: Clip
    max_length: int = 1

    @property
    def name(self) -> str:
        """For people, and of the folder of its cache."""
        return f"vectors-{self.clip.name}"

    @property
    def fingerprint(self) -> str:
        """The CLIP's."""
        return self.clip.fingerprint

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self.clip.width

    def encode(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """(the vectors [b 1 d], True everywhere)."""
        made = jnp.asarray(self.clip.of_captions(captions))[:, None]
        return made, jnp.ones(made.shape[:2], bool)


def of_prompts(clip: Clip, prompts: Sequence[str]) -> Float[np.ndarray, "n e"]:
    """The unit vectors of prompts, rounded as those of captions are; zeros for a blank one.

    Each prompt is encoded alone, because rounding may depend on the others of a batch.
    """
    alone = dataclasses.replace(clip, batch=1)
    rows = [alone.of_captions([one]) * bool(clean(one)) for one in prompts]
    return np.concatenate(rows).astype(np.float16).astype(np.float32)
