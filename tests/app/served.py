"""A page in a process of its own, and a browser that looks at it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from diffjax import main
from diffjax.images import png
from tests import runs
from tests.quick import XLA_FLAGS
from tests.tiny_t5 import save_tiny

CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-unsafe-swiftshader", "--window-size=1200,1100",
]  # fmt: skip


def program(variable, *names):
    """The file that an environment variable names, or else the first of the names on PATH."""
    return os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def browsing(profile, *flags):
    """A headless Chromium with a profile of its own; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = program("DIFFJAX_CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    chromedriver = program("DIFFJAX_CHROMEDRIVER", "chromedriver")
    if not (chromium and chromedriver):
        pytest.skip(
            "no browser: chromium and chromedriver are not on PATH, and neither DIFFJAX_CHROMIUM "
            "nor DIFFJAX_CHROMEDRIVER names them"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={profile}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(runs.within(300))
    try:
        yield driver
    finally:
        driver.quit()


def trained(tmp_path_factory):
    """The workdir of a tiny cascade."""
    folder = tmp_path_factory.mktemp("cascade")
    encoder = save_tiny(tmp_path_factory.mktemp("t5"))
    flags = [f"--config.{s}.text.encoder={encoder}" for s in ("base64", "sr256")]
    flags += [f"--config.{s}.text.max_tokens=32" for s in ("base64", "sr256")]
    os.environ["DIFFJAX_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "cache")
    assert main.main(["--config", "configs/cascade.py:tiny", "--workdir", str(folder), *flags]) == 0
    return folder


class Server:
    """A page in a process of its own, whose temporary folder is `tmp`.

    password: the one that its visitors must give; `http` has given it.
    """

    def __init__(self, workdir, tmp, *more, user="", password=""):
        import httpx  # comes with gradio

        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            self.port = trial.getsockname()[1]
        self.tmp, self.log = tmp, tmp.parent / "server.log"
        self.environ = {
            **os.environ, "TMPDIR": str(tmp), "XLA_FLAGS": XLA_FLAGS,
        }  # fmt: skip
        if password:
            self.environ["DIFFJAX_AUTH"] = f"{user}:{password}"
        flags = ["--workdir", str(workdir), "--port", str(self.port), *map(str, more)]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diffjax.app", *flags],
                cwd=runs.ROOT, env=self.environ, stdout=log, stderr=log,
            )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"
        end = time.monotonic() + runs.within(300)
        while f"the page is at {self.url}" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.3)
        self.http = httpx.Client(base_url=self.url, timeout=120, trust_env=False)
        if password:
            given = {"username": user, "password": password}
            assert self.http.post("/login", data=given).status_code == 200
        events = self.http.get("/config").json()["dependencies"]
        self.events = {event["api_name"]: event["id"] for event in events}

    def ask(self, event, data, session=None):
        """(output, error) of an event: the data of the last message, or why it was refused."""
        session = session or uuid.uuid4().hex[:10]
        body = {"data": data, "fn_index": self.events[event], "session_hash": session}
        # as json.dumps has it, with NaN and lone surrogates
        reply = self.http.post(
            "/gradio_api/queue/join",
            content=json.dumps(body),
            headers={"content-type": "application/json"},
        )
        if reply.status_code != 200:
            return None, f"{reply.status_code}: {reply.text}"
        query = {"session_hash": session}
        with self.http.stream("GET", "/gradio_api/queue/data", params=query) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    output = message["output"]
                    return (output["data"], None) if message["success"] else (None, output["error"])
        raise AssertionError("the queue said nothing")

    def upload(self, path, name="image.png"):
        """What the editor sends of a file."""
        files = {"files": (name, path.read_bytes(), "image/png")}
        (there,) = self.http.post("/gradio_api/upload", files=files).json()
        return {"path": there, "meta": {"_type": "gradio.FileData"}}

    def made(self, kind="sample", stages=2):
        """The files of the large pictures, oldest first."""
        found = [
            p for p in self.tmp.glob("*/*/seed*.png")
            if (said := png.read_metadata(p))["kind"] == kind and len(said["stages"]) == stages
        ]  # fmt: skip
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    def rss_mb(self):
        (line,) = [
            line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        ]  # fmt: skip
        return int(line.split()[1]) / 1024
