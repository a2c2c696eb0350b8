"""python -m tests.app.quick_page FOLDER: serves the page with a cascade that needs no training.

Its networks are one line each. The page asks for the password of DIFFJAX_AUTH and keeps its files
in FOLDER/page. A line of JSON says its address and the number of the event that draws.
"""

import contextlib
import json
import random
import socket
import sys
import threading
from pathlib import Path

from diffjax.app import drawing, logins, server
from diffjax.app.answers import Studio
from diffjax.app.followers import Followers
from diffjax.app.origin import origins_of
from diffjax.app.room import Room
from tests import tiny_cascade


def main(root: Path) -> None:
    """Serves until the process is ended."""
    folder, encoder = (root / "page").resolve(), root / "t5"
    for one in (folder, encoder):
        one.mkdir()
    server.own_environment(folder)
    from diffjax.app.page import build

    room, followers = Room(folder), Followers()
    cascade = drawing.at_start(tiny_cascade.cascade(encoder))
    blocks = build(Studio(cascade, room, followers))
    port = free_port()
    url = server.launch(blocks, room, "127.0.0.1", port, logins.login(None, None),
                        origins=origins_of("127.0.0.1"), followers=followers)  # fmt: skip
    events = {one["api_name"]: one["id"] for one in blocks.get_config_file()["dependencies"]}
    print(json.dumps([url.rstrip("/"), port, events["draw"]]), flush=True)
    threading.Event().wait()


def free_port() -> int:
    """A port that is free, and that no connection of another program is given meanwhile."""
    for port in random.sample(range(20_000, 32_000), 20):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
