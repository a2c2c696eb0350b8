"""Finds the CLIP whose vectors a decoder is told, by what the configs of its stages say."""

from collections.abc import Sequence
from pathlib import Path

from diffjax.build import clip_columns, config, places, vectors
from diffjax.core.errors import require
from diffjax.encoders.clip.encoder import Clip


def clip_of(dirs: Sequence[Path]) -> Clip:
    """The CLIP of the vectors that stages of these places make or are told.

    Raises:
      ConfigError: there are none, or vectors of several CLIPs; or the CLIP is not here, or is
        another than the one of the training.
    """
    found = [(place, places.options_of(place)) for place in dirs if not places.is_others(place)]
    told = [(place, options) for place, options in found if vectors.SECTION in options]
    require(bool(told), "--stages", [str(place) for place in dirs], "none has vectors of a CLIP")
    vectors.check_same(told)
    place, options = told[0]
    with config.interpreting(place):
        return clip_columns.clip_of(options)
