"""python -m diffjax.doctor [--workdir DIR]

Checks this machine before a run: versions, devices, memory, disk space and speed, where the caches
are, and which tokens are set (never what they are). Takes a few seconds and starts nothing. Exit
codes: 0 a run can start, 2 it could not; the last lines say why and what to do.
"""

import argparse
import os
import platform
import queue
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from diffjax.core import command
from diffjax.core.errors import EXIT_INPUT, ConfigError
from diffjax.core.tables import GIB, format_memory

MIN_DISK, MIN_MEMORY, MIN_FILES = 2 * GIB, 2 * GIB, 256
# How long devices may take to answer. Some pods need a minute, so a later answer is an error only
# with --wait_s, which gives another time.
DEVICES_S = 3.5
WRITE_BYTES, WRITE_S = 64 << 20, 0.7
TOKENS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_ACCESS_KEY_ID",
)
SHOWN = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
NO_ANSWER = "another process may hold them: end it; or run this on all workers of the pod at once"
PYTHONS = ((3, 11), (3, 14))  # supported from the first on, and below the second


@dataclass(frozen=True)
class Finding:
    """A line of the report. remedy: what to do, if no run could start like this. note: a hint."""

    name: str
    value: str
    remedy: str = ""
    note: str = ""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("doctor", __doc__)
    flags.add_argument(
        "--workdir", type=command.path, default=Path(), help="the folder of a later run"
    )
    flags.add_argument(
        "--wait_s", type=float, help="seconds to wait for the devices; no answer is then an error"
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags and prints the report; the exit code says whether a run can start."""
    return command.run_command(parser(), work, arguments)


def work(flags: argparse.Namespace) -> int:
    """Prints each finding as soon as it is known; returns the exit code."""
    found = []
    for finding in look(flags.workdir, os.environ, flags.wait_s):
        mark = "!!" if finding.remedy else "  "
        after = f"  ({finding.note})" if finding.note else ""
        print(f"{mark} {finding.name:<14} {finding.value}{after}", flush=True)
        found.append(finding)
    broken = [finding for finding in found if finding.remedy]
    for finding in broken:
        print(f"{finding.name}: {finding.remedy}", file=sys.stderr)
    return EXIT_INPUT if broken else 0


def look(
    workdir: Path, environ: Mapping[str, str], wait_s: float | None = None
) -> Iterator[Finding]:
    """All findings, each as soon as it is known; wait_s: see `devices`."""
    waiting = ask_devices()  # they answer while the rest is checked
    yield python()
    yield packages()
    yield from requirements(metadata.requires("diffjax") or [])
    yield host_memory()
    yield from places(workdir, environ)
    yield open_files()
    yield huge_pages(environ)
    yield tokens(environ)
    yield processes(environ)
    yield from devices(waiting, wait_s)


def python() -> Finding:
    """The version of Python."""
    version = sys.version_info[:2]
    remedy = ""
    if not PYTHONS[0] <= version < PYTHONS[1]:
        remedy = "use Python 3.11, 3.12 or 3.13"
    return Finding("python", f"{platform.python_version()}, {platform.platform()}", remedy)


def packages() -> Finding:
    """The versions of the most important packages."""
    found = {name: _version(name) for name in SHOWN}
    return Finding("packages", ", ".join(f"{k} {v}" for k, v in found.items() if v))


def requirements(lines: Sequence[str]) -> Iterator[Finding]:
    """A finding for each requirement ("name>=1,<2") that is not met, or one if all are met."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in lines]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    bad = [one for one in wanted if not one.specifier.contains(_version(one.name) or "0a0", True)]
    for one in bad:
        have = _version(one.name) or "not installed"
        yield Finding("requirement", f"{one}: {have}", f"pip install '{one}'")
    if not bad:
        yield Finding("requirements", f"all {len(wanted)} met")
    jax, jaxlib = _version("jax"), _version("jaxlib")
    if jax and jaxlib and jax.split(".")[:2] != jaxlib.split(".")[:2]:
        yield Finding("jaxlib", f"{jaxlib} with jax {jax}", f"pip install 'jaxlib=={jax}'")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def host_memory(root: Path = Path("/")) -> Finding:
    """The memory of the machine, how much is free, and how much a container may use."""
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:
        return Finding("host memory", "not known here")
    total, available = (
        int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) << 10  # type: ignore[index]
        for name in ("MemTotal", "MemAvailable")
    )
    limit = ""
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if (root / name).is_file() and (root / name).read_text().strip().isdigit():
            most = int((root / name).read_text())
            if most < total:
                available = min(available, most)
                limit = f", the container's limit {format_memory(most)}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    remedy = ""
    if available < MIN_MEMORY:
        least = format_memory(MIN_MEMORY)
        remedy = f"free some: a run with less than {least} may be killed by the kernel"
    value = f"{format_memory(available)} free of {format_memory(total)}{limit}; {cores} cores"
    return Finding("host memory", value, remedy)


