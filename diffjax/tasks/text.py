"""What the image models are told about the text: its mask, and what "no text" looks like."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from diffjax.core.types import Text, TextMask


def mask_from_length(length: Int[Array, "b"], max_length: int) -> Bool[Array, "b {max_length}"]:
    """True at the first `length` of `max_length` positions."""
    return jnp.arange(max_length)[None, :] < length[:, None]


def null_text(text: Text, mask: TextMask) -> tuple[Text, TextMask]:
    """The unconditional prompt: zeros, seen at the first position alone.

    Of the prompt it keeps the shape and nothing else: not its words, not its length.
    One position stays visible, because attention over none is undefined.
    """
    first = jnp.arange(mask.shape[1]) == 0
    return jnp.zeros_like(text), jnp.broadcast_to(first, mask.shape)


def drop_text(text: Text, mask: TextMask, keep: Bool[Array, "b"]) -> tuple[Text, TextMask]:
    """The text where `keep`, the null text elsewhere: classifier-free guidance's training."""
    no_text, no_mask = null_text(text, mask)
    return (
        jnp.where(keep[:, None, None], text, no_text),
        jnp.where(keep[:, None], mask, no_mask),
    )
