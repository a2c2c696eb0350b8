"""A real browser whose user is logged in at the page opens another site, which tries everything.

The log of the browser's network says what came back, whatever the other site could see of it.
"""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests import runs
from tests.app import browsers, test_app

pytestmark = pytest.mark.slow
pytest.importorskip("gradio")

TRIES = (Path(__file__).parent / "foreign.js").read_text()
# They take longer than the driver waits for a script.
BEGIN = f"{TRIES} window.found = null; tries(...arguments).then((found) => (window.found = found));"
LOGIN = """
const form = new FormData();
form.append("username", "ann");
form.append("password", "secret");
fetch("/login", { method: "POST", body: form }).then((reply) => arguments[0](reply.status));
"""
FLAGS = ("--net-log-capture-mode=Everything", "--disable-popup-blocking",
         "--host-resolver-rules=MAP evil.example 127.0.0.1")  # fmt: skip
# What the page's own user reads by the same tries: without it the test would show nothing.
OWN = ("config", "the page", "a picture", "token", "draw", "upload", "upload by XMLHttpRequest",
       "an image", "style", "events", "heartbeat", "a frame of config",
       "a window of a picture")  # fmt: skip
# All that a name which is made to mean this machine gets to see.
REFUSED = "this page is not served under that name"
SITE = """<!doctype html><title>another site</title><script src="foreign.js"></script>
<iframe id="sandbox" name="sandbox" sandbox="allow-scripts allow-forms allow-popups"
 srcdoc='<script src="foreign.js"></script>'></iframe>"""


class Request(NamedTuple):
    """A request of the browser's: for which origin, for what, and what came back."""

    initiator: str
    method: str
    url: str
    status: int
    body_bytes: int


def requests_of(log):
    """The requests in a network log of Chromium's; status 0: nothing came back."""
    told = json.loads(log.read_text())
    name = {number: name for name, number in told["constants"]["logEventTypes"].items()}
    asked, answers, read = {}, {}, Counter()
    for event in told["events"]:
        source, kind = event["source"]["id"], name[event["type"]]
        given = event.get("params", {})
        if kind == "URL_REQUEST_START_JOB" and "url" in given:
            asked[source] = (given.get("initiator", ""), given["method"], given["url"])
        elif kind == "HTTP_TRANSACTION_READ_RESPONSE_HEADERS":
            answers[source] = int(given["headers"][0].split()[1])
        elif kind == "URL_REQUEST_JOB_FILTERED_BYTES_READ":
            read[source] += given["byte_count"]
    return [Request(*asked[one], answers.get(one, 0), read[one]) for one in asked]


class Served(NamedTuple):
    """A page that asks for ann's password, and draws by a network of one line."""

    folder: Path
    url: str
    port: int
    draws: int  # the number of the event

    def files(self):
        return sorted(path for path in self.folder.glob("*/*"))


@pytest.fixture
def page(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.app.quick_page", str(tmp_path)],
        cwd=runs.ROOT, env={**os.environ, "DIFFJAX_AUTH": "ann:secret"}, stdout=subprocess.PIPE,
    )  # fmt: skip
    yield Served(tmp_path / "page", *json.loads(process.stdout.readline()))
    assert process.poll() is None
    process.terminate()
    process.wait(30)


@pytest.fixture
def site(tmp_path):
    """The port of the other site."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text(SITE)
    (folder / "foreign.js").write_text(TRIES)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_foreign_page_tries_everything_and_gets_nothing(page, site, tmp_path):
    picture = page.folder / ("0" * 32) / "seed0.png"
    picture.parent.mkdir()
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(picture)
    drawn = [*test_app.request(guidance=3.0, steps=2, count=1), 0, False, None]
    asked = {"data": drawn, "fn_index": page.draws, "session_hash": "evil"}
    rebound = f"http://evil.example:{page.port}"  # a name of the other site that means this machine
    log, before, found = tmp_path / "net.json", page.files(), {}
    with browsers.browsing(tmp_path / "profile", f"--log-net-log={log}", *FLAGS) as browser:

        def tried(place, frame=""):
            browser.switch_to.new_window("tab")
            browser.get(place)
            if frame:
                browser.switch_to.frame(frame)
            url = rebound if place == rebound else page.url
            browser.execute_script(BEGIN, url, str(picture), asked, runs.within(1))
            end = time.monotonic() + runs.within(300)
            while (found := browser.execute_script("return window.found")) is None:
                assert time.monotonic() < end
                time.sleep(0.5)
            return found

        browser.get(page.url)
        assert browser.execute_async_script(LOGIN) == 200
        for place in (f"http://evil.example:{site}", f"http://127.0.0.1:{site}", rebound):
            found[place] = tried(place)
        found["null"] = tried(f"http://127.0.0.1:{site}", "sandbox")
        assert page.files() == before
        own = tried(page.url)
    assert [name for name in OWN if not own[name]] == []  # the tries work, and ann is logged in
    read = {(place, name): text for place, texts in found.items() for name, text in texts.items()
            if text and REFUSED not in text}  # fmt: skip
    assert read == {}
    foreign = [one for one in requests_of(log) if urlsplit(one.url).port == page.port
               and one.initiator not in ("not an origin", page.url)]  # fmt: skip
    assert len(foreign) > 100
    answered = [one for one in foreign if one.status not in (0, 403) or one.body_bytes > 100]
    # a link may open the page in a window of its own, into which the other site cannot look
    assert {(one.method, urlsplit(one.url).path, one.status) for one in answered} == {
        ("GET", "/", 200)
    }
    assert len(answered) == 2 * len(found) - 2  # the two tries with such a window
    print(len(foreign), "requests, of them", len(answered), "windows of the page")
    print(Counter(one.status for one in foreign))
