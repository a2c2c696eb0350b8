"""Readers turn a record into the columns of an example; the task decides which readers are used.

A reader takes its random draws from the generator that is passed; readers are called in their
order. Without a generator nothing is random: the first caption and the whole picture are used.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from diffjax.data import transforms
from diffjax.data.broken import BrokenRecord
from diffjax.data.record import Record, captions_of, first_caption, image_of, label_of, vector_of
from diffjax.data.sources.prior import PRIOR
from diffjax.images.colour import WHITE

# The columns of one example: arrays without a batch axis.
Columns: TypeAlias = dict[str, np.ndarray]
Reader: TypeAlias = Callable[[Record, np.random.Generator | None], Columns]
# caption -> its embedding [l d] without padding; called from several threads.
Embed: TypeAlias = Callable[[str], np.ndarray]
# caption -> its token ids [l], padded; called from several threads.
Tokenize: TypeAlias = Callable[[str], np.ndarray]


def captioned_pictures(
    *, size_px: int, crop_px: int | None = None, embed: Embed | None = None, max_length: int = 128
) -> tuple[Reader, ...]:
    """The readers of text-to-image: `image`, and `text` with `text_length`.

    Without `embed` the text is `caption`, as it is written.
    """
    return (
        caption if embed is None else text(embed, max_length),
        picture(size_px, crop_px),
    )


def picture(
    size_px: int,
    crop_px: int | None = None,
    *,
    aspect: str = "centre",
    ground: str = WHITE,
    flip: bool = False,
    min_crop: float = 1.0,
) -> Reader:
    """`image` uint8 [h w 3], h = w = `crop_px` (a random crop) or `size_px`.

    aspect: see `transforms.square`. ground: what shows where the picture is transparent. flip:
    mirror half of those whose captions name no side. min_crop: below 1, training sees a random
    square instead, see `transforms.random_square`.
    """
    if crop_px is not None and not 0 < crop_px <= size_px:
        raise ValueError(f"crop_px={crop_px} must be 1 to size_px={size_px}")
    return functools.partial(
        _picture,
        size_px=size_px,
        crop_px=crop_px,
        aspect=aspect,
        ground=ground,
        flip=flip,
        min_crop=min_crop,
    )


def caption(record: Record, rng: np.random.Generator | None) -> Columns:
    """`caption`: one of the record's captions, "" if it has none."""
    return {"caption": np.asarray(_chosen(record, rng))}


def text(embed: Embed, max_length: int, words: Sequence[str] = ()) -> Reader:
    """`text` [max_length d], zero beyond `text_length` int32; longer embeddings are cut.

    words: training sees only captions with one of them, of a record that has such; (): all.
    """
    return functools.partial(_text, embed=embed, max_length=max_length, words=words)


def text_with_vector(
    embed: Embed, max_length: int, of: str, vector_of: Embed, words: Sequence[str] = ()
) -> Reader:
    """As `text`, and `of` float32 [d]: the vector of the same caption, of which there is one."""
    return functools.partial(
        _text_with_vector, embed=embed, max_length=max_length, of=of, vector_of=vector_of,
        words=words,
    )  # fmt: skip


def tokens(tokenize: Tokenize, words: Sequence[str] = ()) -> Reader:
    """`tokens` int32 [l]: the ids of one of the record's captions. words: as in `text`."""
    return functools.partial(_tokens, tokenize=tokenize, words=words)


def label(record: Record, rng: np.random.Generator | None) -> Columns:
    """`label` int32: the class of the record."""
    return {"label": np.asarray(label_of(record), np.int32)}


def label_below(num: int) -> Reader:
    """`label`; a record of a class that is not 0 to num - 1 is broken, as -1 for no class is."""
    return functools.partial(_label_below, num=num)


def vector(of: str, width: int) -> Reader:
    """`of` float32 [width]: a vector of the record, such as another network's of its picture."""
    return functools.partial(_vector, of=of, width=width)


