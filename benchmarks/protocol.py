"""The protocol between a timed program and a race of several programs. Needs only Python.

When it is compiled and warm, the program prints {"ready": true, ...}. "go N" on its stdin makes it
run N steps and print {"ms": [...], "cpu_ms": [...]}; "end" makes it print {"end": true,
"rss_peak_mb": ...} and end. With this a race lets several programs take turns.
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
    """Prints the facts as one line of JSON."""
    print(json.dumps(facts), flush=True)


def serve(step: Callable[[int], Any], *, warmup: int, **facts: Any) -> None:
    """Announces the program with its facts, then follows the orders on stdin.

    step(i) runs step i and waits for its end. The peak of memory is reset before the first step, if
    the system allows it, so that it does not count what compiling took.
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
    """Resets the process's peak of memory to what it holds now (Linux only).

    Freed memory, such as the compiler's, is first given back to the system.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """The most bytes that the process held, since `forget_peak` if that worked."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
