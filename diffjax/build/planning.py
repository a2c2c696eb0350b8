"""Plans a run from its config: what it would do, and what it would cost."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from diffjax.build import tasks
from diffjax.build.check import check
from diffjax.build.inputs import columns, reading, texts
from diffjax.build.inputs.embeddings import embeddings_of, encoded
from diffjax.build.stages import start
from diffjax.build.training import loop_of, training_of
from diffjax.core.errors import BadData, ConfigError
from diffjax.data import examples, pipeline, readers
from diffjax.data.record import RecordSource
from diffjax.devices.topology import devices_of
from diffjax.encoders.t5 import TextEncoder
from diffjax.planning import dry_run, plan, shapes

SHOWN_EXAMPLES, SHOWN_CAPTIONS = 16, 4


def plan_of(config: ConfigDict, step: str = "train", topology: str = "") -> plan.Plan:
    """Compiles a `step` of a stage, "train" or "sample", and returns XLA's figures.

    The sampler makes one picture per device.

    Raises:
      ConfigError: the config or the topology is not valid.
      TooBig: the step does not fit into a device's memory.
    """
    devices = devices_of(topology)
    check(config, len(devices))
    text_width = texts.text_width_of(config)
    if step == "train":
        work = shapes.training(training_of(config, text_width, devices))
    else:
        task = tasks.task_of(config, text_width)
        work = shapes.of_sampling(task, task.settings, devices)
    return plan.plan(work, config.stage, step, topology)


def dry_run_of(
    config: ConfigDict, workdir: Path | None = None, topology: str = ""
) -> Iterator[str]:
    """Yields the report of one stage in parts, each as soon as it is known.

    topology: TPUs such as "v5e:16x16"; "" for the devices of this machine.

    Raises:
      ConfigError: a run would be refused, because of the config, the data, the encoder or the
        embeddings.
    """
    devices = devices_of(topology)
    check(config, len(devices))
    start.check(config, workdir)
    training = training_of(config, texts.text_width_of(config), devices)

    def described() -> str:
        encoder = texts.encoder_of(config) if "text" in config else None
        return batch_table(config, reading.source_of(config), encoder)

    return dry_run.parts(training, loop_of(config), workdir, described)


def batch_table(options: ConfigDict, records: RecordSource, encoder: TextEncoder | None) -> str:
    """A table of the first batch; captions are encoded, or looked up in the cache of the config."""
    batch_size = options.data.batch_size
    iterator = pipeline.train_iterator(
        records,
        [readers.caption, *columns.readers_of(options, None)],
        batch_size=batch_size,
        seed=options.seed,
        rows=range(min(batch_size, SHOWN_EXAMPLES)),
        max_bad_fraction=reading.max_bad_fraction_of(options),
        threads=0,
    )
    try:
        batch = dict(next(iterator))
        captions = [str(caption) for caption in batch.pop("caption")]
        if encoder is not None:
            batch |= text_of(options, records, encoder, captions)
    except BadData as error:
        raise ConfigError("data", f"{options.data.name} {options.data.split}", str(error)) from None
    finally:
        iterator.close()
    lines = [
        f"{len(records):,} records, {pipeline.steps_per_epoch(records, batch_size):,} steps an "
        f"epoch; the first {len(captions)} examples of the first batch:"
    ]
    for name, values in batch.items():
        numbers = np.asarray(values, np.float64) if values.dtype.kind not in "iu" else values
        lines.append(
            f"  {name:<12} {values.dtype} {values.shape}, from {numbers.min():.4g} to "
            f"{numbers.max():.4g}, mean {numbers.mean():.4g}"
        )
    return "\n".join([*lines, *(f"  caption      {c!r}" for c in captions[:SHOWN_CAPTIONS])])


def text_of(
    options: ConfigDict, records: RecordSource, encoder: TextEncoder, captions: list[str]
) -> Mapping[str, np.ndarray]:
    """The text columns of these captions, from the cache of the config or encoded here."""
    named = options.data.get("embeddings", "")
    embed: readers.Embed = (
        embeddings_of(options, records, encoder).embed if named else encoded(encoder, captions)
    )
    text = readers.text(embed, encoder.max_length)
    rows = [examples.Example(text({"captions": (c,)}, None), ()) for c in captions]
    return examples.collate(rows).columns
