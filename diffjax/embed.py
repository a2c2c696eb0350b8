"""python -m diffjax.embed --captions FILE... --out DIRECTORY [--encoder NAME]

Writes the embeddings of captions into a cache. FILE is text with one caption a line, or .json,
.jsonl, .csv, .tsv or .parquet; --data-set reads the captions of a prepared data set instead.
DIRECTORY is made if it does not exist. If it is a cache of the same encoder, only the missing
captions are encoded, so the same command continues after a crash or adds captions. Several
processes may fill one directory at the same time. The tasks of srun and the workers of a TPU pod
share the work by themselves; elsewhere give each process its --process-index. Exit codes: 0 done,
1 other workers are missing, 2 bad input, 5 the disk is full, 143 stopped, with all finished work
saved.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import jax
from tqdm import tqdm

from diffjax.core import command, signals
from diffjax.core.errors import BadData, InputError, StorageError, Terminated
from diffjax.data import caption_files, captions
from diffjax.devices import processes
from diffjax.devices.cluster import find_cluster
from diffjax.encoders.cache import cache as cache_lib
from diffjax.encoders.cache.cache import SHARD_BYTES, STORAGES, Damaged
from diffjax.encoders.text import load_encoder

A_DAY_S = 24 * 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, writes the cache, and returns the exit code."""
    return command.run_command(parser(), work, arguments)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("embed", __doc__)
    add = flags.add_argument
    what = flags.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--captions", type=command.path, nargs="+", metavar="FILE", help="text, JSON, CSV, parquet"
    )
    what.add_argument("--data-set", metavar="NAME", help="a prepared data set, such as emoji/64")
    add("--field", default="caption", help="the field of JSON, CSV or parquet with the caption")
    add("--split", default="train", help="of the data set")
    add("--caption-key", default="captions", help="the field of the data set with the captions")
    add("--data-dir", type=command.path, help="where data sets are prepared")
    add("--out", type=command.path, required=True, metavar="DIRECTORY", help="the cache")
    add("--encoder", default="t5-nano", help="a name or a folder")
    add("--max-length", type=int, default=96, help="the most tokens of a caption, eos included")
    add("--batch-size", type=int, default=64, help="captions encoded at a time")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the encoder")
    add("--storage", choices=STORAGES, default=STORAGES[0], help="int8 has a scale per token")
    add("--shard-mib", type=int, default=SHARD_BYTES >> 20, help="size of a shard")
    add("--process-index", type=int, help="the number of this process; JAX's by default")
    add("--process-count", type=int, help="how many processes share the work")
    add("--every", type=float, default=30, help="seconds between lines of progress in a log")
    return flags


def work(flags: argparse.Namespace) -> None:
    """Fills the cache that the flags name. Every error message begins with "embed: "."""
    try:
        embed(flags)
    except StorageError as error:
        ending = f"embed: {error}; finished work is kept: make room and run again"
        raise StorageError(ending) from None
    except processes.WorkersMissing as error:
        raise processes.WorkersMissing(f"embed: {error}") from None
    except Damaged as error:
        raise Damaged(f"embed: {error}") from None
    except (ValueError, OSError, BadData) as error:
        raise InputError(f"embed: {error}") from None


def embed(args: argparse.Namespace) -> None:
    """Encodes the captions that the cache lacks, until all are there or a signal comes.

    Raises:
      Terminated: a signal came; what was encoded is kept.
      Damaged, StorageError, WorkersMissing, ValueError, OSError: see the functions called here.
    """
    made = 0
    found = _captions(args)
    if next(iter(found), None) is None:
        raise ValueError(f"{args.data_set or args.captions[0]}: no captions in it")
    process_index, process_count = _process(args)
    encoder = load_encoder(args.encoder, args.max_length, args.dtype)
    if args.shard_mib < 1:
        raise ValueError(f"--shard-mib {args.shard_mib}, want at least 1")
    with signals.signals() as watch, _progress(found, args.every) as tell:

        def progress(done: int, encoded: int) -> None:
            nonlocal made
            made = encoded
            tell(done, encoded)

        cache_lib.extend(
            args.out,
            encoder,
            found,
            storage=args.storage,
            batch_size=args.batch_size,
            process_index=process_index,
            process_count=process_count,
            progress=progress,
            stop=lambda: bool(watch),
            shard_bytes=args.shard_mib << 20,
        )
        if not watch:  # process 0 hosts the connection of the others, so it must end last
            processes.wait_for_all("embedded", A_DAY_S)
    cache = cache_lib.open_cache(args.out, encoder)
    print(f"{args.out}: {len(cache)} captions, {made} of them new, of {cache.header}")
    if watch:
        raise Terminated("embed: stopped; run again to go on")


def _captions(args: argparse.Namespace) -> captions.Captions:
    if args.data_set:
        return captions.from_data_set(args.data_set, args.split, args.caption_key, args.data_dir)
    return caption_files.from_files(args.captions, args.field)


def _process(args: argparse.Namespace) -> tuple[int, int]:
    """(index, count) from the flags, or if they are absent from the cluster that this runs on."""
    if (args.process_index is None) != (args.process_count is None):
        raise ValueError("--process-index and --process-count need each other")
    if args.process_index is not None:
        return args.process_index, args.process_count
    cluster = find_cluster(os.environ)
    if cluster is not None and cluster.process_id is not None and cluster.num_processes:
        return cluster.process_id, cluster.num_processes  # they need not connect to share the work
    processes.initialize(cluster)
    return jax.process_index(), jax.process_count()


@contextmanager
def _progress(found: captions.Captions, every: float) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, encoded) that shows progress.

    On a terminal it draws a bar; elsewhere it prints a line every `every` seconds.
    """
    if sys.stderr.isatty():
        with tqdm(desc="embed", unit="caption", unit_scale=True) as bar:

            def draw(done: int, encoded: int) -> None:
                bar.total = found.estimate()
                bar.update(done - bar.n)

            yield draw
    else:
        yield Lines(found.estimate, every)


class Lines:
    """Prints progress as lines, for logs: captions done, speed, time left."""

    def __init__(
        self, total: Callable[[], int], every: float, clock: Callable[[], float] = time.monotonic
    ):
        self._total, self._every, self._clock = total, every, clock
        self._start = self._told = clock()
        self._known: int | None = None  # captions that were in the cache; they took no time

    def __call__(self, done: int, encoded: int) -> None:
        """done: captions read so far. encoded: how many of them were new."""
        now = self._clock()
        if self._known is None:
            self._known = done - encoded
        if now - self._told < self._every:
            return
        self._told = now
        rate = (done - self._known) / (now - self._start)
        minutes = (self._total() - done) / rate / 60 if rate else float("nan")
        print(
            f"embed: {done} of {self._total()} captions, {rate:.0f}/s, ETA {minutes:.0f} min",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    command.start(main)
