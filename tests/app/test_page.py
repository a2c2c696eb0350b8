"""The page as it is served: a real server with a tiny cascade, bad requests, a real browser."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from diffjax import main
from diffjax.images import png
from tests import runs, test_sample_classifier, test_unclip
from tests.app import browsers, test_app
from tests.encoders.clip import small
from tests.quick import XLA_FLAGS
from tests.tiny_t5 import save_tiny
from tools.strain import fuzz_page

pytestmark = pytest.mark.slow
pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")  # comes with gradio


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade")
    encoder = save_tiny(tmp_path_factory.mktemp("t5"))
    flags = [f"--config.{s}.text.encoder={encoder}" for s in ("base64", "sr256")]
    flags += [f"--config.{s}.text.max_tokens=32" for s in ("base64", "sr256")]
    os.environ["DIFFJAX_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "cache")
    assert main.main(["--config", "configs/cascade.py:tiny", "--workdir", str(folder), *flags]) == 0
    return folder


class Server:
    """A page in a process of its own, whose temporary folder is `tmp`."""

    def __init__(self, workdir, tmp, *more):
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            self.port = trial.getsockname()[1]
        self.tmp, self.log = tmp, tmp.parent / "server.log"
        self.environ = {
            **os.environ, "TMPDIR": str(tmp), "XLA_FLAGS": XLA_FLAGS,
        }  # fmt: skip
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


@pytest.fixture(scope="module")
def server(workdir, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("server") / "tmp"
    tmp.mkdir()
    server = Server(workdir, tmp)
    yield server
    assert server.process.poll() is None, server.log.read_text()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 143
    assert list(tmp.glob("diffjax-app-*")) == []


def draw(best=False, **changes):
    return [*test_app.request(**{"guidance": 3.0, "steps": 4, **changes}), 0, best, None]


def test_a_downloaded_picture_is_made_again_byte_for_byte(server, workdir, tmp_path):
    output, error = server.ask("draw", draw(count=1))
    assert error is None
    path = server.made()[-1]
    assert str(path) in json.dumps(output)
    reply = server.http.get(f"/gradio_api/file={path}")
    like = tmp_path / "downloaded.png"
    like.write_bytes(reply.content)
    command = [sys.executable, "-m", "diffjax.sample", "--workdir", str(workdir),
               "--like", str(like), "--out", str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(
        command, cwd=runs.ROOT, env=server.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "in every pixel" in done.stdout
    (again,) = (tmp_path / "out").glob(f"0000_seed3_{png.read_size(path)[0]}px.png")
    assert again.read_bytes() == reply.content


def test_bad_requests_are_refused_and_cost_nothing(server, tmp_path):
    Image.fromarray(test_app.COLOURS).save(tmp_path / "b.png")
    Image.fromarray(test_app.layer()).save(tmp_path / "l.png")
    test_app.bomb(tmp_path / "bomb.png")
    (tmp_path / "letter.png").write_text("dear")
    background, layer, bomb, letter = (
        server.upload(tmp_path / f"{name}.png") for name in ("b", "l", "bomb", "letter")
    )
    editors = [
        None, 3, {}, {"background": background}, {"background": letter, "layers": [layer]},
        {"background": bomb, "layers": [layer]}, {"background": background, "layers": [bomb]},
        {"background": background, "layers": [layer] * 9},
        {"background": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}},
        {"background": {"path": "http://127.0.0.1:1/x.png", "meta": {"_type": "gradio.FileData"}}},
    ]  # fmt: skip
    bad = [("draw", draw(**{name: value})) for name, value in test_app.BAD]
    bad += [("paint", [editor, *draw()]) for editor in editors]
    bad += [
        ("draw", draw(best="yes")),
        ("draw", []),
        ("draw", draw()[:3]),
        ("draw", {}),
        ("paint", draw()),
    ]
    assert len(bad) >= 50
    assert server.ask("draw", draw())[1] is None
    pictures, before = len(server.made()), server.rss_mb()
    for event, data in bad:
        output, error = server.ask(event, data)
        assert output is None, (event, data)
        assert "\n" not in (error or "").strip(), error
    for name, value in test_app.BAD[4:6]:
        assert server.ask("draw", draw(**{name: value}))[1].startswith("prompt: ")
    assert server.rss_mb() - before < 100
    assert len(server.made()) == pictures
    assert server.ask("draw", draw())[1] is None


def test_a_visitor_does_not_see_the_pictures_of_another(server):
    assert server.ask("draw", draw(count=1), "ann")[1] is None
    assert server.ask("take_last", [None], "ann")[1] is None
    assert server.ask("take_last", [None], "ben")[1].startswith("There is no picture yet")


def test_a_page_of_classes_draws_those_that_are_chosen_guided_by_a_classifier(tmp_path):
    runs_ = {"digits": "configs/digits.py:tiny", "classifier": "configs/adm_classifier.py:tiny"}
    for name, spec in runs_.items():
        assert test_sample_classifier.train(tmp_path / name, of=spec) == 0
    (tmp_path / "tmp").mkdir()
    page = Server(tmp_path / "digits", tmp_path / "tmp", "--guide-by", tmp_path / "classifier")
    try:
        parts = page.http.get("/config").json()["components"]
        boxes = {one["props"].get("elem_id"): one["props"] for one in parts}
        assert boxes["prompt"]["choices"][7] == ["seven", 7]
        assert len(boxes["prompt"]["choices"]) == 11  # no class is one too
        assert boxes["scale"]["visible"]
        asked = [[7, 3], "", False, 3, 1.0, 2, 1, 2.0, False, None]
        assert page.ask("draw", asked)[1] is None
        made = page.made(stages=1)
        said = [png.read_metadata(path) for path in made]
        assert sorted(one["label"] for one in said) == [3, 7]
        assert {one["stages"][0]["classifier"]["name"] for one in said} == {"classifier"}
        assert {one["stages"][0]["settings"]["classifier_guidance"] for one in said} == {2.0}
        command = [sys.executable, "-m", "diffjax.sample", "--workdir", str(tmp_path / "digits"),
                   "--guide-by", str(tmp_path / "classifier"), "--like", str(made[0]),
                   "--out", str(tmp_path / "out")]  # fmt: skip
        done = subprocess.run(
            command, cwd=runs.ROOT, env=page.environ, capture_output=True, text=True
        )
        assert "in every pixel" in done.stdout, done.stderr
        assert page.ask("draw", [*asked[:7], 0.0, False, None])[1] is None  # unguided
        Image.fromarray(test_app.COLOURS).save(tmp_path / "b.png")
        Image.fromarray(test_app.layer()).save(tmp_path / "l.png")
        background, layer = (page.upload(tmp_path / f"{name}.png") for name in ("b", "l"))
        editor = {"background": background, "layers": [layer]}
        assert page.ask("paint", [editor, [1], *asked[1:]])[1] is None
        (path,) = page.made("inpaint", stages=1)
        assert png.read_metadata(path)["label"] == 1
        for wrong, words in (
            ([[11], *asked[1:]], "class: want a whole number from 0 to 10"),
            (["a cat", *asked[1:]], "class: choose at least one"),
            ([*asked[:7], 31, False, None], "classifier guidance: want a number from 0 to 30"),
        ):
            assert page.ask("draw", wrong) == (None, words)
    finally:
        page.process.terminate()
        page.process.wait(30)


def test_a_page_of_a_decoder_makes_variations_films_and_text_diffs_of_uploaded_pictures(tmp_path):
    encoder, clip = save_tiny(tmp_path / "t5"), small.write(tmp_path / "clip")
    flags = test_unclip.flags_of(clip, "train.num_steps=2", "train.ema=()")
    assert runs.run(tmp_path / "decoder", encoder, *flags, config=test_unclip.DECODER) == 0
    (tmp_path / "tmp").mkdir()
    page = Server(tmp_path / "decoder", tmp_path / "tmp")
    try:
        parts = page.http.get("/config").json()["components"]
        assert {"vary", "between", "change"} <= {one["props"].get("elem_id") for one in parts}
        for name, pixels in (("a", test_app.COLOURS), ("b", test_app.COLOURS[::-1].copy())):
            Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        a, b = (page.upload(tmp_path / f"{name}.png") for name in "ab")
        usual = [False, 3, 2]  # a new seed, the seed, the steps
        output, error = page.ask("variations", [a, 1.0, *usual, 2, None], "ann")
        assert error is None
        made = page.made("variations", stages=1)
        assert {png.read_metadata(path)["seed"] for path in made} == {3, 4}
        assert all(str(path) in json.dumps(output) for path in made)
        last, _ = page.ask("take_for_variations", [None], "ann")
        assert last[0]["path"] == str(max(made, key=lambda path: path.name))
        texts = ["a red apple", "a green pear"]
        for kind, own in (("interpolation", [a, b, 3]), ("diff", [a, *texts, 0.5, 3])):
            output, error = page.ask(kind, [*own, *usual, None])
            assert error is None
            (film,) = (path for path in page.tmp.glob("*/*/*.webp") if kind[:4] in path.name)
            assert str(film) in json.dumps(output)
            reply = page.http.get(f"/gradio_api/file={film}")
            assert (reply.status_code, reply.headers["content-type"]) == (200, "image/webp")
            assert reply.content == film.read_bytes()
        for kind, wrong, words in (
            ("variations", [None, 1.0, *usual, 2, None], "picture: upload one"),
            ("variations", [a, 0.3, *usual, 2, None], "how much is drawn anew: 0.3 is not"),
            ("interpolation", [a, b, 99, *usual, None], "frames: want a whole number from 3 to 24"),
            ("diff", [a, "", "x", 0.5, 3, *usual, None], "what it shows: say it"),
            ("diff", [a, "x", "X", 0.5, 3, *usual, None], "means the same"),
        ):
            output, error = page.ask(kind, wrong)
            assert output is None
            assert words in error
        assert page.ask("variations", [a])[0] is None
    finally:
        page.process.terminate()
        page.process.wait(30)


def test_a_page_without_a_decoder_shows_nothing_that_needs_one(server):
    assert not {"variations", "interpolation", "diff"} & set(server.events)
    parts = server.http.get("/config").json()["components"]
    assert not {"vary", "between", "change"} & {one["props"].get("elem_id") for one in parts}


def raw(server, method, path, body=b"", headers=()):
    """(status, body), the path sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, body, dict(headers))
    reply = connection.getresponse()
    return reply.status, reply.read()


