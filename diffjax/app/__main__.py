"""python -m diffjax.app --workdir runs/demo

Serves a page on which one draws with a trained cascade in a browser; by default only this machine
can reach it (docs/app.md). All programs are compiled before the page opens. Exit codes: 2 bad
input, 5 storage, 143 terminated.
"""

import argparse
import importlib.util
import ipaddress
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffjax.app import logins
from diffjax.core import command, signals
from diffjax.core.errors import EXIT_TERMINATED, ConfigError, InputError, require

if TYPE_CHECKING:
    from diffjax.encoders.clip.encoder import Clip
    from diffjax.generation.chain import Cascade


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("app", __doc__)
    command.add_stages(flags)
    flags.add_argument("--ema", help="average of the parameters; see diffjax.sample --help")
    flags.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; see --auth"
    )
    flags.add_argument("--port", type=int, default=7860)
    flags.add_argument(
        "--name", action="append", default=[], help="of a proxy in front of the page; repeat"
    )
    flags.add_argument(
        "--auth-file",
        type=command.path,
        help=f"holds the USER:PASSWORD that visitors must give; or set {logins.AUTH}",
    )
    flags.add_argument("--auth", help="the same, where other users of this machine can read it")
    command.add_loras(flags)
    flags.add_argument(
        "--guide-by",
        metavar="PLACE",
        help="let a classifier guide, with a scale that visitors set; see diffjax.sample",
    )
    flags.add_argument(
        "--clip",
        metavar="WHERE",
        help="show how well pictures fit their prompts, as this CLIP says; see diffjax.sample",
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Loads, compiles and serves until a signal comes; returns the exit code."""
    return command.run_command(parser(), run, arguments)


def run(flags: argparse.Namespace) -> int:
    """Serves the page that the flags describe; returns the exit code once a signal ends it."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the page needs Gradio: pip install 'diffjax[app]'")
    auth = logins.login(flags.auth, flags.auth_file)
    check_free(flags.host, flags.port)
    if not is_loopback(flags.host) and not auth:
        say(f"warning: anyone who reaches {flags.host} can draw; --auth-file FILE asks who")
    if flags.auth:
        say("warning: other users of this machine can read --auth; --auth-file FILE hides it")
    from diffjax.app import drawing, page, programs, server
    from diffjax.app.answers import Studio
    from diffjax.app.followers import Followers
    from diffjax.app.origin import origins_of
    from diffjax.app.room import Room
    from diffjax.build.guides import clips
    from diffjax.build.stages import loading, loras, places, students
    from diffjax.devices import mesh
    from diffjax.generation import best

    dirs = places.stage_dirs(flags.workdir, flags.stages)
    mesh.keep_compilations()
    given = [loras.parse(text) for text in flags.lora]
    cascade = loras.merged(loading.load(dirs, flags.ema), given)
    cascade = drawing.at_start(guided(cascade, dirs, flags.guide_by))
    in_few = students.instead(dirs, flags)
    few = drawing.at_start(loading.load(in_few)) if in_few != list(dirs) else None
    score = None
    if flags.clip is not None:
        no_text = f"compares pictures with prompts, and {cascade.stages[0].task.name} takes no text"
        require(cascade.encoder is not None, "--clip", flags.clip, no_text)
        score = best.scorer(clips.load(flags.clip))
    clip = seeing(cascade, dirs)
    programs.warm_up(cascade, say, score, clip, few)
    programs.keep_no_more_programs()
    stop = threading.Event()
    signals.on_signals(lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="diffjax-app-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        server.own_environment(folder)
        room, followers = Room(folder), Followers()
        address = server.launch(
            page.build(Studio(cascade, room, followers, score, clip, few=few)),
            room,
            flags.host,
            flags.port,
            auth,
            origins=origins_of(flags.host, flags.name),
            followers=followers,
        )
        say(f"the page is at {address}; Ctrl+C ends it")
        while not stop.wait(page.SWEEP_SECONDS):
            room.delete_old(time.time() - page.KEPT_SECONDS)
            room.make()
    return EXIT_TERMINATED


def guided(cascade: "Cascade", dirs: Sequence[Path], guide_by: str | None) -> "Cascade":
    """The cascade with the classifiers that --guide-by names, or else the configs of the stages.

    Raises:
      ConfigError: a place holds no classifier, or one that does not fit the stages.
    """
    from diffjax.build.guides import classifiers, guiding

    named = guiding.parse(guide_by) if guide_by is not None else []
    found, others = classifiers.split(named)
    other = str(others[0].place) if others else None
    require(not others, guiding.FLAG, other, "holds no classifier, and the page takes no other")
    found = found or classifiers.named_by(cascade, dirs, scaled=True)
    texts = f"guides to classes, and {cascade.stages[0].task.name} is told texts"
    require(not found or cascade.encoder is None, guiding.FLAG, guide_by, texts)
    return classifiers.guided(cascade, found)


def seeing(cascade: "Cascade", dirs: Sequence[Path]) -> "Clip | None":
    """The CLIP of a decoder's vectors; without one a line says what the page does not show."""
    from diffjax.build.stages import decoders

    try:
        return decoders.seeing_clip(cascade, dirs)
    except ConfigError as error:
        say(f"warning: no variations, films and text diffs of pictures: {error}")
        return None


def check_free(host: str, port: int) -> None:
    """Checks that the port is free now, so that it is not found taken after minutes of compiling.

    Raises:
      ConfigError: the port is taken, or the host is not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise ConfigError(
            "--host and --port", f"{host}:{port}", f"{error.strerror}; give others"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def say(line: str) -> None:
    """Prints a line on stderr at once."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command.start(main, at_once=True)  # a normal exit would wait for the picture in progress
