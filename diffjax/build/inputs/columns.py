"""Chooses by the config what is read of records: the columns of batches and those of previews."""

import functools
from collections.abc import Sequence

from ml_collections import ConfigDict

from diffjax.build.inputs import texts
from diffjax.build.kinds import contrastive
from diffjax.build.models import PRIORS
from diffjax.core.errors import BadData
from diffjax.data import pipeline, readers
from diffjax.data.broken import BrokenRecord
from diffjax.data.record import Record, RecordSource, clean
from diffjax.encoders.autoencoder.latents import Latents
from diffjax.encoders.cache import cache
from diffjax.encoders.t5 import TextEncoder
from diffjax.tasks.contrastive import VECTOR
from diffjax.tasks.space import LATENT
from diffjax.tasks.vectors import IMAGE_VECTOR, TEXT_VECTOR
from diffjax.training.run import Shown


def readers_of(
    config: ConfigDict, embed: readers.Embed | None, vector_of: readers.Embed | None = None
) -> list[readers.Reader]:
    """The readers of what is told of a picture, and last that of the picture itself.

    A CLIP on a backbone reads no pictures, but what the backbone has made of them, and a prior
    reads their vectors. vector_of: a caption -> its vector [1 d], where a stage is told it.
    """
    told = told_of(config, embed, vector_of)
    if contrastive.is_contrastive(config) and config.contrastive.backbone:
        return told
    if config.model.kind in PRIORS:
        return told
    own = [readers.prior] if "lora" in config and config.lora.prior else []
    return [*told, picture_of(config), *own]


def picture_of(config: ConfigDict) -> readers.Reader:
    """The reader of the picture."""
    data = config.data
    return readers.picture(
        data.size_px,
        data.crop_px or None,
        aspect=data.aspect,
        ground=data.ground,
        flip=data.flip,
        min_crop=config.classifying.min_crop if "classifying" in config else 1.0,
    )


def trained_on(
    config: ConfigDict,
    embed: readers.Embed | None,
    moments: Latents | None,
    vector_of: readers.Embed | None = None,
) -> list[readers.Reader]:
    """The readers of the columns that training needs: moments, if there are some, are in place of
    the picture.
    """
    if moments is None:
        return readers_of(config, embed, vector_of)
    return [*told_of(config, embed), readers.array(LATENT, moments.of)]


def told_of(
    config: ConfigDict, embed: readers.Embed | None, vector_of: readers.Embed | None = None
) -> list[readers.Reader]:
    """The readers of what is told of a picture: of all columns but the picture itself."""
    found: list[readers.Reader] = []
    words = [word.casefold() for word in config.data.caption_words]
    if embed is not None and vector_of is not None:
        length = config.text.max_tokens
        found.append(readers.text_with_vector(embed, length, TEXT_VECTOR, vector_of, words))
    elif embed is not None:
        found.append(readers.text(embed, config.text.max_tokens, words))
    if "tokens" in config:
        found.append(tokens_of(config, words))
    if contrastive.is_contrastive(config) and (made := contrastive.vectors_of(config)):
        found.append(readers.vector_of_picture(VECTOR, made.width))
    if "classes" in config:
        found.append(readers.label_below(config.classes.num))
    if "vectors" in config:
        found.append(readers.vector_of_picture(IMAGE_VECTOR, config.vectors.width))
    if "embedding" in config and config.embedding.of != IMAGE_VECTOR:
        found.append(readers.vector(config.embedding.of, config.embedding.width))
    return found


def tokens_of(config: ConfigDict, words: Sequence[str] = ()) -> readers.Reader:
    """The reader of the ids of a caption."""
    if not contrastive.is_contrastive(config):
        return readers.tokens(texts.token_reader_of(config).ids, words)
    padded = functools.partial(
        contrastive.tokenizer_of(config).padded, max_length=config.tokens.length
    )
    return readers.tokens(padded, words)


def shown_of(
    config: ConfigDict,
    records: RecordSource,
    encoder: TextEncoder | None,
    embed: readers.Embed | None,
    vector_of: readers.Embed | None = None,
) -> Shown:
    """The examples of previews: the prompts of the config, or records spread over the data set.

    A stage that starts from a picture always shows records, because it needs their pictures.
    """
    count = min(config.sample.num_images, len(records))
    shown: list[Record]
    of_pictures = ("mask", "contrastive", "autoencoding", "classifying", "vectors")
    starts_from_picture = any(name in config for name in of_pictures) or (
        "low_res" in config and config.low_res.size_px
    )
    prompts_of = config.sample.get("prompts", ())
    told = encoder is not None or "tokens" in config
    if prompts_of and told and not starts_from_picture:
        shown = [{"captions": (prompt,)} for prompt in prompts_of]
        prompts = filter(None, map(clean, prompts_of))
        if encoder is not None:
            embed = cache.ensure(cache.default_folder(encoder), encoder, prompts).embed
    else:
        shown = [_readable(records, i * len(records) // count) for i in range(count)]
    needed = [readers.caption, *told_of(config, embed, vector_of)]
    if starts_from_picture:
        needed.append(
            readers.picture(
                config.data.size_px, aspect=config.data.aspect, ground=config.data.ground
            )
        )
    # Of these few any may be broken: the run itself counts them.
    batches = pipeline.eval_batches(shown, needed, batch_size=len(shown), max_bad_fraction=1.0)
    columns = dict(next(batches))
    captions = tuple(str(caption) for caption in columns.pop("caption"))
    return Shown(columns, captions)


def _readable(records: RecordSource, index: int) -> Record:
    """The record at `index`, or the first one after it that is not broken.

    Raises:
      BadData: all are.
    """
    for at in (*range(index, len(records)), *range(index)):
        try:
            return records[at]
        except BrokenRecord:
            continue
    raise BadData(f"{records!r}: no record of it can be read")
