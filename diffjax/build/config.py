"""Configs: override keys, save and restore them, and say clearly what is wrong."""

import ast
import contextlib
import difflib
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import ml_collections

from diffjax.build.config_file import load, shipped
from diffjax.build.upgrade import upgraded
from diffjax.core.errors import ConfigError, Ending, require
from diffjax.core.files import parse_json_object, read_json, write_whole
from diffjax.core.json_types import Json, JsonObject

__all__ = [
    "from_json", "interpreting", "leaves", "load", "one_of", "override", "parse", "restore", "save",
    "shipped", "similar",
]  # fmt: skip

Allowed = TypeVar("Allowed")

# What is a mapping in a stage's config, where it is there.
SECTIONS = (
    "data", "text", "classes", "embedding", "mask", "model", "diffusion", "low_res", "optim",
    "train", "sample", "mesh",
)  # fmt: skip
MOST_SHOWN = 80  # characters of a value that cannot be read
MOST_HINTS = 4  # keys that are offered in place of an unknown one
# Keys of runs that this version cannot go on with, and what replaced them.
RENAMED = {"train.ema_decay": "one average, now train.ema = ('decay_D',)"}


def override(config: ml_collections.ConfigDict, arguments: Iterable[str]) -> None:
    """Apply `--config.a.b=value` arguments in place; the type of what stands there decides.

    Raises:
      ConfigError: unknown key (with the closest known one) or a value of another type.
    """
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not key.startswith("--config.") or not equals:
            raise ConfigError(argument, "", "not understood; overrides read --config.KEY=VALUE")
        key = key.removeprefix("--config.")
        known = dict(leaves(config))
        if key not in known:
            close = similar(key, known)
            hint = f"did you mean {close}?" if close else f"known keys: {', '.join(known)}"
            raise ConfigError(key, text, f"unknown key; {hint}")
        node = config
        *parents, last = key.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = parse(key, text, known[key])


def similar(key: str, known: Iterable[str]) -> str:
    """The keys that `key` may stand for, by meaning first and by spelling else; "" for none.

    By meaning: "lr" has the initials of learning_rate, "steps" is a word of num_steps, and
    "learning_rate" belongs to a section. Keys of the section that `key` names come before others.
    """
    section, _, last = key.rpartition(".")

    def alike(other: str) -> bool:
        words = other.rpartition(".")[2].split("_")
        return last in ("_".join(words), "".join(word[0] for word in words if word), *words)

    found = sorted(filter(alike, known))
    here = [other for other in found if other.rpartition(".")[0] == section]
    found = [other for other in here or found if _words(other) == min(map(_words, here or found))]
    return " or ".join(found[:MOST_HINTS] or difflib.get_close_matches(key, known, n=1))


def _words(key: str) -> int:
    return key.rpartition(".")[2].count("_") + 1


def parse(key: str, text: str, like: object) -> object:
    """`text` as a value of the type of `like`: an int may stand for a float, nothing else."""
    if isinstance(like, str):
        return text
    if isinstance(like, bool):
        allowed = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in allowed:
            raise ConfigError(key, text, "must be true or false")
        return allowed[text.lower()]
    wanted = type(like).__name__
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        shown = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
        raise ConfigError(key, shown, f"must be of type {wanted}, like {like!r}") from None
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        require(abs(value) < 2**1023, key, text[:MOST_SHOWN], "is too large for a float")
        return float(value)
    if isinstance(like, tuple) and isinstance(value, list):
        value = tuple(value)
    if type(value) is not type(like):
        raise ConfigError(key, text, f"must be of type {wanted}, like {like!r}")
    if isinstance(value, tuple) and isinstance(like, tuple) and like:
        kind = type(like[0])
        if any(type(one) is not kind for one in value):
            raise ConfigError(key, text, f"must hold only {kind.__name__}, like {like!r}")
    return value


def leaves(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """All ("a.b", value) of a config, in its order."""
    for name in config:
        value = config[name]
        if isinstance(value, ml_collections.ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def one_of(config: ml_collections.ConfigDict, key: str, allowed: Iterable[Allowed]) -> Allowed:
    """The value of "a.b", which must be among those allowed."""
    value = functools.reduce(getattr, key.split("."), config)
    allowed = list(allowed)
    require(value in allowed, key, value, f"allowed: {', '.join(map(str, allowed))}")
    return value


def save(config: ml_collections.ConfigDict, path: Path) -> None:
    """The config as JSON beside the run that it describes; the file is whole or not there."""
    write_whole(path, (json.dumps(config.to_dict(), indent=2) + "\n").encode())


def restore(path: Path) -> ml_collections.ConfigDict:
    """The config that `save` wrote; lists come back as tuples.

    Raises:
      ConfigError: there is none, or it is no config of this version.
      StorageError: it is damaged.
    """
    try:
        found = read_json(path, "bring back a copy, or name another workdir")
    except FileNotFoundError:
        raise ConfigError("workdir", str(path.parent), "holds no config.json: not a run") from None
    return _restored(found, path.parent)


@contextlib.contextmanager
def interpreting(where: Path) -> Iterator[None]:
    """A config that was read from `where` is used meanwhile: what is wrong with it is its fault.

    Raises:
      ConfigError: a key is missing, or its value is of a type or size that nothing can be made of.
    """
    try:
        yield
    except Ending:
        raise
    except (AttributeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        what = (str(error).strip() or "no message").splitlines()[0][:MOST_SHOWN]
        raise ConfigError(
            "config",
            str(where),
            f"is damaged, or of another version: {type(error).__name__}: {what}; bring back a copy",
        ) from None


def from_json(text: str, where: Path) -> ml_collections.ConfigDict:
    """The config that this JSON is; `where` it was found is for errors.

    Raises:
      ConfigError: it is no config, or of a version whose checkpoints do not fit this one.
    """
    try:
        return _restored(parse_json_object(text), where)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError("config", str(where), f"holds a damaged config: {error}") from None


def _restored(found: JsonObject, where: Path) -> ml_collections.ConfigDict:
    def tuples(value: Json) -> object:
        if isinstance(value, dict):
            return {name: tuples(child) for name, child in value.items()}
        return tuple(value) if isinstance(value, list) else value

    wrong = [name for name in SECTIONS if not isinstance(found.get(name, {}), dict)]
    if wrong or not isinstance(found.get("stage"), str):
        key = wrong[0] if wrong else "stage"
        raise ConfigError(
            key,
            str(found.get(key))[:40],
            f"{where} holds the config of another program, or a damaged one: bring back a copy",
        )
    try:
        restored = ml_collections.ConfigDict(tuples(found)).lock()
    except (ValueError, RecursionError) as error:
        raise ConfigError("config", str(where), f"holds a damaged config: {error}") from None
    for key, value in leaves(restored):
        if key in RENAMED:
            raise ConfigError(
                key,
                value,
                f"{where} is of an older diffjax, which had {RENAMED[key]}; its "
                "checkpoints do not fit this one: train in a new workdir",
            )
    with interpreting(where):
        return upgraded(restored)
