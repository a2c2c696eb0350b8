"""From a config to its evaluation: on which examples, and which numbers."""

import functools

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffjax.build.guides import clips
from diffjax.build.inputs import clip_columns, columns, moments, reading
from diffjax.build.inputs.embeddings import embeddings_of
from diffjax.core.errors import require
from diffjax.data import readers
from diffjax.encoders.clip import encoder as clip_encoder
from diffjax.encoders.text import Reads, TextEncoder
from diffjax.evaluation import examples, fidelity
from diffjax.evaluation.aligned import Aligned
from diffjax.evaluation.classifying import Calibration
from diffjax.evaluation.denoising import Bits, NoiseLevels
from diffjax.evaluation.drawings import JUDGED_PX, drawings
from diffjax.evaluation.evaluator import Evaluator, rows_for
from diffjax.evaluation.examples import Examples
from diffjax.evaluation.extractors.open import open_extractor
from diffjax.evaluation.matching import Matching
from diffjax.evaluation.measure import Measure, Score, TrainingLoss
from diffjax.evaluation.pictures import Fidelity, Nearest, Rebuilt, gallery_of
from diffjax.evaluation.scores import distance_to, fit_to
from diffjax.tasks.autoencoding import Autoencoding
from diffjax.tasks.classifying import Classifying
from diffjax.tasks.contrastive import Contrastive
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.distilling import Distilled
from diffjax.tasks.lora import Adapted
from diffjax.tasks.rehearsing import Rehearsed
from diffjax.tasks.space import LATENT
from diffjax.tasks.task import Task
from diffjax.tasks.vectors import MakesVectors
from diffjax.training.run import Evaluate


def during_training(config: ConfigDict, encoder: Reads | None, task: Task, mesh: Mesh) -> Evaluate:
    """The evaluation of train.evaluate_every, on the examples and with the seed of the config.

    That of a LoRA is the one of the task whose kernels change, with the merged parameters; that of
    a student, or of a rehearsal, the one of the task itself.

    Raises what `evaluator_of` does.
    """
    if isinstance(task, Adapted):
        whole = during_training(config, encoder, task.whole, mesh)
        merged = functools.partial(jax.jit(Adapted.merged), task)
        return lambda params: whole(merged(params))
    if isinstance(task, Distilled | Rehearsed):
        return during_training(config, encoder, task.whole, mesh)
    split, count = config.data.validation_split, config.train.evaluate_examples
    made = evaluator_of(config, encoder, task, mesh, split=split, count=count, seed=config.seed)
    print(f"evaluation: {len(made.examples)} of {config.data.name} {split}", flush=True)
    for line in left_out(config, task):
        print(f"evaluation: {line}", flush=True)
    return made


def evaluator_of(
    config: ConfigDict,
    encoder: Reads | None,
    task: Task,
    mesh: Mesh,
    *,
    split: str,
    count: int,
    seed: int,
) -> Evaluator:
    """The evaluation of a task on `count` examples of a split.

    Raises:
      ConfigError: there is no such split, data.embeddings lacks one of its captions, or the task
        compares examples with each other and `count` is not a number of whole batches.
      BadData: a record cannot be read.
      StorageError: the disk has no room for the embeddings of the captions.
    """
    found = examples_of(config, encoder, split, count)
    rows = rows_for(len(found), config.data.batch_size, mesh, task.whole_batch)
    require(
        not task.whole_batch or len(found) % rows == 0,
        "train.evaluate_examples",
        len(found),
        f"must be a multiple of {rows}: {task.name} compares the examples of a batch",
    )
    scores = (*scores_of(config, task), *asked_scores(config, task, found))
    return Evaluator(task, found, measures_of(task), scores, mesh, rows, seed)


def examples_of(config: ConfigDict, encoder: Reads | None, split: str, count: int) -> Examples:
    """Examples spread over a split, with whole pictures and their first captions, embedded."""
    records = examples.Spread(reading.held_out(config, split), count)
    embed = None
    if isinstance(encoder, TextEncoder):
        embed = embeddings_of(config, records, encoder).embed
    needed = columns.readers_of(config, embed, clip_columns.of_captions(config, records))
    if (latents := moments.cached(config, records)) is not None:
        needed.append(readers.array(LATENT, latents.of))
    return examples.read(records, needed, reading.max_bad_fraction_of(config))


def measures_of(task: Task) -> tuple[Measure, ...]:
    """The measures of a kind of task; another kind adds its own here."""
    if isinstance(task, Denoising):
        # a bound on latents says nothing of pictures, because other autoencoders have other latents
        of_data = (Bits(),) if task.clipped else ()
        return (TrainingLoss(), NoiseLevels(), *of_data)
    return (TrainingLoss(),)


def scores_of(config: ConfigDict, task: Task) -> tuple[Score, ...]:
    """The scores of what a task makes of the examples; () if there is no truth to compare with."""
    if isinstance(task, Contrastive):
        return (Matching(),)
    if isinstance(task, MakesVectors):
        return (Aligned(),)
    if isinstance(task, Classifying):
        return (Calibration(),)
    if isinstance(task, Autoencoding):
        return (Rebuilt(),)
    if isinstance(task, Denoising) and task.low_res_px:
        return (Fidelity(),)
    if isinstance(task, Denoising) and is_emoji(config) and task.takes_prompts:
        every = drawings(min(config.data.size_px, JUDGED_PX))
        return (Nearest(gallery_of(every.images, every.names, every.captions)),)
    return ()


def asked_scores(config: ConfigDict, task: Task, found: Examples) -> tuple[Score, ...]:
    """The scores of train.evaluate_scores: a distance of sets for an extractor, and CLIP's score.

    Raises:
      ConfigError: the task makes no pictures, or there is no such extractor or CLIP.
      InputError: weights are missing or damaged, or the examples show nothing or have no captions.
    """
    key, wanted = "train.evaluate_scores", config.train.evaluate_scores
    makes = isinstance(task, Autoencoding) or (isinstance(task, Denoising) and makes_pictures(task))
    require(makes or not wanted, key, wanted, f"{task.name} makes no pictures: leave it empty")
    scores: list[Score] = []
    for name in wanted:
        if name.startswith(clip_encoder.PREFIX):
            scores.append(fit_to(found, clips.load(name.removeprefix(clip_encoder.PREFIX), key)))
        else:
            scores.append(distance_to(found, open_extractor(name)))
    return tuple(scores)


def makes_pictures(task: Denoising) -> bool:
    """Whether what it makes are pictures, and not other data."""
    return task.clipped or task.space is not None


def is_emoji(config: ConfigDict) -> bool:
    """Whether the pictures are of the emoji data set, all of whose drawings are known."""
    return bool(config.data.name.partition("/")[0] == "emoji")


def left_out(config: ConfigDict, task: Task) -> list[str]:
    """A line for each number that this task lacks although tasks of its kind have it."""
    if not isinstance(task, Denoising):
        return []
    missing = NoiseLevels().missing(task)
    lines = [f"no {name}: the schedule does not go there" for name in missing]
    if task.low_res_px and task.size_px < fidelity.WINDOW:
        window = f"smaller than its window, {fidelity.WINDOW}"
        lines.append(f"no ssim: pictures of {task.size_px} px are {window}")
    return lines
