"""The page under load: floods of uploads, slow and strange requests, visitors who leave."""

import asyncio
import os
import time
from types import SimpleNamespace

import pytest

from diffjax.app import connections, gate, logins, page, programs
from diffjax.app.followers import GRACE_S, Followers
from diffjax.app.logins import Attempts
from diffjax.app.room import Room
from diffjax.core.errors import ConfigError

UPLOAD, JOIN, LOGIN = "/gradio_api/upload", "/gradio_api/queue/join", "/login"


def through(app, folder, path, pieces=(b"x",), length=1, **how):
    """(status, body) of a POST through a gate; a piece of None never comes."""
    sent, waiting = [], list(pieces)

    async def receive():
        piece = waiting.pop(0) if waiting else b""
        if piece is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "client": ("10.0.0.1", 5),
             "headers": [(b"content-length", str(length).encode())]}  # fmt: skip
    asyncio.run(gate.gate(app, folder, **how)(scope, receive, send))
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


def answering(status, body=b"fine"):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


def test_an_answer_of_500_and_an_exception_become_one_of_400_without_a_traceback(tmp_path, capsys):
    async def raising(scope, receive, send):
        raise KeyError("fn_index 999")

    for app in (raising, answering(500, b"Traceback ...")):
        for _ in range(3):
            assert through(app, tmp_path, JOIN, (b"{}",), 2) == (400, b"not understood\n")
    assert through(answering(422), tmp_path, JOIN, (b"{}",), 2) == (422, b"fine")
    said = capsys.readouterr().err.splitlines()
    assert len(said) <= 1
    assert all(len(line) < 200 and "999" not in line for line in said)


def test_a_body_whose_next_piece_does_not_come_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "PIECE_S", 0.01)

    async def reading(scope, receive, send):
        while (await receive())["more_body"]:
            pass

    assert through(reading, tmp_path, UPLOAD, (b"x", None), 2)[0] == 408


