"""Puts the gate in front of Gradio's server, and closes connections that do not ask for anything.

uvicorn waits without end for the rest of a request's first lines. And Gradio puts a middleware of
its own, which answers other sites, before those that it is given; so the gate stands before all.
Gradio also waits 5 s for the server to start, and says of a slower one that the port is taken.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from diffjax.app.gate import App

REQUEST_S = 20.0  # for the first lines of a request
MOST = 512  # open at the same time
NAME = "Hurried"
START_S = 300.0  # to start the server; on a busy machine it takes many seconds


@runtime_checkable
class Server(Protocol):
    """What we use of Gradio's server."""

    started: bool
    thread: threading.Thread

    def run(self) -> None:
        """Serves, until the server is closed."""


def hurried(base: type, guard: Callable[[App], App] = lambda app: app) -> type:
    """`base`, a protocol of uvicorn's, whose connections end without a request for REQUEST_S.

    guard: puts the gate in front of the server; called once for each server.
    """
    guarded: dict[int, tuple[App, App]] = {}

    class Hurried(base):
        def __init__(self, *arguments: object, **named: object):
            super().__init__(*arguments, **named)
            app: App = self.app
            if id(app) not in guarded:
                guarded[id(app)] = (app, guard(app))
            self.app: App = guarded[id(app)][1]

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._look = self.loop.call_later(REQUEST_S, self._close_if_idle)
            if len(self.connections) > MOST:
                transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._look.cancel()
            super().connection_lost(exc)

        def _close_if_idle(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()
            else:
                self._look = self.loop.call_later(REQUEST_S, self._close_if_idle)

    return Hurried


def hurry(guard: Callable[[App], App]) -> None:
    """Let uvicorn, which Gradio starts, use such a protocol for all connections."""
    from gradio import http_server
    from uvicorn import config
    from uvicorn.protocols.http.h11_impl import H11Protocol

    http_server.Server.run_in_thread = start
    globals()[NAME] = hurried(H11Protocol, guard)
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{NAME}"


def start(server: Server) -> None:
    """Runs the server in a thread, and waits until it has started, however busy the machine is.

    Raises:
      OSError: it ended before, as when the port is taken.
    """
    server.thread = threading.Thread(target=server.run, daemon=True)
    server.thread.start()
    end = time.monotonic() + START_S
    while not server.started:
        if not server.thread.is_alive() or time.monotonic() > end:
            raise OSError("the server did not start; is the port taken?")
        time.sleep(0.001)