def test_no_path_reaches_a_file_outside_the_pages_folder(server):
    (own,) = server.tmp.glob("diffjax-app-*")
    token = "0" * 32
    for path in [
        "/etc/passwd", "../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "%2Fetc%2Fpasswd",
        "..%2f..%2fetc/passwd", f"{own}/../../server.log", f"{own}/{token}/../../../server.log",
        f"{own}/{token}/%2e%2e/%2e%2e/%2e%2e/server.log", "file:///etc/passwd", str(own),
        f"http://127.0.0.1:{server.port}/", "//etc/passwd", f"{runs.ROOT}/pyproject.toml",
    ]:  # fmt: skip
        for route in ("file=", "file/", "proxy="):
            status, body = raw(server, "GET", f"/gradio_api/{route}{path}")
            assert status in (400, 403, 404), path
            assert len(body) < 200
    edge = "xyz"
    for name in ("../../evil.png", "..\\evil.png", "/tmp/evil.png", "..", "%2e%2e/evil.png"):
        body = (
            f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
            f"evil\r\n--{edge}--\r\n"
        ).encode()
        form = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        status, reply = raw(server, "POST", "/gradio_api/upload", body, form)
        for there in json.loads(reply) if status == 200 else ():
            assert Path(there).resolve().is_relative_to(own)
    assert not list(server.tmp.parent.glob("*evil*")) + list(server.tmp.glob("*evil*"))
    assert not Path("/tmp/evil.png").exists()


