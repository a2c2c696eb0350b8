"""Makes the data of a run from its config: records, embeddings, batches, and previews."""

from ml_collections import ConfigDict

from diffjax.build.embeddings import embeddings_of
from diffjax.core.errors import ConfigError, require
from diffjax.data import pipeline, readers
from diffjax.data.record import Record, RecordSource, clean
from diffjax.data.sources import digits, fake, tfds
from diffjax.devices import mesh as mesh_lib
from diffjax.encoders.cache import cache
from diffjax.encoders.t5 import TextEncoder
from diffjax.training.program import Training
from diffjax.training.run import Data, Shown


def open_data(config: ConfigDict, encoder: TextEncoder | None, training: Training) -> Data:
    """The batches of this process and the examples of previews; captions are encoded first.

    Raises:
      ConfigError: there is no such data set, or the embeddings belong to another encoder.
      StorageError: the disk has no room for the embeddings.
    """
    records = source_of(config)
    embed = None
    if encoder is not None:
        embed = embeddings_of(config, records, encoder, _encoding_progress).embed
    rows = mesh_lib.rows_here(mesh_lib.batch_sharding(training.mesh), config.data.batch_size)
    batches = pipeline.train_iterator(
        records,
        readers_of(config, embed),
        batch_size=config.data.batch_size,
        seed=config.seed,
        rows=rows,
        max_broken=max_broken_of(config),
    )
    return Data(batches, shown_of(config, records, encoder, embed))


def readers_of(config: ConfigDict, embed: readers.Embed | None) -> list[readers.Reader]:
    """The readers of the columns that the task needs."""
    found: list[readers.Reader] = (
        [] if embed is None else [readers.text(embed, config.text.max_tokens)]
    )
    if "classes" in config:
        found.append(readers.label)
    if "embedding" in config:
        found.append(readers.vector(config.embedding.of, config.embedding.width))
    return [*found, readers.picture(config.data.size_px, config.data.crop_px or None)]


def max_broken_of(config: ConfigDict) -> float:
    """The share of records that may have broken pictures."""
    return config.data.max_broken


def source_of(config: ConfigDict) -> RecordSource:
    """The records of the data set; the emoji data set is made when it is first used."""
    data = config.data
    require(bool(data.name), "data.name", "", "name a captioned data set or a prepared folder")
    kind, _, count = data.name.partition("/")
    if kind == "digits":
        return digits.Digits()
    if kind == "fake":
        require(count.isdigit() and int(count) > 0, "data.name", data.name, "fake/COUNT, COUNT > 0")
        return fake.Shapes(int(count), data.size_px)
    try:
        return tfds.open_source(
            data.name,
            data.split,
            names=data.names,
            image_key=data.image_key,
            caption_key=data.caption_key,
            vector_key=config.embedding.of if "embedding" in config else "",
        )
    except ValueError as error:
        raise ConfigError("data", f"{data.name} {data.split}", str(error)) from None


def held_out(config: ConfigDict, split: str) -> RecordSource:
    """The records of a split that is not trained on, whatever names data.names trains.

    Raises:
      ConfigError: the data set has no such split.
    """
    data = config.data
    kind = data.name.partition("/")[0]
    remedy = "name another, or train with train.evaluate_every=0"
    if kind == "digits":
        allowed = f"digits has no splits, all of it is trained on; {remedy}"
        raise ConfigError("data.validation_split", split, allowed)
    if kind == "fake":
        require(
            split in ("validation", "test"),
            "data.validation_split",
            split,
            f"made-up pictures have validation and test; {remedy}",
        )
        seed = 1 if split == "validation" else 2
        return fake.Shapes(len(source_of(config)), data.size_px, seed)
    try:
        found = tfds.open_source(
            data.name, split, image_key=data.image_key, caption_key=data.caption_key
        )
    except ValueError as error:
        raise ConfigError("data.validation_split", split, f"{error}; {remedy}") from None
    require(len(found) > 0, "data.validation_split", split, f"holds no record; {remedy}")
    return found


def shown_of(
    config: ConfigDict,
    records: RecordSource,
    encoder: TextEncoder | None,
    embed: readers.Embed | None,
) -> Shown:
    """The examples of previews: the prompts of the config, or records spread over the data set.

    A stage that starts from a picture always shows records, because it needs their pictures.
    """
    count = min(config.sample.num_images, len(records))
    shown: list[Record]
    starts_from_picture = "mask" in config or ("low_res" in config and config.low_res.size_px)
    if config.sample.prompts and encoder is not None and not starts_from_picture:
        shown = [{"captions": (prompt,)} for prompt in config.sample.prompts]
        prompts = filter(None, map(clean, config.sample.prompts))
        embed = cache.ensure(cache.default_folder(encoder), encoder, prompts).embed
    else:
        shown = [records[i * len(records) // count] for i in range(count)]
    needed: list[readers.Reader] = [readers.caption]
    if embed is not None:
        needed.append(readers.text(embed, config.text.max_tokens))
    if "classes" in config:
        needed.append(readers.label)
    if "embedding" in config:
        needed.append(readers.vector(config.embedding.of, config.embedding.width))
    if starts_from_picture:
        needed.append(readers.picture(config.data.size_px))
    # All of these few pictures may be broken; the run itself counts the broken ones.
    batches = pipeline.eval_batches(shown, needed, batch_size=len(shown), max_broken=1.0)
    columns = dict(next(batches))
    captions = tuple(str(caption) for caption in columns.pop("caption"))
    return Shown(columns, captions)


def _encoding_progress(done: int, total: int) -> None:
    if done == total or done % 2048 < 64:
        print(f"text embeddings: {done} of {total} captions", flush=True)
