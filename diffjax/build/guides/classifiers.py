"""Loads classifiers of noised pictures, whose gradients guide stages (Dhariwal & Nichol 2021)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffjax.build import tasks
from diffjax.build.guides.guiding import FLAG, Guide, weights_of
from diffjax.build.kinds import classifying
from diffjax.build.options import config
from diffjax.build.options.identity import identity
from diffjax.build.others import ancestors
from diffjax.build.stages import places
from diffjax.core import digest, tensorfile
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.devices import mesh
from diffjax.encoders.ancestors import classifier as others
from diffjax.encoders.ancestors import openai
from diffjax.encoders.t5 import default_dtype
from diffjax.generation.chain import Cascade
from diffjax.generation.recipe import FROM_A_FILE, Origin
from diffjax.tasks.classifying import Classifying
from diffjax.tasks.critic import ClassifierCritic
from diffjax.tasks.task import Params

CONFIG = "adm_classifier"
SCALE, KEY = "--classifier-guidance", "sample.classifier"


def split(guides: Sequence[Guide]) -> tuple[list[Guide], list[Guide]]:
    """(the guides that are classifiers, those that are weaker versions of stages)."""
    are = [is_classifier(guide.place) for guide in guides]
    pairs = list(zip(guides, are, strict=True))
    return [one for one, yes in pairs if yes], [one for one, yes in pairs if not yes]


def is_classifier(place: Path) -> bool:
    """Whether the place is the workdir or the export of a classifier, or a file of OpenAI's."""
    if is_others(place):
        return True
    if places.is_others(place):
        return False
    run = places.is_file(place) or (place / places.CONFIG).exists()
    return run and classifying.is_classifying(places.options_of(place))


def is_others(place: Path) -> bool:
    """Whether the place is a file of OpenAI's, as far as its name or its tensors' names say."""
    path = ancestors.place_of(place).path
    if path.suffix == places.SAFETENSORS and path.is_file():
        try:
            return others.POOL in tensorfile.shapes(path)
        except (ValueError, OSError):
            return False
    return path.suffix in openai.SUFFIXES


def named_by(cascade: Cascade, dirs: Sequence[Path], scaled: bool) -> list[Guide]:
    """The classifiers that the configs of the stages name, of those stages that have a scale.

    scaled: a flag says the scales, so all may have one.

    Raises:
      ConfigError: a config names a place that holds none.
    """
    found = []
    for place, stage in zip(dirs, cascade.stages, strict=False):
        if places.is_others(place) or not (scaled or stage.settings.classifier_guidance):
            continue
        options = places.options_of(place)
        if name := str(options.sample.get("classifier", "")):
            require(is_classifier(path(name)), KEY, name, "holds no trained classifier")
            found.append(Guide(path(name)))
    return found


def guided(cascade: Cascade, guides: Sequence[Guide], verify: str = "full") -> Cascade:
    """The cascade with each classifier at the stage that makes pictures of its size.

    Raises:
      ConfigError: a classifier is of pictures of another size or has other classes than the stage.
      StorageError: its checkpoint is damaged.
    """
    stages, origins = list(cascade.stages), list(cascade.origins)
    for guide in guides:
        of_others = is_others(guide.place)
        task, params, origin = others_of(guide) if of_others else (task_of(guide.place), None, None)
        sizes = {stage.task.size_px: i for i, stage in enumerate(stages)}
        made = " or ".join(map(str, sizes))
        what = f"classifies noised pictures of {task.size_px} px; here are stages of {made} px"
        require(task.size_px in sizes, FLAG, str(guide.place), what)
        stage = stages[i := sizes[task.size_px]]
        latents = f"classifies pictures, and {stage.task.name} learns latents"
        require(stage.task.space is None, FLAG, str(guide.place), latents)
        second = f"is a second classifier of {stage.task.name}"
        require(stage.task.classifier is None, FLAG, str(guide.place), second)
        known = cascade.classes
        num = task.num_classes
        classes = f"knows {num} classes, and the stages {known.num if known else num}"
        require(known is None or known.num == num, FLAG, str(guide.place), classes)
        if params is None or origin is None:
            params, origin = loaded(guide, task, verify)
        critic = ClassifierCritic(task.model, num, task.names)
        frozen = {**stage.task.frozen, "classifier": params}
        own = dataclasses.replace(stage.task, classifier=critic, frozen=frozen)
        stages[i] = dataclasses.replace(stage, task=own)
        origins[i] = dataclasses.replace(origins[i], classifier=origin)
    return dataclasses.replace(cascade, stages=tuple(stages), origins=tuple(origins))


