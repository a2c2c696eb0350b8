"""Lets through only those requests to the Gradio server that the page needs.

These are the page, its queue, its uploads and the pictures it made. Gradio serves much more: files
of other folders, addresses of the network that it fetches for a visitor, links that keep a
visitor's state on the disk. We list what is open rather than what is closed, so that whatever a
later version adds is closed too. Requests of other sites are refused (origin.py), and so are bodies
that are too large or too slow. An answer of 500 becomes one of 400, with a line in place of a
traceback: whatever a stranger sends, it is the stranger's mistake.
"""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs

from diffjax.app.followers import Followers
from diffjax.app.logins import Attempts
from diffjax.app.origin import Origins, own_headers
from diffjax.app.room import Room
from diffjax.core.json_types import Json

NOT_UNDERSTOOD = "not understood"
App = Callable[[dict, Callable, Callable], Awaitable[None]]

# Paths that may be read, as regular expressions.
OPEN = (
    r"/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|logout)?/?",
    r"/(assets|static|svelte)/[\w./@+-]+",
    r"/gradio_api/(info|app_id|user|token|login_check|startup-events|theme\.css)/?",
    r"/gradio_api/(queue/data|upload_progress)",
    r"/gradio_api/heartbeat/[\w-]{1,64}",
)
MB = 1 << 20
# Paths that may be written to, with the most bytes that a body may have. Two prompts of 10,000
# characters take 240 kB if a client escapes every character.
POSTS = {
    "/gradio_api/queue/join": MB // 4,
    "/gradio_api/upload": 32 * MB,
    "/gradio_api/cancel": 4096,
    "/gradio_api/reset": 4096,
    "/login": 4096,
}
PIECE_S = 20.0  # for the next piece of a body
MAX_UPLOADS = 8  # at the same time
MAX_SESSION = 64  # characters


