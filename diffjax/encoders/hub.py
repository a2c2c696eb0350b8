"""Downloads checkpoints from the Hugging Face hub; without a network it uses the hub's cache."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from diffjax.encoders import tensors, tokenizer, torch_files
from diffjax.encoders.unreadable import first_line
from diffjax.encoders.weights import CONFIG

# NAME or OWNER/NAME, perhaps with @REVISION: a branch, a tag, or the hash of a commit.
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
# Formats of weights, the preferred one first: one file, or an index and its shards.
LAYOUTS = (
    (tensors.WEIGHTS,),
    (tensors.INDEX, "model-*-of-*.safetensors"),
    (tensors.TORCH_WEIGHTS,),
    (tensors.TORCH_INDEX, "pytorch_model-*-of-*.bin"),
)


def is_name(name: str) -> bool:
    """Whether `name` has the form of a name on the hub, such as "google/t5-v1_1-xxl@main"."""
    return bool(NAME.fullmatch(name)) and not name.startswith(".")


def fetch(name: str, also: Sequence[str] = ()) -> Path:
    """The local folder of the checkpoint `name`; what the hub's cache lacks is downloaded.

    Only what the encoder needs is downloaded: config, tokenizer, and the weights in one format.
    "NAME@REVISION" pins a branch, a tag or a commit. Without a network only the cache is used.
    also: further files that are taken if they exist.

    Raises:
      ValueError: huggingface_hub is not installed; or the hub does not know the model or revision,
        requires a login, or cannot be reached and the cache lacks the model; or the model has no
        weights in a known format. The message is one line that says what to do.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise ValueError(
            f"{name!r} must be fetched from the Hugging Face hub: pip install huggingface_hub"
        ) from None
    repository, _, revision = name.partition("@")
    try:
        listed = huggingface_hub.HfApi().list_repo_files(repository, revision=revision or None)
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
        raise ValueError(f"{name!r} is not a valid name of a model: {first_line(error)}") from None
    except Exception as error:  # without a network, the type of the error depends on the transport
        return _cached_folder(huggingface_hub, name, error)
    try:
        wanted = [*needed_files(listed), *(file for file in also if file in listed)]
        if any(file.endswith(".bin") for file in wanted):
            torch_files.import_torch(name)  # fail before tens of gigabytes are downloaded
    except ValueError as error:
        raise ValueError(f"{name!r} cannot be used: {error}") from None
    try:
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=wanted
        )
    except Exception as error:
        raise ValueError(
            f"{name!r} was not downloaded completely: {first_line(error)}: try again"
        ) from None
    return Path(folder)


def fetch_file(name: str, file: str) -> Path:
    """One file of the repository `name`, from the hub's cache or downloaded.

    Raises:
      ValueError: huggingface_hub is not installed, or the file is not to be had.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"{file} of {name!r} must be fetched from the Hugging Face hub: "
            "pip install huggingface_hub"
        ) from None
    try:
        return Path(huggingface_hub.hf_hub_download(name, file))
    except Exception as error:  # without a network, the type of the error depends on the transport
        raise ValueError(f"the hub gave no {file} of {name!r}: {first_line(error)}") from None


def needed_files(files: Sequence[str]) -> list[str]:
    """The files of a model that the encoder needs, with the weights in one format.

    Raises:
      ValueError: there is no config, or no known format of weights.
    """
    if CONFIG not in files:
        raise ValueError(f"it has no {CONFIG}")
    for first, *shards in LAYOUTS:
        if first in files:
            patterns = (CONFIG, *tokenizer.FILES, first, *shards)
            # "*" must not match files in subfolders, which hold other formats and copies.
            top = [file for file in files if "/" not in file]
            return [f for f in top if any(fnmatch.fnmatchcase(f, p) for p in patterns)]
    wanted = ", ".join(first for first, *_ in LAYOUTS)
    raise ValueError(f"it has none of {wanted}; other formats cannot be read")


def _cached_folder(hub: ModuleType, name: str, error: Exception) -> Path:
    repository, _, revision = name.partition("@")
    try:
        folder = hub.snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=[CONFIG],
            local_files_only=True,
        )
    except Exception:
        raise ValueError(
            f"{name!r} is not in the cache of the Hugging Face hub, which cannot be reached "
            f"({first_line(error)}): download it on a machine with a network and give its folder"
        ) from None
    return Path(folder)