def test_only_the_newest_uploads_and_the_newest_pictures_are_kept(tmp_path):
    for digits in (32, 64):
        for i in range(5):
            place = tmp_path / f"{i:0{digits}x}"
            place.mkdir()
            (place / "a.png").write_bytes(bytes(10))
            os.utime(place / "a.png", (1000 + i, 1000 + i))
    Room(tmp_path, most_files=3).make()
    left = {(len(one.name), int(one.name, 16)) for one in tmp_path.iterdir()}
    assert left == {(digits, i) for digits in (32, 64) for i in (2, 3, 4)}
    Room(tmp_path, most_bytes=25).make()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_flood_of_uploads_is_looked_at_now_and_then_and_not_for_each(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(Room, "make", lambda room: looks.append(room.folder))
    room = Room(tmp_path)
    for _ in range(200):
        through(answering(200), tmp_path, UPLOAD, room=room)
    assert len(looks) == 3
    through(answering(200), tmp_path, UPLOAD, (b"",), gate.POSTS[UPLOAD], room=room)
    through(answering(200), tmp_path, UPLOAD, (b"",), gate.POSTS[UPLOAD], room=room)
    assert len(looks) == 4  # 64 MB since the last look


def test_empty_folders_of_a_while_ago_are_deleted_and_a_new_one_may_get_its_file(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "old", (1000, 1000))
    Room(tmp_path).delete_old(time.time() - 10)
    assert [one.name for one in tmp_path.iterdir()] == ["new"]


def test_a_session_waits_while_it_listens_and_a_moment_after_it_asked():
    now = [0.0]
    followers = Followers(lambda: now[0])
    assert not followers.waits("a")
    assert followers.waits(None)
    followers.asked("a")
    now[0] = GRACE_S - 1
    assert followers.waits("a")
    with followers.listening("a"), followers.listening("a"):
        now[0] = 1000.0
        assert followers.waits("a")
    assert not followers.waits("a")
    assert not followers._listening
    assert not followers._asked


def test_the_gate_tells_who_asks_and_who_listens(tmp_path):
    followers, seen = Followers(), []

    async def app(scope, receive, send):
        seen.append((followers.waits("ann"), dict(followers._listening)))
        await answering(200)(scope, receive, send)

    through(app, tmp_path, JOIN, (b'{"session_hash": "ann"}',), 23, followers=followers)
    followers._asked.clear()
    scope = {"type": "http", "method": "GET", "path": "/gradio_api/queue/data", "headers": [],
             "query_string": b"session_hash=ann"}  # fmt: skip

    async def send(message):
        pass

    async def receive():
        return {"type": "http.disconnect"}

    asyncio.run(gate.gate(app, tmp_path, followers=followers)(scope, receive, send))
    assert seen == [(True, {}), (True, {"ann": 1})]
    assert not followers.waits("ann")


def test_the_session_of_a_request_is_a_text_or_none():
    assert page.session_of(SimpleNamespace(session_hash="a")) == "a"
    assert page.session_of(SimpleNamespace(session_hash=3)) is None
    assert page.session_of(None) is None


def test_programs_are_forgotten_when_there_are_many(monkeypatch):
    cleared = []
    monkeypatch.setattr(programs.jax, "clear_caches", lambda: cleared.append(True))
    used = programs.Programs(most=3)
    for steps in (1, 2, 3, 2, 1):
        used.use(3.0, steps)
    assert not cleared
    used.use(3.0, 4)
    assert len(cleared) == 1


def test_ten_wrong_passwords_a_minute_are_taken_and_right_ones_do_not_count(tmp_path):
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(30):
        assert attempts.begin("a")
        attempts.succeeded("a")
    assert [attempts.begin("a") for _ in range(12)] == [True] * 10 + [False] * 2
    assert attempts.begin("b")
    assert sum(attempts.begin(str(i)) for i in range(200)) == logins.ALTOGETHER - 11
    now[0] = 61.0
    assert attempts.begin("a")


def test_the_gate_refuses_the_eleventh_wrong_password(tmp_path):
    reached = []

    async def app(scope, receive, send):
        reached.append(1)
        await answering(400)(scope, receive, send)

    guarded = gate.gate(app, tmp_path)

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    statuses = []
    scope = {"type": "http", "method": "POST", "path": LOGIN, "client": ("10.0.0.1", 5),
             "headers": [(b"content-length", b"0")]}  # fmt: skip
    for _ in range(12):
        asyncio.run(guarded(scope, receive, send))
    assert statuses == [400] * 10 + [429] * 2
    assert len(reached) == 10


def test_the_password_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(logins.AUTH, raising=False)
    file = tmp_path / "auth"
    file.write_text("ann:b:c\n")
    assert logins.login(None, None) is None
    assert logins.login("ann:x", None) == ("ann", "x")
    assert logins.login(None, file) == ("ann", "b:c")
    monkeypatch.setenv(logins.AUTH, "ann:y")
    assert logins.login(None, None) == ("ann", "y")
    assert logins.AUTH not in os.environ
    for text, path in (("secret", None), ("a:b", file), (None, tmp_path / "absent")):
        with pytest.raises(ConfigError) as refused:
            logins.login(text, path)
        assert "secret" not in str(refused.value)


class Transport(asyncio.Transport):
    """Notes that it is closed."""

    def __init__(self):
        super().__init__()
        self.closed = 0

    def close(self):
        self.closed += 1


class Timer:
    def cancel(self):
        self.cancelled = True


class Base:
    """The part of uvicorn's protocol that is used."""

    def __init__(self, others):
        self.connections, self.cycle, self.later = set(range(others)), None, []
        self.loop, self.app = self, answering(200)

    def call_later(self, seconds, call):
        self.later.append((seconds, call))
        return Timer()

    def connection_made(self, transport):
        self.transport = transport
        self.connections.add(self)

    def connection_lost(self, exc):
        self.connections.discard(self)


def test_a_connection_without_a_whole_request_is_closed_and_one_that_is_answered_is_not():
    transport = Transport()
    made = connections.hurried(Base)(0)
    made.connection_made(transport)
    made.cycle = SimpleNamespace(response_complete=False)  # a visitor who follows the queue
    made.later[-1][1]()
    assert not transport.closed
    made.cycle = SimpleNamespace(response_complete=True)  # and then half of another request
    made.later[-1][1]()
    assert transport.closed == 1
    assert connections.hurried(Base, lambda app: ("guarded", app))(0).app[0] == "guarded"
    timer = made._look
    made.connection_lost(None)
    assert timer.cancelled
    connections.hurried(Base)(connections.MOST).connection_made(transport)
    assert transport.closed == 2


def test_a_server_that_starts_late_is_waited_for_and_one_that_ends_is_not():
    late, ended = (SimpleNamespace(started=False, thread=None) for _ in range(2))

    def run_late():
        time.sleep(0.2)
        late.started = True

    late.run, ended.run = run_late, lambda: None
    connections.start(late)
    assert late.started
    with pytest.raises(OSError, match="is the port taken"):
        connections.start(ended)
