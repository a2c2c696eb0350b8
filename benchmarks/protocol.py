"""How a timed program talks to a race. Needs Python alone.

Once compiled and warm it prints {"ready": true, ...}; "go N" on its stdin runs N steps and prints
{"ms": [...], "cpu_ms": [...]}; "end" prints {"end": true, "rss_peak_mb": ...} and ends. A race may
thus let several programs take turns.
"""

import contextlib
import ctypes
import gc
import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def say(**facts: Any) -> None:
    """One line of JSON."""
    print(json.dumps(facts), flush=True)


def serve(step: Callable[[int], Any], *, warmup: int, **facts: Any) -> None:
    """Announce the program with its facts, then do as told; `step` of a number waits for its end.

    The peak is that of the steps: it is set back before the first, where the system lets us.
    """
    forget_peak()
    for i in range(warmup):
        step(i)
    say(ready=True, **facts)
    for line in sys.stdin:
        order = line.split()
        if order[:1] == ["end"]:
            break
        if order[:1] == ["go"]:
            ms, cpu_ms = [], []
            for i in range(int(order[1])):
                wall, cpu = time.perf_counter(), time.process_time()
                step(i)
                ms.append((time.perf_counter() - wall) * 1e3)
                cpu_ms.append((time.process_time() - cpu) * 1e3)
            say(ms=ms, cpu_ms=cpu_ms)
    say(end=True, rss_peak_mb=round(peak_bytes() / 2**20, 1))


def forget_peak() -> None:
    """Set the process's peak of memory back to what it holds now (Linux).

    What a compiler freed goes back to the system first: it is none of the steps'.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """The most memory that the process held, since `forget_peak` if that worked."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
