"""What only a decoder of vectors makes of a visitor's pictures: variations, paths, text diffs.

Each picture has the bytes and the metadata of `diffjax.edit` with the same steps (editing/unclip.py
has the mathematics); a film's frames are those of `--pace prompt`.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffjax.app import limits, uploads
from diffjax.app.drawing import Drawn, new_place
from diffjax.app.limits import Told
from diffjax.app.values import Refused, first_seed, multiple, require, text, whole
from diffjax.build.guides import classifiers
from diffjax.core.errors import ConfigError
from diffjax.core.json_types import JsonObject
from diffjax.editing import by_vector, interpolate, morph, request
from diffjax.editing.interpolate import Reel
from diffjax.editing.request import Ask, Picture
from diffjax.encoders.clip.encoder import Clip
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job
from diffjax.images import film

LEAST_FRAMES, MOST_FRAMES = 3, 24
# Each value of eta needs another compiled program, so there are few.
ETA_STEP, THETA_STEP = 0.25, 0.125
MS = 160  # of a frame


@dataclasses.dataclass(frozen=True)
class Edit:
    """What a visitor wants of pictures.

    ask: as `diffjax.edit` has it. steps: of the first stage, in which its pictures are inverted
    too. eta: of variations, how much but the vector is drawn anew. frames: of a film, 0 for none.
    theta: how far a text diff goes.
    """

    ask: Ask
    steps: int
    eta: float = 0.0
    frames: int = 0
    theta: float = 0.0

    @property
    def jobs(self) -> list[Job]:
        """One for each picture; those of a film's frames are equal."""
        if not self.frames:
            return self.ask.jobs()
        prompt = next(iter(self.ask.prompts), "")
        return [Job(prompt, self.ask.seeds[0])] * self.frames

    @property
    def reel(self) -> Reel:
        """How its film is made."""
        return Reel(self.frames, MS, bounce=True, even=False)


@dataclasses.dataclass(frozen=True)
class Desk:
    """What checks of edits need: where uploads are kept, and what the models are told."""

    folder: Path
    told: Told

    def variations(
        self,
        picture: object,
        eta: object,
        new_seed: object,
        seed: object,
        steps: object,
        count: object,
    ) -> Edit:
        """Checks a wish for variations; the arguments are in the order of the page's controls.

        Raises:
          Refused: a value has the wrong type or is out of range.
        """
        num = whole("number of pictures", count, 1, limits.MAX_PICTURES)
        anew = multiple("how much is drawn anew", eta, 0, 1, ETA_STEP)
        first = first_seed(new_seed, seed, num)
        seeds = [first + i for i in range(num)]
        given = uploads.picture("picture", picture, self.folder)
        return Edit(Ask("variations", [given], [], seeds), self._steps(steps), eta=anew)

    def interpolation(
        self,
        first: object,
        second: object,
        frames: object,
        new_seed: object,
        seed: object,
        steps: object,
    ) -> Edit:
        """Checks a wish for a film from picture to picture.

        Raises:
          Refused: a value has the wrong type or is out of range.
        """
        num, at = self._frames(frames), first_seed(new_seed, seed, 1)
        pictures = [
            uploads.picture(name, one, self.folder)
            for name, one in (("first picture", first), ("second picture", second))
        ]
        return Edit(Ask("interpolate", pictures, [], [at]), self._steps(steps), frames=num)

    def diff(
        self,
        picture: object,
        shows: object,
        shall_show: object,
        theta: object,
        frames: object,
        new_seed: object,
        seed: object,
        steps: object,
    ) -> Edit:
        """Checks a wish for a film of a picture that changes as a text does.

        Raises:
          Refused: a value has the wrong type or is out of range.
        """
        names = "what it shows", "what it shall show"
        prompts = [text(name, one) for name, one in zip(names, (shows, shall_show), strict=True)]
        for name, one in zip(names, prompts, strict=True):
            require(bool(one), name, "say it in a few words")
        far = multiple("how far", theta, THETA_STEP, 1, THETA_STEP)
        num, at = self._frames(frames), first_seed(new_seed, seed, 1)
        given = uploads.picture("picture", picture, self.folder)
        ask = Ask("diff", [given], prompts, [at])
        return Edit(ask, self._steps(steps), frames=num, theta=far)

    def _steps(self, value: object) -> int:
        return whole("steps", value, 1, self.told.steps)

    def _frames(self, value: object) -> int:
        return whole("frames", value, LEAST_FRAMES, MOST_FRAMES)


def wished(trained: Cascade, edit: Edit) -> Cascade:
    """The cascade with the settings of an edit; later stages keep their numbers of steps.

    Nothing is guided, and no prior tells a vector, because the picture does.
    """
    if edit.ask.kind == "interpolate":
        settings = [stage.settings for stage in morph.invertible(trained.stages)]
    else:
        settings = by_vector.settings_of(trained.stages, edit.ask.kind)
    settings = [dataclasses.replace(one, classifier_guidance=0.0) for one in settings]
    settings[0] = dataclasses.replace(settings[0], num_steps=edit.steps, noise=edit.eta)
    alone = dataclasses.replace(trained, teller=None).with_settings(settings)
    return classifiers.needed(alone, asked=False)


def draw(here: Cascade, clip: Clip, edit: Edit) -> Iterator[Drawn]:
    """The pictures of all stages, one after the other. here: as `wished` gives it.

    Raises:
      Refused: both texts of a diff have the same vector.
    """
    ask = edit.ask
    if edit.frames:
        weights = np.linspace(0.0, 1.0, edit.frames, dtype=np.float32)
        try:
            walk = (
                by_vector.path_between(here, clip, ask)
                if ask.kind == "interpolate"
                else by_vector.path_of_diff(here, clip, ask, edit.theta)
            )
        except ConfigError:  # it names a flag of the command
            raise Refused("what it shall show: means the same as what it shows") from None
        made = walk(weights, len(here.stages))
    else:
        made = by_vector.vary(here, clip, ask)
    for index, row in enumerate(made):
        for stage, picture in enumerate(row):
            yield Drawn(index, stage, picture)


def said_of(job: Job, here: Cascade, edit: Edit) -> list[JsonObject]:
    """The metadata of the picture of each stage, as `diffjax.edit` writes them."""
    ask = edit.ask
    if not edit.frames:
        said: JsonObject = {"eta": edit.eta, **request.describe(ask)}
    else:
        more: JsonObject = {"theta": edit.theta} if ask.kind == "diff" else {}
        seeds = [*ask.seeds] * max(len(ask.pictures), len(ask.prompts))
        said = interpolate.said_of(ask, seeds, edit.reel, more)
    return request.metadata_of(job, here, ask, said)


def caption_of(edit: Edit, index: int) -> str:
    """A few words of a picture."""
    if edit.frames:
        return f"{index + 1} of {edit.frames}"
    return f"variation ({edit.jobs[index].seed})"


def keep_film(folder: Path, frames: list[Picture], edit: Edit, said: JsonObject) -> Path:
    """Writes the film of these frames and back as `drawing.keep` does a picture; its path.

    Raises:
      StorageError: the disk does not take it.
    """
    stem = new_place(folder) / f"{edit.ask.kind}_seed{edit.ask.seeds[0]}_{len(frames[0])}px"
    there_and_back = frames + frames[-2:0:-1]
    (path,) = film.write(stem, there_and_back, MS, MS, said, endings=(".webp",))
    return path
