"""A whole Stable Diffusion of version 1 or 2: a folder of diffusers, or a single file.

Nothing in a file is run. What is saved has the tensors that were loaded, byte for byte.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from diffjax.core.files import write_whole
from diffjax.core.json_types import JsonObject
from diffjax.encoders import tensors, torch_archive
from diffjax.encoders.autoencoder import weights as autoencoder
from diffjax.encoders.clip import vocabulary
from diffjax.encoders.clip.names import Layout
from diffjax.encoders.matching import Tensor, read, stored_of, under
from diffjax.encoders.stable_diffusion import scheduler, text, tokens, unet
from diffjax.encoders.stable_diffusion.scheduler import Scheduler
from diffjax.encoders.stable_diffusion.tokens import Padded
from diffjax.encoders.unreadable import read_downloaded_json

INDEX, CONFIG, SCHEDULER_CONFIG = "model_index.json", "config.json", "scheduler_config.json"
UNET, VAE, TEXT = "model.diffusion_model.", autoencoder.PREFIX, "cond_stage_model."
# The text encoder in single files: of version 1 with the names of transformers, 2 of open_clip.
FIRST, SECOND = f"{TEXT}transformer.", f"{TEXT}model."
CKPT = ".ckpt"  # the suffix of single files that are pickles
LIGHTNING = "state_dict."  # of all names in files of the program that trained
# Averages of training, and buffers, some of which are whole numbers.
SKIPPED = ("model_ema.", f"{FIRST}text_model.embeddings.position_ids")
XL = "conditioner.embedders."
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
# Beside a single file of version 2, this in a .yaml of its name says that it predicts v.
PARAMETERIZATION = "parameterization"


class Checkpoint(NamedTuple):
    """The parts. said: the scheduler_config.json.

    unread: of a single file, what is none of the parts.
    """

    unet: unet.Loaded
    autoencoder: autoencoder.Loaded
    text: text.Loaded
    tokens: Padded
    scheduler: Scheduler
    said: JsonObject
    unread: Mapping[str, Tensor] = {}

    @property
    def size_px(self) -> int:
        """The side of the pictures that it was trained on."""
        return self.unet.side * self.autoencoder.sizes.factor


def load(where: Path) -> Checkpoint:
    """The checkpoint of a folder of diffusers, or of a single file.

    Raises:
      ValueError: it is none, its parts do not fit each other, or it is damaged; one line.
    """
    if where.is_dir():
        found = _of_folder(where)
    elif where.is_file():
        found = _of_file(where)
    else:
        raise ValueError(f"{where}: there is no such file or folder")
    width, latent = found.text.model.tower.width, found.autoencoder.sizes.latent
    if found.unet.text != width:
        raise ValueError(
            f"{where}: its U-Net reads texts of width {found.unet.text}, its text encoder gives "
            f"{width}: parts of different versions"
        )
    if found.unet.model.out_channels != latent:
        raise ValueError(
            f"{where}: its U-Net makes latents of {found.unet.model.out_channels} channels, its "
            f"autoencoder has {latent}: parts of different models"
        )
    if found.autoencoder.scale != autoencoder.SCALE:
        raise ValueError(
            f"{where}: the scaling_factor of its autoencoder is {found.autoencoder.scale}, that of "
            f"Stable Diffusion 1 and 2 is {autoencoder.SCALE}: it is another model's"
        )
    if found.tokens.tokens.vocabulary != found.text.model.vocabulary:
        raise ValueError(
            f"{where}: its text encoder knows {found.text.model.vocabulary} tokens, its tokenizer "
            f"has {found.tokens.tokens.vocabulary}"
        )
    return found


def save(folder: Path, one: Checkpoint) -> None:
    """Writes a folder that diffusers reads.

    Raises:
      StorageError: the disk is full or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, config, source, params, whole in (
        ("unet", one.unet.config, one.unet.source("diffusers"), one.unet.params,
         autoencoder.WEIGHTS),
        ("text_encoder", one.text.config, one.text.source("hugging_face"), one.text.params,
         tensors.WEIGHTS),
    ):  # fmt: skip
        (folder / name).mkdir(exist_ok=True)
        _write_json(folder / name / CONFIG, config)
        _write(folder / name / whole, stored_of(params, source))
    autoencoder.save(folder / "vae", one.autoencoder)
    tokens.save(folder / "tokenizer", one.tokens)
    (folder / "scheduler").mkdir(exist_ok=True)
    _write_json(folder / "scheduler" / SCHEDULER_CONFIG, one.said)
    _write_json(folder / INDEX, {
        "_class_name": PIPELINES[0],
        "scheduler": ["diffusers", one.said["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", unet.CLASS],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    })  # fmt: skip


def save_single(file: Path, one: Checkpoint) -> None:
    """Writes a single file in the names of Stable Diffusion's own code.

    Raises:
      ValueError: the text encoder of a folder of version 2 lacks the layers that such a file has.
      StorageError: the disk is full or fails.
    """
    second = one.text.model.activation == "gelu"
    if second and one.text.layout != "open_clip":
        raise ValueError(
            f"{file}: a single file of version 2 has a whole CLIP, and the folder that was loaded "
            "lacks its last layer; save a folder"
        )
    prefix = SECOND if second else FIRST
    layout: Layout = "open_clip" if second else "hugging_face"
    whole = one.text._replace(prefix=text.PREFIX)
    parts: dict[str, Mapping[str, Tensor]] = {
        UNET: stored_of(one.unet.params, one.unet.source("compvis")),
        VAE: autoencoder.tensors_of(one.autoencoder, "compvis"),
        prefix: {**stored_of(one.text.params, whole.source(layout)), **one.text.unread},
        "": one.unread,
    }
    _write(file, {under_ + name: read(x) for under_, part in parts.items() for name, x in
                  part.items()})  # fmt: skip


def _of_folder(where: Path) -> Checkpoint:
    index = _json(where / INDEX, "want a folder of diffusers, or a single file")
    kind = index.get("_class_name")
    if "text_encoder_2" in index or "StableDiffusionXL" in str(kind):
        raise ValueError(f"{where}: {unet.XL}")
    if kind not in PIPELINES:
        raise ValueError(
            f"{where / INDEX}: _class_name is {kind!r}, want {PIPELINES[0]!r} (Stable Diffusion 1 "
            "or 2)"
        )
    folder = where / "unet"
    config = _json(folder / CONFIG)
    stored = tensors.open_safetensors(folder, autoencoder.WEIGHTS)
    made = unet.of_config(config, stored, folder / CONFIG, folder)
    folder = where / "text_encoder"
    config = _json(folder / CONFIG)
    stored = tensors.open_safetensors(folder, tensors.WEIGHTS, text.IGNORED)
    texts = text.of_config(config, stored, folder / CONFIG, folder)
    file = where / "scheduler" / SCHEDULER_CONFIG
    said = _json(file)
    return Checkpoint(
        unet=made,
        autoencoder=autoencoder.load(where / "vae"),
        text=texts,
        tokens=tokens.load(where / "tokenizer"),
        scheduler=scheduler.of_config(said, file),
        said=said,
    )


def _of_file(where: Path) -> Checkpoint:
    stored: dict[str, Tensor]
    if torch_archive.is_archive(where):
        stored = dict(torch_archive.read(where))
        stored = under(stored, LIGHTNING) or stored
    else:
        stored = {one.name: one for one in tensors.safetensors_file(where, SKIPPED)}
    stored = {name: one for name, one in stored.items() if not name.startswith(SKIPPED)}
    if any(name.startswith(XL) for name in stored):
        raise ValueError(f"{where}: {unet.XL}")
    made = unet.of_tensors(under(stored, UNET), where)
    second = any(name.startswith(SECOND) for name in stored)
    texts = text.of_tensors(
        under(stored, SECOND if second else FIRST),
        "open_clip" if second else "hugging_face",
        where,
    )
    known = vocabulary.load(vocabulary.OPENAI)
    used = (UNET, VAE, SECOND, FIRST)
    one = Scheduler(predict="v" if second and _predicts_v(where) else "eps")
    return Checkpoint(
        unet=made,
        autoencoder=autoencoder.of_tensors(under(stored, VAE), where),
        text=texts,
        tokens=Padded(known, 0 if second else known.end),
        scheduler=one,
        said=scheduler.config_of(one),
        unread={name: x for name, x in stored.items() if not name.startswith(used)},
    )


def _predicts_v(where: Path) -> bool:
    """Whether a file of version 2 predicts v, unless the .yaml of its name has no such line."""
    beside = where.with_suffix(".yaml")
    if not beside.is_file():
        return True
    lines = beside.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.split(":", 1)[1] for line in lines if line.strip().startswith(PARAMETERIZATION)]
    return any(value.strip().strip("'\"") == "v" for value in said)


def _json(file: Path, otherwise: str = "download it too") -> JsonObject:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file: {otherwise}")
    return read_downloaded_json(file)


def _write_json(file: Path, content: JsonObject) -> None:
    write_whole(file, (json.dumps(content, indent=2) + "\n").encode())


def _write(file: Path, stored: Mapping[str, np.ndarray]) -> None:
    write_whole(file, safetensors.numpy.save(dict(stored), metadata={"format": "pt"}))