def task_of(place: Path) -> Classifying:
    """The task of a place that holds a classifier."""
    options = places.options_of(place)
    with config.interpreting(place):
        return tasks.classifying_of(options)


def others_of(guide: Guide) -> tuple[Classifying, Params, Origin]:
    """(the task, the parameters, where they come from) of a file of OpenAI's.

    Its config is the preset of configs/adm_classifier.py that it fits, or the one that is said, as
    in CONFIG.py:PRESET=FILE.

    Raises:
      ConfigError: the file is damaged or of something else, or fits no config.
    """
    spec, file = ancestors.place_of(guide.place)
    alone = f"{file} has one set of parameters: leave the step and the average out"
    require(guide.step is None and guide.average is None, FLAG, str(guide.place), alone)
    try:
        stored = openai.read(file)
        facts = others.facts_of(stored, file)
        options = config.load(spec) if spec else preset_of(facts, file)
        options = options.copy_and_resolve_references()
        right = classifying.is_classifying(options)
        require(right, FLAG, spec, "is no config of a classifier; see configs/adm_classifier.py")
        model = classifying.model_of(options)
        wanted = others.facts_of_model(model, options.data.size_px)
        if wrong := others.difference(facts, wanted):
            raise ValueError(f"{file}: {wrong} ({spec or options.stage})")
        with options.unlocked():
            options.model.dtype = jnp.dtype(default_dtype(mesh.sampling_devices()[0].platform)).name
        task = tasks.classifying_of(options)
        shapes = jax.eval_shape(task.init, jax.random.key(0))
        params = others.params_of(model, shapes, stored, file)
    except (ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        why = str(error).removeprefix(f"{file}: ")
        raise ConfigError(FLAG, str(guide.place), why) from None
    print(f"{task.name}: {file}, {task.size_px} px, guides")
    mark = digest.digest_of(params, identity(options))
    everywhere = mesh.replicated(mesh.make_mesh(devices=mesh.sampling_devices()))
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    origin = Origin(task.name, task.size_px, None, FROM_A_FILE, mark)
    return task, jax.device_put(single, everywhere), origin


def preset_of(facts: others.Facts, file: Path) -> ConfigDict:
    """The preset of configs/adm_classifier.py with a network of these facts.

    Raises:
      ValueError: there is none.
    """
    for preset in config.presets_of(CONFIG):
        options = config.load(f"{CONFIG}:{preset}")
        model = classifying.model_of(options)
        if others.facts_of_model(model, options.data.size_px) == facts:
            return options
    raise ValueError(
        f"{file}: is of another size than each preset of configs/adm_classifier.py; say its "
        f"config: {FLAG} CONFIG.py:PRESET={file}"
    )


def loaded(guide: Guide, task: Classifying, verify: str) -> tuple[Params, Origin]:
    """The classifier's parameters, and where they come from.

    Raises:
      ConfigError: there is no such step or average.
      StorageError: the checkpoint is damaged.
    """
    place = guide.place
    options = places.options_of(place)
    params, origin, at = weights_of(guide, place, task, identity(options), verify)
    print(f"{options.stage}: step {at} of {place}, {origin.average}, guides")
    return params, origin


def needed(cascade: Cascade, asked: bool) -> Cascade:
    """The cascade without the classifiers that its settings turn off.

    asked: whether they were named by a flag, and not by configs.

    Raises:
      ConfigError: a scale has no classifier, or one that was asked for has no scale.
    """
    stages, origins = list(cascade.stages), list(cascade.origins)
    for i, stage in enumerate(cascade.stages):
        scale, task = stage.settings.classifier_guidance, stage.task
        alone = f"needs a classifier of {task.name}'s pictures: name it with {FLAG}"
        require(not scale or task.classifier is not None, SCALE, scale, alone)
        if scale or task.classifier is None:
            continue
        off = f"is off, so the classifier of {task.name} has no effect; give a scale, such as 1"
        require(not asked, SCALE, scale, off)
        frozen = {name: part for name, part in task.frozen.items() if name != "classifier"}
        own = dataclasses.replace(task, classifier=None, frozen=frozen)
        stages[i] = dataclasses.replace(stage, task=own)
        origins[i] = dataclasses.replace(origins[i], classifier=None)
    return dataclasses.replace(cascade, stages=tuple(stages), origins=tuple(origins))