def gate(
    app: App,
    folder: Path,
    origins: Origins | None = None,
    followers: Followers | None = None,
    room: Room | None = None,
) -> App:
    """The ASGI server `app`, which keeps its files in `folder`, restricted to what is open.

    origins: under which names the page is served; None for any. followers: learns who listens.
    room: limits the files in the folder.
    """
    own = re.escape(str(folder.resolve())) + r"/[0-9a-f]{32,64}/[^/]+"
    is_own = re.compile(own)
    is_open = re.compile("|".join((*OPEN, f"/gradio_api/file={own}")))
    followers, room, attempts = followers or Followers(), room or Room(folder), Attempts()
    uploads = asyncio.Semaphore(MAX_UPLOADS)

    async def guarded(scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        if scope["type"] != "http":
            return None
        path, method = scope["path"], scope["method"]
        if origins is not None:
            fault = origins.fault(scope["headers"], method, path)
            if fault:
                return await refuse(send, 403, fault)
        return await answered(scope, timely(receive), guarding(send), path, method)

    async def answered(
        scope: dict, receive: Callable, send: "Sent", path: str, method: str
    ) -> None:
        try:
            await allowed(scope, receive, send, path, method)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # of Gradio, for a request that it does not understand
            note(path, type(error).__name__)
            if not send.begun:
                await refuse(send, 408 if isinstance(error, TimeoutError) else 400, NOT_UNDERSTOOD)

    async def allowed(scope: dict, receive: Callable, send: "Sent", path: str, method: str) -> None:
        if method in ("GET", "HEAD") and is_open.fullmatch(path) and ".." not in path:
            with listening(scope, path, followers):
                return await app(scope, receive, send)
        if method == "OPTIONS":  # browsers ask before they send; the answer has no content
            return await app(scope, receive, send)
        limit = POSTS.get(path.rstrip("/")) if method == "POST" else None
        if limit is None:
            return await refuse(send, 404, "not here")
        length = length_of(scope)
        if length is None:
            return await refuse(send, 411, "say how long the body is")
        if length > limit:
            return await refuse(send, 413, f"{length} bytes: at most {limit}")
        if path.startswith("/login"):
            address = (scope.get("client") or ("",))[0]
            if not attempts.begin(address):
                return await refuse(send, 429, "too many wrong passwords: try again in a minute")
            await app(scope, receive, send)
            if send.status == 200:
                attempts.succeeded(address)
            return None
        if path.startswith("/gradio_api/upload"):
            if uploads.locked():
                return await refuse(send, 503, "too many uploads at a time: try again")
            async with uploads:
                await app(scope, receive, send)
                return await room.uploaded(length)
        if path.startswith("/gradio_api/queue/join"):
            body = await read(receive, limit)
            if not only_own_files(body, is_own):
                return await refuse(send, 400, "no such file")
            followers.asked(session_of(body))
            receive = replayed(body, receive)
        return await app(scope, receive, send)

    return guarded


class Sent:
    """A `send` that adds the headers of `origin`, and turns an answer of 500 into one of 400."""

    def __init__(self, send: Callable):
        self._send, self.status = send, 0
        self._replaced = False

    @property
    def begun(self) -> bool:
        """Whether an answer has begun."""
        return self.status != 0

    async def __call__(self, message: dict) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            self._replaced = message["status"] == 500
            self.status = 400 if self._replaced else message["status"]
            headers = [] if self._replaced else message.get("headers", [])
            message = {**message, "status": self.status, "headers": own_headers(headers)}
        elif self._replaced:
            if message.get("more_body"):
                return
            message = {"type": "http.response.body", "body": f"{NOT_UNDERSTOOD}\n".encode()}
        await self._send(message)


def guarding(send: Callable) -> Sent:
    """See `Sent`."""
    return Sent(send)


def timely(receive: Callable) -> Callable:
    """A `receive` that raises a TimeoutError if the next piece of a body does not come."""
    whole = False

    async def next_piece() -> dict:
        nonlocal whole
        if whole:  # whoever asks now waits for the end of the connection
            return await receive()
        message = await asyncio.wait_for(receive(), PIECE_S)
        whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return next_piece


@contextlib.contextmanager
def listening(scope: dict, path: str, followers: Followers) -> Iterator[None]:
    """Tells the followers that a session listens to its queue, if that is what is asked for."""
    if not path.startswith("/gradio_api/queue/data"):
        yield
        return
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    with followers.listening(query.get("session_hash", [""])[0][:MAX_SESSION]):
        yield


def session_of(body: bytes) -> str:
    """The session that a request to draw is of; `body` is JSON."""
    value = json.loads(body)
    session = value.get("session_hash") if isinstance(value, dict) else None
    return session[:MAX_SESSION] if isinstance(session, str) else ""


_noted: set[tuple[str, str]] = set()


def note(path: str, kind: str) -> None:
    """Say once of each kind of request and of error that it is not understood."""
    where = next((name for name in POSTS if path.startswith(name)), "a page or file")
    if (where, kind) not in _noted:
        _noted.add((where, kind))
        print(f"warning: {where}: a request ended with {kind}", file=sys.stderr, flush=True)


def length_of(scope: dict) -> int | None:
    """Content-Length, or None without one. The server lets no client send more than it said."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None


async def read(receive: Callable, limit: int) -> bytes:
    """Reads a body, and stops after `limit` bytes."""
    body, more = b"", True
    while more and len(body) <= limit:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def replayed(body: bytes, receive: Callable) -> Callable:
    """A `receive` that first gives the body that was already read, then what follows it."""
    messages: list[dict] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> dict:
        return messages.pop() if messages else await receive()

    return again


def only_own_files(body: bytes, is_own: re.Pattern) -> bool:
    """Whether the body is JSON in which every "path" is a file of the page.

    Gradio would read any other file, and fetch any address.
    """
    try:
        todo: list[Json] = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if path is not None and not (isinstance(path, str) and is_own.fullmatch(path)):
                return False
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return True


async def refuse(send: Callable, status: int, why: str) -> None:
    """Answers with a status and a line that says why."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode() + b"\n"})