def places(workdir: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The folders that a run writes to: whether it can, and how much room there is."""
    base = Path(environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    compiled = environ.get("JAX_COMPILATION_CACHE_DIR", str(base / "diffjax" / "jax"))
    text = Path(environ.get("DIFFJAX_CACHE_DIR", str(base / "diffjax"))).expanduser()
    yield place("workdir", workdir, MIN_DISK, timed=True)
    if "://" in compiled:
        yield Finding("compile cache", compiled)
    else:
        yield place("compile cache", Path(compiled), MIN_DISK // 4, "set JAX_COMPILATION_CACHE_DIR")
    yield place("text cache", text, MIN_DISK // 4, "set DIFFJAX_CACHE_DIR")
    yield place("temporary", Path(tempfile.gettempdir()), MIN_DISK // 8, "set TMPDIR")
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        note = "small: data workers need some" if free < MIN_DISK // 8 else ""
        yield Finding("shared memory", f"{format_memory(free)} free", note=note)


def place(name: str, path: Path, least: int, other: str = "", timed: bool = False) -> Finding:
    """Checks that a folder can be written to, or made, and has `least` bytes free.

    other: how to choose another folder. timed: also measure how fast it is written to.
    """
    there = path.resolve()
    while not there.exists() and there != there.parent:
        there = there.parent
    hint = other or "choose another --workdir"
    try:
        speed = write_speed(there, WRITE_BYTES if timed else 1)
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(name, f"{path}: {error.strerror}", f"cannot be written to; {hint}")
    value = f"{path}: {format_memory(free)} free" + (
        f", writes {speed / 2**20:.0f} MiB/s" if timed else ""
    )
    return Finding(name, value, f"make room or {hint}" if free < least else "")


def write_speed(folder: Path, size: int) -> float:
    """Bytes per second at which a temporary file is written and synced, in at most WRITE_S.

    Raises:
      OSError: it cannot be written.
    """
    block, written = os.urandom(min(size, 8 << 20)), 0
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = time.perf_counter()
        while written < size and time.perf_counter() - start < WRITE_S:
            written += file.write(block)
            os.fsync(file.fileno())
        return written / (time.perf_counter() - start)


def open_files() -> Finding:
    """The number of files that a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    remedy = f"ulimit -n {min(hard, 4096)}" if soft < MIN_FILES else ""
    return Finding("open files", f"{soft} at most", remedy)


def huge_pages(environ: Mapping[str, str]) -> Finding:
    """Whether large arrays get huge pages, which makes a training step on CPUs faster."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    found = re.search(r"\[(\w+)\]", path.read_text()) if path.is_file() else None
    mode = found[1] if found else "not known"
    tuned = "glibc.malloc.hugetlb=1" in environ.get("GLIBC_TUNABLES", "")
    note = ""
    if mode == "madvise" and not tuned:
        note = "faster on CPUs: export GLIBC_TUNABLES=glibc.malloc.hugetlb=1"
    return Finding("huge pages", f"{mode}, malloc's {'on' if tuned else 'off'}", note=note)


def tokens(environ: Mapping[str, str]) -> Finding:
    """Which tokens are set, by name; their values are not read into the report."""
    parts = [f"{name} {'set' if environ.get(name) else 'not set'}" for name in TOKENS]
    return Finding("tokens", ", ".join(parts))


def processes(environ: Mapping[str, str]) -> Finding:
    """Whether a run that is started here would connect to other processes."""
    from diffjax.devices.cluster import find_cluster

    try:
        cluster = find_cluster(environ)
    except ConfigError as error:
        return Finding("processes", "not clear", str(error))
    return Finding("processes", "one" if cluster is None else str(cluster))


def ask_devices() -> queue.Queue:
    """Asks JAX for its devices in a thread; the queue will hold them, or the error."""
    answer: queue.Queue = queue.Queue()

    def ask() -> None:
        try:
            import jax

            answer.put(jax.local_devices())
        except Exception as error:  # drivers raise many types
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer


def devices(waiting: queue.Queue, wait_s: float | None = None) -> Iterator[Finding]:
    """The devices of this machine by kind, with the memory of one, or why there are none."""
    try:
        answer = waiting.get(timeout=DEVICES_S if wait_s is None else wait_s)
    except queue.Empty:
        value = f"no answer in {DEVICES_S if wait_s is None else wait_s:g} s"
        if wait_s is None:
            yield Finding("devices", value, note="--wait_s=60 waits longer")
        else:
            yield Finding("devices", value, NO_ANSWER)
        return
    if isinstance(answer, Exception):
        first_line = (command.no_device(answer) or str(answer) or repr(answer)).splitlines()[0]
        yield Finding("devices", first_line, "free the device, repair its driver or JAX_PLATFORMS")
        return
    kinds: dict[str, list] = {}
    for device in answer:
        kinds.setdefault(device.device_kind, []).append(device)
    for kind, alike in kinds.items():
        stats = alike[0].memory_stats() or {}
        size = f", {format_memory(stats['bytes_limit'])} each" if "bytes_limit" in stats else ""
        yield Finding("devices", f"{len(alike)} x {kind}{size}")


if __name__ == "__main__":
    command.start(main, at_once=True)  # a normal exit would wait for a device that hangs
