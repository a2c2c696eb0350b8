"""Handles signals, and a closed output, so that a run can save before it ends."""

import errno
import io
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO, TypeAlias

from diffjax.core.errors import EXIT_TERMINATED

# Closing a terminal sends SIGHUP.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Handler: TypeAlias = Callable[[int, FrameType | None], object]


class Watch:
    """Notices SIGNALS at once, and acts when the main thread cannot.

    Python runs a handler between two bytecodes of the main thread, so never while that thread
    waits for XLA to compile or to make pictures. Therefore a signal also wakes a second thread,
    through a socket. Usually a signal is only remembered, and the loop asks for it after the step.
    Inside `meanwhile(rescue)`, the second thread calls `rescue` and ends the process.
    """

    def __init__(self, leave: Callable[[int], None] = os._exit):
        self._leave = leave
        self._told = False
        self._lock = threading.Lock()
        self._rescue: Callable[[], int] | None = None

    def __bool__(self) -> bool:  # noqa: D105
        return self._told

    def tell(self) -> None:
        """Remembers that a signal came."""
        self._told = True

    @contextmanager
    def meanwhile(self, rescue: Callable[[], int] | None) -> Iterator[None]:
        """For work that cannot ask for signals: if one comes, `rescue` runs in another thread.

        The process then ends with the code that `rescue` returns, and the work is abandoned. With
        None, a signal has to wait until the work is done.
        """
        with self._lock:
            self._rescue = rescue
            if self:
                self._act()
        try:
            yield
        finally:
            with self._lock:  # waits until a rescue that has begun is done
                self._rescue = None

    def act(self) -> None:
        """Called in the second thread on a signal: rescues and ends the process, if needed."""
        with self._lock:
            self.tell()
            self._act()

    def _act(self) -> None:
        if self._rescue is None:
            return
        try:
            code = self._rescue()
        except BaseException:  # print any error, because the process ends here
            traceback.print_exc()
            code = 1
        self._leave(code)  # without flushing, because the main thread may hold the needed locks


@contextmanager
def signals(watch: Watch | None = None) -> Iterator[Watch]:
    """Yields a watch over SIGNALS; a second SIGINT interrupts at once. Main thread only."""
    watch = Watch() if watch is None else watch
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    received: list[int] = []  # signals of the main thread; the other thread may have told the watch

    def receive(number: int, frame: FrameType | None) -> None:
        watch.tell()
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    def listen() -> None:
        while numbers := reads.recv(16):
            if any(number in SIGNALS for number in numbers):
                watch.act()

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    previous_fd = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    previous = {number: signal.signal(number, receive) for number in _heeded()}
    try:
        yield watch
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        writes.close()
        listener.join()
        reads.close()


def on_signals(receive: Handler) -> None:
    """Calls `receive` for each of SIGNALS; under nohup, SIGHUP stays ignored."""
    for number in _heeded():
        signal.signal(number, receive)


def leave_on_signals() -> None:
    """Ends the process at once on a signal; before there is a watch, nothing needs saving."""
    on_signals(lambda *_: os._exit(EXIT_TERMINATED))


def _heeded() -> list[signal.Signals]:
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not nohup]


def guard_streams() -> None:
    """Treats a closed stdout or stderr like a SIGTERM; see `Guarded`."""
    sys.stdout = _guarded(sys.stdout)
    sys.stderr = _guarded(sys.stderr)


class Guarded(io.FileIO):
    """A stream to a descriptor, on which writing never fails.

    If the reader is gone (`| head`, a closed terminal), the output is dropped, and the process
    sends itself a SIGTERM, so that a run saves. If a disk is full, the output is lost.
    """

    def write(self, data, /) -> int:
        """Writes the bytes and returns how many were written; all, if they are dropped."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise
            gone = error.errno in (errno.EPIPE, errno.EIO)
        if gone:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            signal.raise_signal(signal.SIGTERM)
        return memoryview(data).nbytes


def _guarded(stream: TextIO | None) -> TextIO:
    """The same stream over a guarded descriptor; a null stream if the process has none."""
    if stream is None:
        return open(os.devnull, "w")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    raw = Guarded(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
