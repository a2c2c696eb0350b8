"""Makes the pictures of a folder that are not there yet, and writes each as soon as it is made."""

import dataclasses
import itertools
from collections.abc import Sequence

from diffjax.generation import best as best_lib
from diffjax.generation import folder, rows, watch
from diffjax.generation.best import Best
from diffjax.generation.chain import Cascade
from diffjax.generation.folder import Slot
from diffjax.generation.jobs import Job
from diffjax.generation.recipe import Chosen
from diffjax.logs.progress import Progress


def write_missing(slots: Sequence[Slot], stages: Cascade, best: Best | None = None) -> list[Slot]:
    """Makes and writes what the slots miss; returns them, each with the job that was kept.

    Raises:
      StorageError: the disk is full or fails.
    """
    missing = [slot for slot in slots if slot.missing]
    tried = itertools.chain.from_iterable(slot.candidates or (slot.job,) for slot in missing)
    done = []
    with Progress(len(slots), warm=rows.rows_per_call()) as progress:
        progress.skip(len(slots) - len(missing))
        made = rows.make(stages, list(tried))
        for slot in slots:
            if slot.missing:
                if best is not None and slot.candidates:
                    job, score, pictures = best_lib.pick(best, slot.candidates, made)
                    slot = _of(slot, stages, best, job, score)
                else:
                    pictures = next(made)
                reel = watch.frames(stages, slot.job, pictures) if slot.film else ()
                folder.write(slot, pictures, reel)
                progress.tick()
            done.append(slot)
    return done


def _of(slot: Slot, stages: Cascade, best: Best, job: Job, score: float) -> Slot:
    """The slot of the candidate that was kept."""
    chosen = Chosen(seed=slot.seed, of=best.of, clip=best.clip, score=score)
    said = tuple(folder.recipes_of(job, stages, chosen))
    recipes = slot.recipes if slot.recipes[0] is None else said
    return dataclasses.replace(slot, job=job, recipes=recipes, candidates=())
