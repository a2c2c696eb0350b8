"""The mask of a text, and the null text, which stands for no text."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from diffjax.core.types import Text, TextMask


def mask_from_length(length: Int[Array, "b"], max_length: int) -> Bool[Array, "b {max_length}"]:
    """True at the first `length` of `max_length` positions."""
    return jnp.arange(max_length)[None, :] < length[:, None]


def null_text(text: Text, mask: TextMask) -> tuple[Text, TextMask]:
    """The null text: zeros, of which only the first position is visible.

    It keeps only the shape of the prompt, and nothing of its words or its length. One position is
    visible, because attention over no position is undefined.
    """
    first = jnp.arange(mask.shape[1]) == 0
    return jnp.zeros_like(text), jnp.broadcast_to(first, mask.shape)


def drop_text(
    text: Text,
    mask: TextMask,
    keep: Bool[Array, "b"],
    nothing: tuple[Text, TextMask] | None = None,
) -> tuple[Text, TextMask]:
    """The text in rows with `keep`, else the null text, to train for classifier-free guidance.

    nothing: what stands for no text in place of the null text.
    """
    no_text, no_mask = nothing or null_text(text, mask)
    return (
        jnp.where(keep[:, None, None], text, no_text),
        jnp.where(keep[:, None], mask, no_mask),
    )
