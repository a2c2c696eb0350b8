"""Other sites get nothing: Host, Origin and Sec-Fetch-Site, cookies, and headers of answers."""

import asyncio

import pytest

from diffjax.app import gate, origin
from diffjax.app.origin import origins_of

PORT = 7860
JOIN = "/gradio_api/queue/join"
SITE = b"sec-fetch-site"


def asked(origins, method="GET", path="/config", body=b"", **headers):
    """(status, headers, whether the server was reached) of a request through the gate."""
    reached, sent = [], []

    async def app(scope, receive, send):
        reached.append(path)
        cookies = [
            (b"Set-Cookie", b"a=1; HttpOnly; SameSite=none; Secure"),
            (b"set-cookie", b"b=2"),
        ]
        open_to = [(b"Access-Control-Allow-Origin", b"https://evil.example"),
                   (b"access-control-allow-credentials", b"true")]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": cookies + open_to})
        await send({"type": "http.response.body", "body": b"secret"})

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    given = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    given += [(b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": given}
    asyncio.run(gate.gate(app, FOLDER, origins)(scope, receive, send))
    return sent[0]["status"], sent[0]["headers"], bool(reached)


@pytest.fixture(autouse=True)
def folder(tmp_path):
    global FOLDER
    FOLDER = tmp_path


HERE = origins_of("127.0.0.1")
FOREIGN = [
    dict(host="evil.example"), dict(host="evil.example:7860"), dict(host="192.168.1.5:7860"),
    dict(host="localhost.evil.example:7860"), dict(), dict(host=""), dict(host="a@127.0.0.1:7860"),
    dict(host="127.0.0.1:7860", origin="https://evil.example"),
    dict(host="127.0.0.1:7860", origin="http://127.0.0.1:3000"),
    dict(host="127.0.0.1:7860", origin="http://localhost:7860"),
    dict(host="127.0.0.1:7860", origin="null"), dict(host="127.0.0.1:7860", origin="file://"),
    dict(host="127.0.0.1:7860", sec_fetch_site="cross-site"),
    dict(host="127.0.0.1:7860", sec_fetch_site="same-site"),
    dict(host="127.0.0.1:7860", sec_fetch_site="cross-site", sec_fetch_mode="no-cors",
         sec_fetch_dest="image"),
]  # fmt: skip
OWN = [
    dict(host="127.0.0.1:7860"), dict(host="localhost:7860"), dict(host="[::1]:7860"),
    dict(host="LOCALHOST"), dict(host="localhost:8080", origin="http://localhost:8080"),
    dict(host="127.0.0.1:7860", origin="http://127.0.0.1:7860", sec_fetch_site="same-origin"),
    dict(host="127.0.0.1:7860", sec_fetch_site="none"),
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_request_for_another_site_reaches_nothing(headers):
    for method, path in (("GET", "/config"), ("GET", "/gradio_api/queue/data"), ("POST", JOIN),
                         ("POST", "/gradio_api/upload"), ("POST", "/login"), ("GET", "/logout"),
                         ("OPTIONS", JOIN)):  # fmt: skip
        status, _, reached = asked(HERE, method, path, b"{}", **headers)
        assert (status, reached) == (403, False), (method, path)


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_the_page_itself_and_programs_are_answered(headers):
    assert asked(HERE, **headers)[0] == 200
    assert asked(HERE, "POST", JOIN, b"{}", **headers)[0] == 200


def test_a_link_from_another_site_opens_the_page_and_a_frame_does_not():
    link = dict(host="localhost:7860", sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert asked(HERE, path="/", sec_fetch_dest="document", **link)[0] == 200
    assert asked(HERE, path="/", sec_fetch_dest="iframe", **link)[0] == 403
    assert asked(HERE, path="/logout", sec_fetch_dest="document", **link)[0] == 403


def test_a_header_that_is_there_twice_is_refused():
    for name in (b"host", b"origin", SITE):
        headers = [(b"host", b"localhost"), (b"origin", b"http://localhost"), (SITE, b"none")]
        same = next(pair for pair in headers if pair[0] == name)
        assert HERE.fault([*headers, same], "GET", "/")


def test_answers_let_no_other_site_read_them_and_cookies_are_strict():
    _, headers, _ = asked(HERE, host="localhost:7860")
    names = [name.lower() for name, _ in headers]
    assert not [name for name in names if name.startswith(b"access-control-")]
    cookies = [value for name, value in headers if name.lower() == b"set-cookie"]
    assert cookies == [b"a=1; HttpOnly; Secure; SameSite=Strict", b"b=2; SameSite=Strict"]
    for added in origin.ADDED:
        assert headers.count(added) == 1


def test_a_page_that_others_can_reach_takes_addresses_and_its_own_names_but_no_others():
    there = origins_of("0.0.0.0")
    for host in ("192.168.1.5:7860", "[2001:db8::1]:7860", "localhost:7860"):
        assert there.fault([(b"host", host.encode())], "GET", "/") == "", host
    assert "--name" in there.fault([(b"host", b"evil.example:7860")], "GET", "/")


def test_the_name_of_a_proxy_is_taken_from_it_with_either_host():
    there = origins_of("127.0.0.1", ["Draw.example.org"])
    said = (b"origin", b"https://draw.example.org")
    for host in (b"draw.example.org", b"127.0.0.1:7860"):
        assert there.fault([(b"host", host), said], "POST", JOIN) == "", host
    assert there.fault([(b"host", b"draw.example.org"), (b"origin", b"https://a.b")], "GET", "/")
