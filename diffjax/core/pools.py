"""Processes that work for this one, and end with it, however it ends."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """A pool of so many processes. They are spawned, so a script must guard its `__main__`."""
    context = multiprocessing.get_context("spawn")
    made = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=end_with_parent
    )
    with made:
        yield made


def end_with_parent(worker: int = 0, workers: int = 0) -> None:
    """Let a worker process end when the one that started it has ended.

    Else it would wait for ever for work, or for somebody to take its results, and hold the streams
    of its parent open. Ctrl+C, which a terminal sends to all, is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
