"""Signals, and the other ways in which a run ends before its last step."""

import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diffjax.core.errors import EXIT_TERMINATED

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Watch:
    """Notices SIGTERM and SIGINT at once, and acts where the loop cannot.

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
    """A watch over SIGTERM and SIGINT; a second SIGINT interrupts at once. Main thread only."""
    watch = Watch() if watch is None else watch
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    received: list[int] = []  # the thread may have told the watch already

    def receive(number, frame):
        watch.tell()
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    def listen():
        while numbers := reads.recv(16):
            if any(number in SIGNALS for number in numbers):
                watch.act()

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    previous_fd = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    previous = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield watch
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        writes.close()
        listener.join()
        reads.close()


def leave_on_signals() -> None:
    """Until a watch is set up there is nothing to save: end at once with the code that says so."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(EXIT_TERMINATED))
