"""Overrides, saves and restores configs, and says clearly what is wrong with one."""

import ast
import contextlib
import difflib
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import ml_collections

from diffjax.build.options.config_file import load, presets_of, shipped
from diffjax.build.options.upgrade import upgraded
from diffjax.core.errors import ConfigError, Ending, StorageError, require
from diffjax.core.files import parse_json_object, read_json, write_whole
from diffjax.core.json_types import Json, JsonObject

__all__ = [
    "from_json", "interpreting", "leaves", "load", "one_of", "override", "parse",
    "presets_of", "restore", "save", "shipped", "similar",
]  # fmt: skip

Allowed = TypeVar("Allowed")

# The sections that a stage's config may have; each must be a mapping.
SECTIONS = (
    "data", "text", "tokens", "classes", "embedding", "mask", "model", "diffusion", "low_res",
    "contrastive", "latent", "vectors", "autoregressive", "optim", "train", "sample", "mesh",
    "lora", "start", "distil", "rehearsal",
)  # fmt: skip
MOST_SHOWN = 80  # how many characters of a wrong value a message shows
MOST_HINTS = 4  # how many similar keys a message offers for an unknown one
# Keys of older versions whose runs cannot be continued, and what replaced them.
RENAMED = {"train.ema_decay": "one average, now train.ema = ('decay_D',)"}


def override(config: ml_collections.ConfigDict, arguments: Iterable[str]) -> None:
    """Applies arguments such as `--config.a.b=value` in place; the old value decides the type.

    Raises:
      ConfigError: a key is unknown (the message names the closest one), or a value has another
        type.
    """
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not key.startswith("--config.") or not equals:
            raise ConfigError(argument, "", "not understood; overrides read --config.KEY=VALUE")
        key = key.removeprefix("--config.")
        known = dict(leaves(config))
        if key not in known:
            close = similar(key, known)
            hint = f"did you mean {close}?" if close else known_keys_of(key, known)
            raise ConfigError(key, text, f"unknown key; {hint}")
        node = config
        *parents, last = key.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = parse(key, text, known[key])


def known_keys_of(key: str, known: Iterable[str]) -> str:
    """The known keys of the section that `key` names; if there is no such section, the sections."""
    section = key.partition(".")[0] + "."
    inside = [other for other in known if other.startswith(section)]
    if inside:
        return f"known keys: {', '.join(inside)}"
    top = dict.fromkeys(other.partition(".")[0] for other in known)
    return f"known keys and sections: {', '.join(top)}"


def similar(key: str, known: Iterable[str]) -> str:
    """The known keys that may have been meant by `key`; "" if there is none.

    A key may be meant by its initials ("lr" is learning_rate), by a word ("steps" is num_steps), or
    without its section ("learning_rate"); if none is, keys of similar spelling are returned. Keys
    of the section that `key` names come first.
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
    """Parses `text` as a value of the type of `like`; an int is also taken for a float.

    Raises:
      ConfigError: the text is not a value of that type.
    """
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
    """All keys and values of a config, such as ("optim.b1", 0.9), in the order of the config."""
    for name in config:
        value = config[name]
        if isinstance(value, ml_collections.ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def one_of(config: ml_collections.ConfigDict, key: str, allowed: Iterable[Allowed]) -> Allowed:
    """The value of the key "a.b".

    Raises:
      ConfigError: it is not among those allowed.
    """
    value = functools.reduce(getattr, key.split("."), config)
    allowed = list(allowed)
    require(value in allowed, key, value, f"allowed: {', '.join(map(str, allowed))}")
    return value


def save(config: ml_collections.ConfigDict, path: Path) -> None:
    """Writes the config as JSON into the folder of its run, completely or not at all."""
    write_whole(path, (json.dumps(config.to_dict(), indent=2) + "\n").encode())


def restore(path: Path) -> ml_collections.ConfigDict:
    """Reads the config that `save` wrote; lists become tuples.

    If it cannot be used, the copy in the run's newest checkpoint is taken, with a warning.

    Raises:
      ConfigError: there is no such file, or it is not a config that this version understands.
      StorageError: the file is damaged.
    """
    try:
        return _restored(read_json(path, "bring back a copy, or name another workdir"), path.parent)
    except (FileNotFoundError, StorageError, ConfigError) as error:
        from diffjax.checkpoint import config_copy  # orbax takes a second to import

        copy = config_copy.instead_of(path.parent, error)
        if copy is not None:
            return _restored(copy, path.parent)
        if not isinstance(error, FileNotFoundError):
            raise
    raise ConfigError("workdir", str(path.parent), "holds no config.json: not a run")


def copy_of(workdir: Path, step: int | None = None) -> ml_collections.ConfigDict | None:
    """The config that `step`, or the newest step that has one, was trained with; None for none."""
    from diffjax.checkpoint import config_copy

    copy = config_copy.newest(workdir, step)
    return None if copy is None else _restored(copy, workdir)


@contextlib.contextmanager
def interpreting(where: Path) -> Iterator[None]:
    """Turns errors of the code inside it, which uses a config from `where`, into ConfigErrors.

    Raises:
      ConfigError: a key is missing, or its value has an impossible type or size.
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
    """The config in a JSON text. where: the file, for messages.

    Raises:
      ConfigError: it is not a config, or one of a version whose checkpoints do not fit this one.
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
