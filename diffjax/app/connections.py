"""Puts the gate in front of Gradio's server, and closes connections that do not ask for anything.

uvicorn waits without end for the rest of a request's first lines. And Gradio puts a middleware of
its own, which answers other sites, before those that it is given; so the gate stands before all.
"""

import asyncio
from collections.abc import Callable

from diffjax.app.gate import App

REQUEST_S = 20.0  # for the first lines of a request
MOST = 512  # open at the same time
NAME = "Hurried"


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
    from uvicorn import config
    from uvicorn.protocols.http.h11_impl import H11Protocol

    globals()[NAME] = hurried(H11Protocol, guard)
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{NAME}"
