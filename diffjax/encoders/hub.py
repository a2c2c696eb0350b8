"""Checkpoints by name: from the Hugging Face hub, or from its cache where there is no network."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffjax.encoders import tensors, tokenizer
from diffjax.encoders.weights import CONFIG

# OWNER/NAME or NAME, and after an @ the revision: a branch, a tag, or the hash of a commit.
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
# The first of these that a repository has: a whole file, or an index with its shards.
LAYOUTS = (
    (tensors.WEIGHTS,),
    (tensors.INDEX, "model-*-of-*.safetensors"),
    (tensors.TORCH_WEIGHTS,),
    (tensors.TORCH_INDEX, "pytorch_model-*-of-*.bin"),
)


def is_name(name: str) -> bool:
    """Whether `name` could be one of the hub's: "google/t5-v1_1-xxl", or with "@REVISION"."""
    return bool(NAME.fullmatch(name)) and not name.startswith(".")


def fetch(name: str) -> Path:
    """The local folder of the checkpoint `name`, downloaded where the hub's cache has it not yet.

    Only what the encoder needs is downloaded: config, tokenizer, and the tensors in one format.
    "NAME@REVISION" pins a branch, a tag or a commit. Without a network the cache alone is asked.

    Raises:
      ValueError: huggingface_hub is not installed, the hub has no such model or revision, wants a
        login, or cannot be reached and the cache does not help; or the model has no tensors that
        can be read here. The message is one line that says what to do.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise ValueError(
            f"{name!r} is to come from the Hugging Face hub: pip install huggingface_hub"
        ) from None
    repository, _, revision = name.partition("@")
    which: dict[str, Any] = dict(repo_id=repository, revision=revision or None)
    try:
        listed = huggingface_hub.HfApi().list_repo_files(**which)
    except errors.GatedRepoError:
        raise ValueError(
            f"{name!r} is gated: accept its licence on its page at the hub, then `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"the Hugging Face hub has no model {repository!r}, or it is private: check the name, "
            "or `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"{repository!r} has no revision {revision!r} on the hub") from None
    except errors.HFValidationError as error:
        raise ValueError(f"{name!r} is no name of a model: {_line(error)}") from None
    except Exception as error:  # no network: its errors differ with the transport
        return _cached(huggingface_hub, name, which, error)
    try:
        wanted = needed(listed)
        if any(file.endswith(".bin") for file in wanted):
            tensors.torch_or_error(name)  # before, not after, some tens of gigabytes came
    except ValueError as error:
        raise ValueError(f"{name!r} cannot be used: {error}") from None
    try:
        return Path(huggingface_hub.snapshot_download(**which, allow_patterns=wanted))
    except Exception as error:
        raise ValueError(f"{name!r} was not downloaded whole: {_line(error)}: try again") from None


def needed(files: Sequence[str]) -> list[str]:
    """Of the files of a model, those that the encoder is made of, in one format of tensors.

    Raises:
      ValueError: there is no config, or no format that can be read.
    """
    if CONFIG not in files:
        raise ValueError(f"there is no {CONFIG} in it")
    for first, *shards in LAYOUTS:
        if first in files:
            patterns = (CONFIG, *tokenizer.FILES, first, *shards)
            # "*" must not reach into folders, where other formats and copies lie.
            top = [file for file in files if "/" not in file]
            return [f for f in top if any(fnmatch.fnmatchcase(f, p) for p in patterns)]
    wanted = ", ".join(first for first, *_ in LAYOUTS)
    raise ValueError(f"it has none of {wanted}; formats of other frameworks are not read")


def _cached(hub: Any, name: str, which: dict[str, Any], error: Exception) -> Path:
    try:
        folder = hub.snapshot_download(**which, allow_patterns=[CONFIG], local_files_only=True)
    except Exception:
        raise ValueError(
            f"{name!r} is not in the cache of the Hugging Face hub, which cannot be reached "
            f"({_line(error)}): download it where there is a network and give its folder"
        ) from None
    return Path(folder)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