def test_of_300_random_requests_none_is_answered_with_500_and_other_sites_get_nothing(server):
    assert fuzz_page.fuzz(server.url, 300, 0) == []


@pytest.fixture
def browser(tmp_path):
    with browsers.browsing(tmp_path / "profile") as driver:
        yield driver


def test_a_visitor_draws_and_paints(server, browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def find(selector):
        return browser.find_elements("css selector", selector)

    def wait(holds):
        return WebDriverWait(browser, runs.within(90)).until(lambda _: holds())

    browser.get(server.url)
    nasty = "<img src=x onerror=\"document.title='owned'\">"
    wait(lambda: find("#prompt textarea"))[0].send_keys(f"a red apple {nasty}")
    find("#draw")[0].click()
    wait(lambda: find("#stage0 img") and find("#stage1 img") and find("#mine img"))
    drawn = server.made()[-1]
    shown = find("#mine img")[0].get_attribute("src")
    assert urlsplit(shown).path == f"/gradio_api/file={drawn}"
    wait(lambda: browser.execute_script("return arguments[0].naturalWidth", find("#mine img")[0]))
    assert browser.title == "diffjax"

    find("button[role=tab]")[1].click()
    wait(lambda: find("#take") and find("#take")[0].is_displayed())
    find("#take")[0].click()
    canvas = wait(lambda: find("#editor canvas"))[0]
    time.sleep(2)  # the editor says nothing of when its picture is in
    hand = ActionChains(browser).move_to_element(canvas).click_and_hold()
    for x, y in ((30, 0), (0, 30), (-30, 0), (15, -15)):
        hand = hand.move_by_offset(x, y)
    hand.release().perform()
    find("#instead textarea")[0].send_keys("a frog")
    find("#paint")[0].click()
    wait(lambda: len(find("#mine img")) == 2)
    given, anew = png.read(drawn), png.read(server.made("inpaint")[-1])
    changed = (given != anew).any(axis=-1)
    assert 0 < changed.mean() < 0.3
    rows, columns = np.nonzero(changed)
    middle = given.shape[0] / 2
    assert abs(rows.mean() - middle) < middle / 2
    assert abs(columns.mean() - middle) < middle / 2

    find("#instead textarea")[0].send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE)
    find("#paint")[0].click()
    toast = wait(lambda: [x for x in find(".toast-body") if "say what to draw" in x.text])
    assert "prompt: say what to draw" in toast[0].text
    if os.environ.get("DIFFJAX_SCREENSHOT"):
        browser.save_screenshot(os.environ["DIFFJAX_SCREENSHOT"])

    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages
             if m["method"] == "Network.requestWillBeSent"]  # fmt: skip
    outside = [u for u in asked if urlsplit(u).scheme in ("http", "https", "ws", "wss")
               and urlsplit(u).hostname != "127.0.0.1"]  # fmt: skip
    assert asked
    assert outside == []
