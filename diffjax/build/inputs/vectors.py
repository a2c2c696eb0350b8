"""The section `vectors` of a config: the space of a CLIP's vectors, which is that of one CLIP."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from diffjax.core.errors import ConfigError, require
from diffjax.encoders.clip.encoder import PREFIX
from diffjax.tasks.vectors import IMAGE_VECTOR

# The section that only stages of vectors have, and the key of their CLIP.
SECTION, KEY = "vectors", "vectors.clip"


def scale_of(config: ConfigDict) -> float:
    """What a unit vector is multiplied by, so that its numbers have the size of noise."""
    return float(config.vectors.scale or config.vectors.width**0.5)


def check(config: ConfigDict) -> None:
    """Checks what only a stage of vectors has.

    Raises:
      ConfigError: a value is not allowed.
    """
    where = config.vectors.clip
    what = f'want "{PREFIX}PLACE", or "" to plan only'
    require(not where or (where.startswith(PREFIX) and where != PREFIX), KEY, where, what)
    if "embedding" in config and config.embedding.encoder:
        twice = "beside a section vectors, which names the CLIP: leave it empty"
        raise ConfigError("embedding.encoder", config.embedding.encoder, twice)
    if "embedding" in config:
        of, width = config.embedding.of, config.vectors.width
        what = f'must be "{IMAGE_VECTOR}", the column of the section vectors'
        require(of == IMAGE_VECTOR, "embedding.of", of, what)
        what = f"must be vectors.width, {width}"
        require(config.embedding.width == width, "embedding.width", config.embedding.width, what)


def check_prior(config: ConfigDict) -> None:
    """Checks what only a diffusion prior has.

    Raises:
      ConfigError: a value is not allowed.
    """
    check_sections(config)
    threshold = config.sample.threshold
    unbounded = 'vectors are not bounded, as pictures are: want "none"'
    require(threshold == "none", "sample.threshold", threshold, unbounded)
    learned, seen = config.diffusion.objective, config.diffusion.self_condition
    require(learned == "simple", "diffusion.objective", learned, 'a prior wants "simple"')
    require(seen == 0, "diffusion.self_condition", seen, "a prior wants 0")


def check_sections(config: ConfigDict) -> None:
    """Checks that a prior is told a text, and makes vectors and not pictures.

    Raises:
      ConfigError: a section is missing, or has no effect.
    """
    for section in (SECTION, "text"):
        what = f"a prior needs a section {section}: see configs/prior.py"
        require(section in config, section, None, what)
    for section in ("classes", "embedding", "mask", "low_res", "latent", "tokens"):
        what = "a prior is told a text and its vector alone: leave it out"
        require(section not in config, section, "a section", what)


def check_same(stages: Sequence[tuple[Path, ConfigDict]]) -> None:
    """Checks that all stages of vectors have those of one CLIP. stages: places and configs.

    Raises:
      ConfigError: a stage has those of another CLIP.
    """
    told = [(place, options.vectors.mark) for place, options in stages if SECTION in options]
    for place, mark in told[1:]:
        first, wanted = told[0]
        another = f"has vectors of another CLIP, {mark[:12]}, than {first}, {wanted[:12]}"
        require(mark == wanted, "--stages", str(place), f"{another}: name stages of one CLIP")
