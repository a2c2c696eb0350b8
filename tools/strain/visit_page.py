"""Visits a served page for a while, as a few people would: a light load.

    python -m diffjax.app &
    python -m tools.strain.watch PID-OF-THE-PAGE &
    python -m tools.strain.visit_page http://127.0.0.1:7860 [--minutes 28] [--every 5]

Each visitor is new: opens the page, uploads a picture, and every fourth draws one, fetches it and
leaves. Each eighth leaves while the drawing is under way. Exit codes: 0 all was answered with 200,
1 something was not.
"""

import argparse
import http.client
import io
import itertools
import json
import sys
import time
import uuid
from collections import Counter
from urllib.parse import quote, urlsplit

import numpy as np
from PIL import Image

API = "/gradio_api"
EDGE = "edge"
SECONDS = 120


class Visitor:
    """One session. answers: how often each status came."""

    def __init__(self, url: str, answers: Counter[int]):
        place = urlsplit(url)
        self._where = (place.hostname or "", place.port or 80)
        self._answers = answers
        self._session = uuid.uuid4().hex[:10]

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "", end: str = "") -> str:
        """The answer; of a stream, what came up to the first message that has the text `end`."""
        connection = http.client.HTTPConnection(*self._where, timeout=SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": kind, "Connection": "close"})
            reply = connection.getresponse()
            self._answers[reply.status] += 1
            if not end:
                return reply.read().decode("latin-1")
            lines = []
            while line := reply.readline().decode():
                lines.append(line)
                if end in line:
                    break
            return "".join(lines)
        finally:
            connection.close()

    def upload(self, picture: bytes) -> None:
        """Uploads a picture."""
        head = f'--{EDGE}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        body = head.encode() + picture + f"\r\n--{EDGE}--\r\n".encode()
        self.ask("POST", f"{API}/upload", body, f"multipart/form-data; boundary={EDGE}")

    def draw(self, leaves: bool) -> None:
        """Draws with the settings that the page begins with, and fetches the picture.

        leaves: goes away when the drawing begins.
        """
        config = json.loads(self.ask("GET", "/config"))
        boxes = {one["id"]: one["props"] for one in config["components"]}
        event = next(one for one in config["dependencies"] if one["api_name"] == "draw")
        data = [boxes[one].get("value") for one in event["inputs"]]
        data[0], data[2] = "a red apple", True
        asked = {"data": data, "fn_index": event["id"], "session_hash": self._session}
        self.ask("POST", f"{API}/queue/join", json.dumps(asked).encode(), "application/json")
        end = "process_starts" if leaves else "process_completed"
        query = f"session_hash={self._session}"
        told = self.ask("GET", f"{API}/queue/data?{query}", end=f'"{end}"').splitlines()
        if not leaves:
            output = json.loads(told[-1].removeprefix("data: "))["output"]
            path = first_path(output)
            self.ask("GET", f"{API}/file={quote(path)}" if path else "/no-picture-was-drawn")


def first_path(value: object) -> str:
    """The first "path" of a picture in an answer; "" if there is none."""
    if isinstance(value, dict):
        path = value.get("path")
        return path if isinstance(path, str) else first_path(list(value.values()))
    if isinstance(value, list):
        return next(filter(None, map(first_path, value)), "")
    return ""


def visit(url: str, minutes: float, every: float) -> Counter[int]:
    """Sends the visitors, one after the other; returns how often each status came."""
    answers, drawn, begun = Counter[int](), 0, time.monotonic()
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(file, "PNG")
    for number in itertools.count():
        left = begun + number * every - time.monotonic()
        if number * every > minutes * 60:
            break
        time.sleep(max(left, 0))
        visitor = Visitor(url, answers)
        for path in ("/", "/config", "/theme.css", "/favicon.ico"):
            visitor.ask("GET", path)
        visitor.upload(file.getvalue())
        if number % 4 == 0:
            visitor.draw(leaves=number % 8 == 4)
            drawn += 1
    print(f"{number} visitors, {drawn} drawings, answers {dict(answers)}")
    return answers


def main() -> int:
    """Reads the flags and visits; returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("url")
    flags.add_argument("--minutes", type=float, default=28)
    flags.add_argument("--every", type=float, default=5, help="seconds from visitor to visitor")
    told = flags.parse_args()
    return set(visit(told.url, told.minutes, told.every)) != {200}


if __name__ == "__main__":
    sys.exit(main())
