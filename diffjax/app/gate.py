"""Lets through only those requests to the Gradio server that the page needs.

These are the page, its queue, its uploads and the pictures it made. Gradio serves much more: files
of other folders, addresses of the network that it fetches for a visitor, links that keep a
visitor's state on the disk. We list what is open rather than what is closed, so that whatever a
later version adds is closed too. The size of each body and of the folder of uploads is limited.
"""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from diffjax.core.json_types import Json

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
MAX_FOLDER_BYTES = 2048 * MB


def gate(app: App, folder: Path) -> App:
    """The ASGI server `app`, which keeps its files in `folder`, restricted to what is open."""
    own = re.escape(str(folder.resolve())) + r"/[0-9a-f]{32,64}/[^/]+"
    is_own = re.compile(own)
    is_open = re.compile("|".join((*OPEN, f"/gradio_api/file={own}")))

    async def guarded(scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        if scope["type"] != "http":
            return None
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD") and is_open.fullmatch(path) and ".." not in path:
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
        if path.startswith("/gradio_api/upload") and is_full(folder):
            return await refuse(send, 507, "too many pictures are here: try again later")
        if path.startswith("/gradio_api/queue/join"):
            body = await read(receive, limit)
            if not only_own_files(body, is_own):
                return await refuse(send, 400, "no such file")
            receive = replayed(body, receive)
        return await app(scope, receive, send)

    return guarded


def length_of(scope: dict) -> int | None:
    """Content-Length, or None without one. The server lets no client send more than it said."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None


def is_full(folder: Path) -> bool:
    """Whether the folder holds more than MAX_FOLDER_BYTES."""
    sizes = 0
    for path in folder.rglob("*"):
        try:
            sizes += path.lstat().st_size
        except OSError:  # the file was deleted meanwhile
            continue
    return sizes > MAX_FOLDER_BYTES


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
