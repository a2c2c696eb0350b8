"""Sends a served page random requests, half of them for another site.

    python -m diffjax.app &
    python -m tools.strain.fuzz_page http://127.0.0.1:7860 [--number 300] [--seed 0]

No answer may be one of 500 or above, but 503 and 507 for too much; and a request for another site
must get 403 and no byte of the page. The requests depend on the seed alone. Exit codes: 0 all of
this held, 1 it did not.
"""

import argparse
import http.client
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

PATHS = (
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/logout", "/login", "/docs",
    "/gradio_api/info", "/gradio_api/app_id", "/gradio_api/token", "/gradio_api/startup-events",
    "/gradio_api/queue/data", "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/cancel",
    "/gradio_api/reset", "/gradio_api/heartbeat/x", "/gradio_api/file=/etc/passwd", "/assets/x.js",
    "/gradio_api/upload_progress", "/static/../../etc/passwd", "/gradio_api/run/draw",
)  # fmt: skip
METHODS = ("GET", "POST", "POST", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "X")
KINDS = ("application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain",
         "application/x-www-form-urlencoded", "")  # fmt: skip
FOREIGN: tuple[Mapping[str, str], ...] = (
    {"Host": "evil.example"}, {"Host": "evil.example:7860", "Origin": "http://evil.example:7860"},
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
)  # fmt: skip
REFUSED = 403


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    foreign: bool


def value(draw: random.Random, depth: int = 0) -> object:
    """Some JSON."""
    plain = (None, True, -1, 0, 1, 2.5, 10**30, "", "a red apple", "\0", "x" * 20_000, 999)
    kind = draw.randrange(4 if depth < 3 else 1)
    if kind == 1:
        return [value(draw, depth + 1) for _ in range(draw.randrange(9))]
    if kind == 2:
        keys = ("path", "data", "fn_index", "session_hash", "event_id", "background", "layers")
        return {draw.choice(keys): value(draw, depth + 1) for _ in range(draw.randrange(6))}
    return draw.choice(plain)


def body_of(draw: random.Random) -> bytes:
    """A body of some kind, right or wrong."""
    kind = draw.randrange(5)
    if kind == 0:
        return b""
    if kind == 1:
        return draw.randbytes(draw.randrange(2000))
    if kind == 2:
        asked = {"data": value(draw), "fn_index": draw.choice([0, 1, 2, 3, -1, 10**9, "x", None]),
                 "session_hash": draw.choice(["a", "", None, 3, "x" * 999])}  # fmt: skip
        return json.dumps(asked).encode()
    if kind == 3:
        name = draw.choice(["a.png", "../a.png", "", "\\", "x" * 999])
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        return head.encode() + draw.randbytes(99) + draw.choice([b"\r\n--x--\r\n", b"", b"\r\n--x"])
    return json.dumps(value(draw)).encode()


def asked(draw: random.Random) -> Asked:
    """A random request."""
    path = draw.choice(PATHS)
    if draw.random() < 0.3:
        path += "?session_hash=" + quote(draw.choice(["a", "zz", "", "%", "\n"]))
    foreign = draw.random() < 0.5
    headers = {"Content-Type": draw.choice(KINDS), "Connection": "close"}
    if draw.random() < 0.3:
        headers["Range"] = draw.choice(
            ["bytes=9-1", "bytes=-", "x", "bytes=0-99999999999999999999"]
        )
    if draw.random() < 0.1:
        headers["Cookie"] = "access-token=" + "x" * draw.randrange(3000)
    if foreign:
        headers |= draw.choice(FOREIGN)
    method = draw.choice(METHODS)
    return Asked(method, path, headers, body_of(draw) if method != "GET" else b"", foreign)


def answer(host: str, port: int, one: Asked) -> tuple[int, bytes, list[str]]:
    """(status, the first bytes, the names of the headers); a stream is not read to its end."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request(one.method, one.path, one.body, one.headers)
        reply = connection.getresponse()
        stream = "event-stream" in (reply.getheader("Content-Type") or "")
        names = [name.lower() for name, _ in reply.getheaders()]
        return reply.status, b"" if stream else reply.read(10_000), names
    finally:
        connection.close()


def fuzz(url: str, number: int, seed: int) -> list[str]:
    """Sends the requests; returns what did not hold, a line each."""
    place, draw, wrong, codes = urlsplit(url), random.Random(seed), [], Counter[int]()
    for _ in range(number):
        one = asked(draw)
        status, body, names = answer(place.hostname or "", place.port or 80, one)
        codes[status] += 1
        told = f"{one.method} {one.path} {one.headers} -> {status}"
        if status >= 500 and status not in (503, 507):
            wrong.append(told)
        if one.foreign and (status != REFUSED or len(body) > 100):
            wrong.append(f"for another site: {told}, {len(body)} bytes")
        if any(name.startswith("access-control-") for name in names):
            wrong.append(f"open to another site: {told}")
    print(f"{number} requests, codes {dict(sorted(codes.items()))}, {len(wrong)} that did not hold")
    print(*wrong, sep="\n")
    return wrong


def main() -> int:
    """Reads the flags and fuzzes; returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("url")
    flags.add_argument("--number", type=int, default=300)
    flags.add_argument("--seed", type=int, default=0)
    parsed = flags.parse_args()
    return bool(fuzz(parsed.url, parsed.number, parsed.seed))


if __name__ == "__main__":
    sys.exit(main())
