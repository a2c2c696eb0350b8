"""The compiled programs of the page: those of the first settings, and how many others are kept."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from diffjax.app import drawing, edits
from diffjax.app.drawing import Drawn
from diffjax.app.edits import Edit
from diffjax.app.uploads import Painting
from diffjax.app.values import Refused
from diffjax.editing.request import Ask
from diffjax.encoders.clip.encoder import Clip
from diffjax.generation import best
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job
from diffjax.tasks import sampling

# Of so many settings programs are kept.
MOST_PROGRAMS = 32


def warm_up(
    trained: Cascade,
    say: Callable[[str], None],
    score: best.Score | None = None,
    clip: Clip | None = None,
    few: Cascade | None = None,
) -> None:
    """Runs the programs of the page's first settings once, so that they are compiled.

    clip: of a decoder's vectors, if there is one. few: the stages with their students, if any.
    """
    size_px = trained.stages[-1].task.size_px
    mask = np.zeros((size_px, size_px), bool)
    mask[: size_px // 2] = True
    blank = Painting(np.full((size_px, size_px, 3), 255, np.uint8), mask)
    told = drawing.told_of(trained)
    label = 0 if told.classes is not None and not told.text else None
    jobs = [Job("a picture" if told.text else "", 0, label=label)]
    kinds = {
        "drawing": drawing.draw(few or trained, jobs),
        "drawing anew": drawing.paint(trained, jobs, blank),
        **(_edits(trained, clip, blank.picture) if clip else {}),
    }
    since = time.monotonic()
    for kind, pictures_ in kinds.items():
        for made in pictures_:
            name = trained.stages[made.stage].task.name
            say(f"compiled {kind}, {name}: {time.monotonic() - since:.1f} s")
            since = time.monotonic()
    if score is not None:
        score(jobs[0].prompt, blank.picture)
        say(f"compiled the CLIP: {time.monotonic() - since:.1f} s")


def _edits(trained: Cascade, clip: Clip, picture: edits.Picture) -> dict[str, Iterator[Drawn]]:
    """One picture of each kind of edit of a decoder."""
    steps = trained.stages[0].settings.num_steps

    def drawn(edit: Edit) -> Iterator[Drawn]:
        with contextlib.suppress(Refused):  # a CLIP to which both texts mean the same
            yield from edits.draw(edits.wished(trained, edit), clip, edit)

    texts = ["a red apple", "a green pear"]
    return {
        "variations": drawn(Edit(Ask("variations", [picture], [], [0]), steps, eta=1.0)),
        "a path": drawn(Edit(Ask("interpolate", [picture] * 2, [], [0]), steps, frames=1)),
        "a text diff": drawn(Edit(Ask("diff", [picture], texts, [0]), steps, frames=1)),
    }


class Programs:
    """Counts the settings for which programs were compiled, and forgets all if there are many.

    JAX keeps about 3 MB for each even after `sampling.compiled` has forgotten it. To be called by
    one thread, before it draws.
    """

    def __init__(self, most: int = MOST_PROGRAMS):
        self._most = most
        self._used: set[tuple[object, ...]] = set()

    def use(self, *settings: object) -> None:
        """Note the settings of a request; if they are one too many, forget all programs first."""
        if settings not in self._used and len(self._used) >= self._most:
            sampling.compiled.cache_clear()
            jax.clear_caches()
            self._used.clear()
        self._used.add(settings)


def keep_no_more_programs() -> None:
    """Stops writing compiled programs to disk, since visitors' settings could fill it."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
