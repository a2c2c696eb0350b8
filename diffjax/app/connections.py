"""Closes connections that do not get to the end of a request, and those that are too many.

uvicorn waits without end for the rest of a request's first lines.
"""

import asyncio

REQUEST_S = 20.0  # for the first lines of a request
MOST = 512  # open at the same time
NAME = "Hurried"


def hurried(base: type) -> type:
    """`base`, a protocol of uvicorn's, whose connections end without a request for REQUEST_S."""

    class Hurried(base):
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


def hurry() -> None:
    """Let uvicorn, which Gradio starts, use such a protocol for all connections."""
    from uvicorn import config
    from uvicorn.protocols.http.h11_impl import H11Protocol

    globals()[NAME] = hurried(H11Protocol)
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{NAME}"
