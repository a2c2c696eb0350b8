"""Reads the pictures and masks that are given to `diffjax.edit`."""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from diffjax.core import command
from diffjax.core.errors import ConfigError, require
from diffjax.images import read

ALPHA = "alpha"  # of --mask: the picture's own transparency


def picture(flag: str, path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """The picture; raises ConfigError if it cannot be read."""
    try:
        return read.read(path)
    except ValueError as error:
        raise ConfigError(flag, str(path)[:200], _without(path, error)) from None


def mask(flags: argparse.Namespace, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of a picture of this (height, width); raises ConfigError if it is not one."""
    path = flags.mask
    if path == ALPHA:
        return _clear_part(flags.picture)
    try:
        mask = read.read_mask(path)
    except ValueError as error:
        raise ConfigError("--mask", str(path)[:200], _without(path, error)) from None
    (height, width), (high, wide) = shape, mask.shape
    require(
        (high, wide) == shape,
        "--mask",
        str(path),
        f"is {wide} x {high} px, the picture {width} x {height}; they must have the same size",
    )
    require(bool(mask.any()), "--mask", str(path), "is all black; paint white what is to change")
    return mask


def mask_path(text: str) -> Path | str:
    """The type of --mask: ALPHA as it is, anything else as a path."""
    return text if text == ALPHA else command.path(text)


def _clear_part(picture: Path) -> Bool[np.ndarray, "h w"]:
    """The mask that a picture's own transparency is."""
    try:
        mask = read.read_alpha(picture)
    except ValueError as error:
        raise ConfigError(
            "--mask", ALPHA, f"{str(picture)[:200]} {_without(picture, error)}; name a mask's file"
        ) from None
    what = f"no pixel of {str(picture)[:200]} is more than half transparent; name a mask's file"
    require(bool(mask.any()), "--mask", ALPHA, what)
    return mask


def _without(path: Path, error: ValueError) -> str:
    line = str(error)
    for name in (f"{path}: ", f"{str(path)!r}: "):
        line = line.removeprefix(name)
    return line
