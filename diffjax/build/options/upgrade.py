"""Completes configs of older versions: a missing key gets the meaning it had before it existed."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from ml_collections import ConfigDict

Value: TypeAlias = bool | int | float | str | tuple[str, ...]
# For each key that was added after version 0.1.0, the value that older configs get.
BEFORE: dict[str, Value] = {
    "classes.names": (),
    "data.max_bad_fraction": 0.0,
    "data.validation": 0.0,
    "data.validation_split": "validation",
    "data.validation_names": (),
    "data.captions": "auto",
    "data.caption_words": (),
    "data.aspect": "centre",
    "data.ground": "white",
    "data.flip": False,
    "data.allow_changed": False,
    "data.workers": 0,
    "embedding.encoder": "",
    "low_res.degrade": "",
    "mask.strokes": 0.0,
    "mask.known": False,
    "diffusion.objective": "simple",
    "diffusion.over": "u",
    "diffusion.num_levels": 1000,
    "diffusion.vlb_weight": 0.001,
    "diffusion.self_condition": 0.0,
    "diffusion.uncertainty": 0,
    "diffusion.learned_schedule": 0,
    "diffusion.precondition": False,
    "diffusion.zero_snr": False,
    "diffusion.discrete": False,
    "diffusion.times_mean": 0.0,
    "diffusion.times_std": 1.0,
    "diffusion.offset_noise": 0.0,
    "optim.groups": (),
    "train.evaluate_every": 0,
    "train.evaluate_examples": 64,
    "train.evaluate_scores": (),
    "sample.guidance_rescale": 0.0,
    "sample.guidance_from": -100.0,
    "sample.guidance_to": 100.0,
    "sample.clip_guidance": 0.0,
    "sample.clip": "shipped",
    "sample.classifier_guidance": 0.0,
    "sample.classifier": "",
    "contrastive.noised": False,
    "contrastive.backbone": "",
    "contrastive.drop": 0.0,
    "lora.prior_target": "pictures",
}

# Keys that have another name now.
RENAMED = {"data.max_broken": "data.max_bad_fraction"}


def upgraded(config: ConfigDict) -> ConfigDict:
    """The config with the keys that its version lacked, in the sections that it has."""
    new = config.copy_and_resolve_references()
    with new.unlocked():
        for before, now in RENAMED.items():
            section, key = before.split(".")
            if section in new and key in new[section]:
                new[section][now.partition(".")[2]] = new[section][key]
                del new[section][key]
        for section, key, value in _missing(new):
            new[section][key] = value
    return new


def without_defaults(section: str, values: Mapping[str, object]) -> dict[str, object]:
    """The values of a section, without new keys whose values mean what older versions did.

    So a digest of a config, such as a checkpoint's identity, is the same as before those keys.
    """
    old = lambda key, value: BEFORE.get(f"{section}.{key}", ...) == value  # noqa: E731
    return {key: value for key, value in values.items() if not old(key, value)}


def _missing(config: ConfigDict) -> Iterator[tuple[str, str, Value]]:
    for name, value in BEFORE.items():
        section, _, key = name.partition(".")
        if section in config and key not in config[section]:
            yield section, key, value