def vector_of_picture(of: str, width: int) -> Reader:
    """As `vector`; one of zeros stands for a picture that cannot be read: the record is broken."""
    return functools.partial(_vector_of_picture, of=of, width=width)


def array(name: str, read: Callable[[Record, np.random.Generator | None], np.ndarray]) -> Reader:
    """`name`: what a function says of the record, such as latents that are kept elsewhere."""
    return functools.partial(_array, name=name, read=read)


def _array(
    record: Record,
    rng: np.random.Generator | None,
    *,
    name: str,
    read: Callable[[Record, np.random.Generator | None], np.ndarray],
) -> Columns:
    return {name: read(record, rng)}


def prior(record: Record, rng: np.random.Generator | None) -> Columns:
    """`prior` bool: whether the record is of a class, and not of the new thing (see prior.py)."""
    return {PRIOR: np.asarray(bool(record.get(PRIOR)))}


def _label_below(record: Record, rng: np.random.Generator | None, *, num: int) -> Columns:
    columns = label(record, rng)
    if not 0 <= columns["label"] < num:
        raise BrokenRecord(f"its class is {columns['label']}, and there are 0 to {num - 1}")
    return columns


def _tokens(
    record: Record, rng: np.random.Generator | None, *, tokenize: Tokenize, words: Sequence[str]
) -> Columns:
    return {"tokens": np.asarray(tokenize(_chosen(record, rng, words)), np.int32)}


def _vector(record: Record, rng: np.random.Generator | None, *, of: str, width: int) -> Columns:
    return {of: vector_of(record, of, width)}


def _vector_of_picture(
    record: Record, rng: np.random.Generator | None, *, of: str, width: int
) -> Columns:
    found = vector_of(record, of, width)
    if not found.any():
        raise BrokenRecord("its picture cannot be read")
    return {of: found}


def _picture(
    record: Record,
    rng: np.random.Generator | None,
    *,
    size_px: int,
    crop_px: int | None,
    aspect: str,
    ground: str,
    flip: bool,
    min_crop: float,
) -> Columns:
    loaded = transforms.load(image_of(record), ground)
    if min_crop < 1 and rng is not None:
        image = transforms.random_square(loaded, size_px, min_crop, rng)
    else:
        image = transforms.square(loaded, size_px, aspect, ground=ground, rng=rng)
    if crop_px is not None and rng is not None:
        image = transforms.random_crop(image, crop_px, rng)
    if flip and rng is not None:
        image = transforms.mirrored(image, captions_of(record), rng)
    return {"image": image}


def _text(
    record: Record,
    rng: np.random.Generator | None,
    *,
    embed: Embed,
    max_length: int,
    words: Sequence[str],
) -> Columns:
    return _embedded(_chosen(record, rng, words), embed, max_length)


def _text_with_vector(
    record: Record,
    rng: np.random.Generator | None,
    *,
    embed: Embed,
    max_length: int,
    of: str,
    vector_of: Embed,
    words: Sequence[str],
) -> Columns:
    chosen = _chosen(record, rng, words)
    vector = np.asarray(vector_of(chosen))[0].astype(np.float32)
    return {**_embedded(chosen, embed, max_length), of: vector}


def _embedded(caption: str, embed: Embed, max_length: int) -> Columns:
    embedding = np.asarray(embed(caption))[:max_length]
    padded = np.zeros((max_length, embedding.shape[-1]), embedding.dtype)
    padded[: len(embedding)] = embedding
    return {"text": padded, "text_length": np.asarray(len(embedding), np.int32)}


def _chosen(record: Record, rng: np.random.Generator | None, words: Sequence[str] = ()) -> str:
    if rng is None:
        return first_caption(record)
    every = captions_of(record)
    found = [one for one in every if any(word in one.casefold() for word in words)]
    return transforms.choose_caption(found or every, rng)
