"""python -m benchmarks.data [--count N] [--workers N]

How fast pictures come: every source against raw Grain and PyTorch's DataLoader, doing the same work
in one run. The work is to read a JPEG of 256 x 200 px, cut its centre, shrink it to 64 x 64 px with
Pillow's bicubic filter, and stack 64 of them in a new order. "prepared small" was cut and shrunk
before, so it has less to do. PyTorch is left out where it is not installed
(requirements-peers.txt).
"""

import argparse
import functools
import io
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import absl.flags
import grain
import numpy as np
from PIL import Image, ImageOps

from diffjax.core.tables import align_columns
from diffjax.data import readers
from diffjax.data.pipeline import train_iterator
from diffjax.data.prepare import Look, prepare
from diffjax.data.sources.folder import open_folder
from diffjax.data.sources.open import Wanted, open_source

SIZE_PX, BATCH, READ_AHEAD, SETTLED_S = 64, 64, 8, 0.7


def main() -> None:
    """Make the pictures, time every way of reading them, and print the table."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--count", type=int, default=2048, help="pictures")
    flags.add_argument("--batches", type=int, default=16, help="timed in a round, of 64 pictures")
    flags.add_argument("--workers", type=int, default=2, help="threads or processes")
    flags.add_argument("--rounds", type=int, default=9, help="each way in turn; the median counts")
    options = flags.parse_args()
    absl.flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl's flags
    with tempfile.TemporaryDirectory() as scratch:
        ways = ways_of(Path(scratch), options.count, options.workers)
        begun = {name: make() for name, make in ways.items()}
        found = [
            {name: timed(batches, options.batches) for name, batches in begun.items()}
            for _ in range(options.rounds)
        ]
        for batches in begun.values():
            if close := getattr(batches, "close", None):
                close()
    median = {name: np.median([each[name] for each in found], axis=0) for name in ways}
    fastest = max(speed for name, (speed, _) in median.items() if name.startswith("peer"))
    rows = [("way", "pictures/s", "CPU ms a picture", "times the faster peer")]
    for name, (speed, cpu) in median.items():
        rows.append((name, f"{speed:.0f}", f"{1e3 * cpu:.2f}", f"{speed / fastest:.2f}"))
    print("\n".join(align_columns(rows)))


def ways_of(root: Path, count: int, workers: int) -> dict[str, Callable[[], Iterator]]:
    """Each way of reading the same pictures: a function that begins to."""
    photos = root / "photos"
    draw_photos(photos, count)
    source = open_folder(photos)
    prepare({"train": source}, root / "prepared", Look())
    prepare({"train": source}, root / "small", Look(size_px=SIZE_PX))
    write_tar(photos, root / "photos.tar")
    names = {
        "folder": f"folder:{photos}",
        "tar": f"tar:{root / 'photos.tar'}",
        "prepared": str(root / "prepared"),
        "prepared small": str(root / "small"),
    }
    ours = {
        f"{name}, {how}": functools.partial(
            train_iterator,
            open_source(where, Wanted()),
            [readers.picture(SIZE_PX)],
            batch_size=BATCH,
            seed=0,
            **options,
        )
        for name, where in names.items()
        for how, options in {
            "threads": {"threads": workers}, "processes": {"worker_count": workers}
        }.items()
    }  # fmt: skip
    files = sorted(map(str, photos.glob("*.jpg")))
    return {
        **ours,
        "peer: Grain, threads": functools.partial(with_grain, files, workers),
        "peer: Grain, processes": functools.partial(with_grain, files, 0, workers),
        **with_torch(files, workers),
    }


def timed(batches: Iterator, count: int) -> tuple[float, float]:
    """(pictures/s, CPU seconds a picture) of `count` batches, those of other processes too.

    First the other ways finish what they read ahead, and what this one has read ahead is taken.
    """
    time.sleep(SETTLED_S)
    for _ in range(READ_AHEAD):
        next(batches)
    start, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(count):
        next(batches)
    seconds = time.perf_counter() - start
    return count * BATCH / seconds, (cpu_seconds() - cpu) / (count * BATCH)


def cpu_seconds() -> float:
    """Of this process and of those below it, as far as they have ended or can be asked."""
    own, ended = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    alive = sum(_cpu_of(pid) for pid in _below(os.getpid()))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + alive


def _below(pid: int) -> Iterator[int]:
    """The processes that any thread of a process has started, and what those have."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            yield child
            yield from _below(child)


def _cpu_of(pid: int) -> float:
    """Its own seconds, and those of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def draw_photos(folder: Path, count: int) -> None:
    """Smooth colours with some noise, as photographs compress."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (8, 10, 3), np.uint8))
        smooth = np.asarray(coarse.resize((256, 200), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = np.clip(smooth + draw.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{index:05d}.jpg", quality=90)


def write_tar(photos: Path, path: Path) -> None:
    """All of them in one tar."""
    import tarfile

    with tarfile.open(path, "w") as tar:
        for photo in sorted(photos.iterdir()):
            tar.add(photo, photo.name)


def shrunk(data: bytes) -> np.ndarray:
    """The same work as a reader does, by Pillow alone: turned by its EXIF, in RGB, cut, shrunk."""
    with Image.open(io.BytesIO(data)) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        image = opened.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.crop(box).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC))


def shrunk_file(path: str) -> np.ndarray:
    """One picture."""
    return shrunk(Path(path).read_bytes())


def with_grain(files: list[str], threads: int, processes: int = 0) -> Iterator:
    """Raw Grain, in threads or in processes."""
    pictures = (
        grain.MapDataset.source(files).seed(0).shuffle().repeat().map(shrunk_file).batch(BATCH)
    ).to_iter_dataset(grain.ReadOptions(threads, 2))
    if processes:
        pictures = pictures.mp_prefetch(grain.MultiprocessingOptions(processes, 2))
    return iter(pictures)


class Files:
    """A PyTorch data set of files."""

    def __init__(self, files: list[str]):
        self._files = files

    def __len__(self) -> int:
        """How many there are."""
        return len(self._files)

    def __getitem__(self, index: int) -> np.ndarray:
        """One picture, which PyTorch wants to be writable."""
        return shrunk_file(self._files[index]).copy()


def with_torch(files: list[str], workers: int) -> dict[str, Callable[[], Iterator]]:
    """PyTorch's DataLoader, in processes; {} without PyTorch."""
    try:
        from torch.utils.data import DataLoader
    except ImportError:
        return {}

    def batches() -> Iterator:
        sampler = Endless(len(files))
        return iter(DataLoader(Files(files), BATCH, sampler=sampler, num_workers=workers))

    return {"peer: PyTorch": batches}


class Endless:
    """The order in which PyTorch reads: a new one in every epoch, so that its workers stay."""

    def __init__(self, count: int):
        self._count = count

    def __iter__(self) -> Iterator[int]:
        """The indices, without an end."""
        draw = np.random.default_rng(0)
        while True:
            yield from draw.permutation(self._count).tolist()


if __name__ == "__main__":
    main()
