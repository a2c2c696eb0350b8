"""Answers visitors' requests with what the page shows, one view after the other; without Gradio.

The raw values are checked first. Only a visitor's own session knows what the visitor has made: it
hands that in and gets it back.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffjax.app import drawing, edits, limits, uploads
from diffjax.app.edits import Desk, Edit
from diffjax.app.followers import Followers
from diffjax.app.frames import Frame, Kept, ranked, shown_frames
from diffjax.app.limits import Told
from diffjax.app.programs import Programs
from diffjax.app.room import Room
from diffjax.app.values import Refused, switch
from diffjax.core.errors import StorageError
from diffjax.encoders.clip.encoder import Clip
from diffjax.generation.best import Score
from diffjax.generation.chain import Cascade
from diffjax.generation.styles import styled

KEPT_JOBS = 40
DONE = "Done. Open a picture to download it."
# Of one stage the (path, caption) of its pictures; None is no caption.
Shown = Sequence[tuple[str, str | None]]


class View(NamedTuple):
    """What changes on the page; None for what stays as it is.

    stages: the pictures of each stage. kept: all that the visitor has made, the newest first.
    columns: of the pictures of a stage.
    """

    told: str | None = None
    seed: int | None = None
    stages: Sequence[Shown] | None = None
    kept: list[Kept] | None = None
    columns: int = 2


@dataclasses.dataclass(frozen=True)
class Studio:
    """What draws for the page, and where its files are.

    followers: know who still waits. score: of a prompt and a picture; with it, pictures show their
    scores, the best first. clip: of a decoder's vectors, None without a decoder. few: the stages
    with students in the places of their teachers, None for none; it draws while guidance and steps
    are those that the page begins with.
    """

    trained: Cascade
    room: Room
    followers: Followers
    score: Score | None = None
    clip: Clip | None = None
    programs: Programs = dataclasses.field(default_factory=Programs)
    few: Cascade | None = None

    @property
    def first(self) -> Cascade:
        """The stages whose settings the page begins with."""
        return self.trained if self.few is None else self.few

    def wished(self, wish: limits.Wish, paints: bool = False) -> Cascade:
        """The stages that do what a visitor wants, with those settings.

        A student has learned one guidance and one number of steps, and to draw whole pictures. Its
        teacher does all else, with its own settings if the visitor has not chosen others.
        """
        if self.few is None:
            return drawing.wished(self.trained, wish)
        own, teachers = (of.stages[0].settings for of in (self.few, self.trained))
        if (wish.guidance, wish.steps) != (own.guidance_weight, own.num_steps):
            return drawing.wished(self.trained, wish)
        if not paints:
            return drawing.wished(self.few, wish)
        guidance, steps = teachers.guidance_weight, teachers.num_steps
        return drawing.wished(
            self.trained, dataclasses.replace(wish, guidance=guidance, steps=steps)
        )

    @property
    def told(self) -> Told:
        """What the models are told, and what can be set."""
        return drawing.told_of(self.trained)

    @property
    def desk(self) -> Desk:
        """What checks the edits of a decoder."""
        return Desk(self.room.folder, self.told)

    def check_waits(self, session: str | None) -> None:
        """Checks that the visitor is still there.

        Raises:
          Refused: the visitor has left.
        """
        if not self.followers.waits(session):
            raise Refused("You have left.")


def draw(studio: Studio, session: str | None, values: Sequence[object]) -> Iterator[View]:
    """Draws what a visitor asks for.

    values: of `limits.wish`, whether to keep only the best, and what the visitor has.

    Raises:
      Refused: the request is not allowed, or the visitor has left.
    """
    *values, best, kept = values
    studio.check_waits(session)
    only = switch("only the best", best)
    wish = limits.wish(*values, told=studio.told)
    wish = dataclasses.replace(wish, jobs=tuple(styled(wish.jobs, studio.trained.styles)))
    studio.programs.use(wish.guidance, wish.steps, wish.scale)
    here = studio.wished(wish)
    frames = shown_frames(
        here,
        studio.room.folder,
        wish.jobs,
        drawing.draw(here, wish.jobs),
        lambda job: drawing.drawn_of(job, here),
        studio.score,
    )
    yield from _shown(studio, session, made_before(kept), wish, frames, only)


def paint(studio: Studio, session: str | None, values: Sequence[object]) -> Iterator[View]:
    """Draws a part of a picture anew. values: what the page's editor sends, and those of `draw`.

    Raises:
      Refused: the request is not allowed, or the visitor has left.
    """
    edited, *values, best, kept = values
    studio.check_waits(session)
    only = switch("only the best", best)
    wish = limits.wish(*values, told=studio.told)
    painting = uploads.painting(edited, studio.room.folder)
    studio.programs.use(wish.guidance, wish.steps, wish.scale)
    here = studio.wished(wish, paints=True)
    if not drawing.squared(painting, here.stages[-1].task.size_px)[1].any():
        raise Refused("picture: paint within its middle square")
    frames = shown_frames(
        here,
        studio.room.folder,
        wish.jobs,
        drawing.paint(here, wish.jobs, painting),
        lambda job: drawing.painted_of(job, here, painting),
        studio.score,
    )
    yield from _shown(studio, session, made_before(kept), wish, frames, only)


def _shown(
    studio: Studio,
    session: str | None,
    kept: list[Kept],
    wish: limits.Wish,
    coming: Iterator[Frame],
    only_best: bool,
) -> Iterator[View]:
    studio.room.make()
    yield View(seed=wish.jobs[0].seed)
    frame, columns = None, 1 if len(wish.jobs) == 1 else 2
    for frame in _waited_for(studio, session, coming):
        stages = frame.stages if studio.score else plain(frame.stages)
        yield View(frame.told, stages=stages, columns=columns)
    new, others = ranked(frame, only_best) if frame else ([], [])
    if studio.score is not None:
        sizes = range(len(studio.trained.stages))
        yield View(stages=[[(one.paths[i], one.caption) for one in new] for i in sizes])
        forget(others)
    kept = [*(new if studio.score else reversed(new)), *kept][:KEPT_JOBS]
    yield View(DONE, kept=kept)


def edit(
    studio: Studio, session: str | None, values: Sequence[object], *, kind: str
) -> Iterator[View]:
    """Makes what a decoder makes of a visitor's pictures; before frames stands their film.

    kind: the method of `edits.Desk` that checks the values; what the visitor has comes after them.

    Raises:
      Refused: the request is not allowed, there is no decoder, or the visitor has left.
    """
    studio.check_waits(session)
    if studio.clip is None:
        raise Refused("This page draws without a decoder of vectors.")
    *values, kept = values
    check: Callable[..., Edit] = getattr(studio.desk, kind)
    asked = check(*values)
    jobs, here = asked.jobs, edits.wished(studio.trained, asked)
    studio.programs.use(asked.ask.kind, asked.steps, asked.eta)
    said_of = functools.cache(lambda job: edits.said_of(job, here, asked))  # hashes the pictures
    captions = [edits.caption_of(asked, i) for i in range(len(jobs))]
    large: list[drawing.Picture] = []
    made = _noted(edits.draw(here, studio.clip, asked), len(here.stages) - 1, large)
    coming = shown_frames(here, studio.room.folder, jobs, made, said_of, captions=captions)
    studio.room.make()
    yield View(seed=jobs[0].seed)
    frame, columns = None, 1 if len(jobs) == 1 else 4 if asked.frames else 2
    for frame in _waited_for(studio, session, coming):
        yield View(frame.told, stages=plain(frame.stages), columns=columns)
    assert frame is not None
    new = ranked(frame)[0][::-1]
    if asked.frames:
        with _room_left():
            film = edits.keep_film(studio.room.folder, large, asked, said_of(jobs[0])[-1])
        paths = tuple(path for one in reversed(new) for path in one.paths)
        new = [Kept((*paths, str(film)), f"film ({jobs[0].seed})")]
        *small, last = plain(frame.stages)
        yield View(stages=[*small, [(str(film), None), *last]], columns=columns)
    yield View(DONE, kept=[*new, *made_before(kept)][:KEPT_JOBS])


def _noted(
    made: Iterator[drawing.Drawn], stage: int, pictures: list[drawing.Picture]
) -> Iterator[drawing.Drawn]:
    """The same, while the pictures of a stage are added to `pictures`."""
    for one in made:
        if one.stage == stage:
            pictures.append(one.picture)
        yield one


def _waited_for(studio: Studio, session: str | None, coming: Iterator[Frame]) -> Iterator[Frame]:
    """The frames, as long as the visitor is there and there is room for their pictures."""
    with _room_left():
        for frame in coming:
            studio.check_waits(session)
            yield frame


@contextlib.contextmanager
def _room_left() -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise Refused("There is no room for further pictures.") from None


def plain(stages: Sequence[Sequence[tuple[str, str]]]) -> list[Shown]:
    """The pictures of each stage without their captions."""
    return [[(path, None) for path, _ in stage] for stage in stages]


def made_before(value: object) -> list[Kept]:
    """What a visitor's session has of earlier requests."""
    return [one for one in value if isinstance(one, Kept)] if isinstance(value, list) else []


def last_picture(kept: list[Kept]) -> str:
    """The path of the newest picture; of a film, its last frame.

    Raises:
      Refused: there is none.
    """
    if not kept:
        raise Refused("There is no picture yet: draw one, or upload one.")
    return next(path for path in reversed(kept[0].paths) if path.endswith(".png"))


def shelf(kept: Sequence[Kept]) -> Shown:
    """The largest picture or the film of each request, with its caption."""
    return [(one.paths[-1], one.caption) for one in kept]


def forget(kept: Sequence[Kept] | None) -> None:
    """Deletes the files of pictures."""
    drawing.forget([Path(path) for one in kept or () for path in one.paths])
