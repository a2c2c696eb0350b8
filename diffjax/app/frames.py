"""What the page shows of a request while it is drawn, and what a visitor has of it afterwards."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffjax.app import drawing
from diffjax.core.json_types import JsonObject
from diffjax.generation import folder as folders
from diffjax.generation.best import Score
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job


class Kept(NamedTuple):
    """A picture that a visitor made: the files of its stages, small to large, and its caption.

    Those of a film are the files of its frames, and its own as the last. score: how well a CLIP
    says that it fits its prompt; None without one.
    """

    paths: tuple[str, ...]
    caption: str
    score: float | None = None


class Frame(NamedTuple):
    """What the page shows of a request at one time.

    stages: for each stage the (path, caption) of its pictures so far. told: a line of progress.
    scores: of the pictures of the last stage, if a CLIP is loaded.
    """

    stages: list[list[tuple[str, str]]]
    told: str
    scores: Sequence[float] = ()


def shown_frames(
    trained: Cascade,
    folder: Path,
    jobs: Sequence[Job],
    made: Iterator[drawing.Drawn],
    said_of: Callable[[Job], list[JsonObject]],
    score: Score | None = None,
    captions: Sequence[str] | None = None,
) -> Iterator[Frame]:
    """Writes each picture to `folder` as it is made, and gives a frame that shows it.

    said_of: a job -> the metadata of the picture of each stage. score: of the largest pictures.
    captions: of the jobs, None for those of `caption_of`.
    """
    stages: list[list[tuple[str, str]]] = [[] for _ in trained.stages]
    scores: list[float] = []
    said = [said_of(job) for job in jobs]
    words = captions or [caption_of(job, trained) for job in jobs]
    sizes = [stage.task.size_px for stage in trained.stages]
    yield Frame(stages, f"{sizes[0]} px: 0 of {len(jobs)}")
    for one in made:
        job = jobs[one.index]
        path = drawing.keep(folder, job, one, said[one.index])
        caption = words[one.index]
        if score is not None and one.stage == len(sizes) - 1:
            scores.append(score(job.prompt, one.picture))
            caption += f", fits {scores[-1]:.3f}"
        stages[one.stage].append((str(path), caption))
        done = len(stages[one.stage])
        yield Frame(stages, f"{sizes[one.stage]} px: {done} of {len(jobs)}", scores)


def caption_of(job: Job, trained: Cascade) -> str:
    """The prompt, shortened if it is long, or the class, and the seed."""
    return f"{folders.caption(folders.words_of(job, trained))} ({job.seed})".strip()


def ranked(frame: Frame, only_best: bool = False) -> tuple[list[Kept], list[Kept]]:
    """(the pictures of a finished request, those to forget): the best first, if there are scores.

    only_best: keep one, if there are scores.
    """
    rows = zip(*frame.stages, strict=True)
    scores: Sequence[float | None] = frame.scores or [None] * len(frame.stages[-1])
    found = [
        Kept(tuple(path for path, _ in row), row[-1][1], score)
        for row, score in zip(rows, scores, strict=True)
    ]
    if not frame.scores:
        return found, []
    found.sort(key=lambda one: -(one.score or 0.0))
    count = 1 if only_best else len(found)
    return found[:count], found[count:]
