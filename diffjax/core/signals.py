"""Signals, and the other ways in which a run ends before its last step."""

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

# A terminal that is closed sends SIGHUP.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Handler: TypeAlias = Callable[[int, FrameType | None], object]


class Watch:
    """Notices SIGNALS at once, and acts where the loop cannot.

    Python runs a handler between two bytecodes of the main thread: not while that thread waits
    for XLA to compile, or for pictures. So the signal also wakes a thread through a socket. In the
    loop a signal is only remembered, and asked for after the step; inside `meanwhile(rescue)` the
    thread itself rescues what is there and ends the process.
    """

    def __init__(self, leave: Callable[[int], None] = os._exit):
        self._leave = leave
        self._told = False
        self._lock = threading.Lock()
        self._rescue: Callable[[], int] | None = None

    def __bool__(self) -> bool:  # noqa: D105
        return self._told

    def tell(self) -> None:
        """A signal came: remember it."""
        self._told = True

    @contextmanager
    def meanwhile(self, rescue: Callable[[], int] | None) -> Iterator[None]:
        """For work that looks at no signals: should one come, `rescue` runs beside it.

        The process then ends with the code that `rescue` returns; the work is never heard of
        again. None: the signal has to wait until the work is done.
        """
        with self._lock:
            self._rescue = rescue
            if self:
                self._act()
        try:
            yield
        finally:
            with self._lock:  # not before a rescue that has begun is done
                self._rescue = None

    def act(self) -> None:
        """In the thread: a signal came; end the process, if the main thread cannot do it itself."""
        with self._lock:
            self.tell()
            self._act()

    def _act(self) -> None:
        if self._rescue is None:
            return
        try:
            code = self._rescue()
        except BaseException:  # whatever it is, it must be heard of, and the process end
            traceback.print_exc()
            code = 1
        self._leave(code)  # nothing is flushed: the main thread may hold the locks that it takes


@contextmanager
def signals(watch: Watch | None = None) -> Iterator[Watch]:
    """A watch over SIGNALS; a second SIGINT interrupts at once. Main thread only."""
    watch = Watch() if watch is None else watch
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    received: list[int] = []  # the thread may have told the watch already

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
    """Have `receive` called for each of SIGNALS; but nohup's wish to outlive a terminal stands."""
    for number in _heeded():
        signal.signal(number, receive)


def leave_on_signals() -> None:
    """Until a watch is set up there is nothing to save: end at once with the code that says so."""
    on_signals(lambda *_: os._exit(EXIT_TERMINATED))


def _heeded() -> list[signal.Signals]:
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not nohup]


def guard_streams() -> None:
    """When nobody reads stdout or stderr any more, it is as if SIGTERM came: see `Guarded`."""
    sys.stdout = _guarded(sys.stdout)
    sys.stderr = _guarded(sys.stderr)


class Guarded(io.FileIO):
    """A descriptor to which a write never fails because of who reads it.

    Where the reader has gone (`| head`, a closed terminal), the rest goes nowhere, and the process
    gets a SIGTERM, so that a run saves what it has. Where a disk is full, the lines are lost.
    """

    def write(self, data, /) -> int:
        """How many bytes were taken: all of them, if they go nowhere."""
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
    """The same stream over a guarded descriptor; nowhere, if the process began without one."""
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
