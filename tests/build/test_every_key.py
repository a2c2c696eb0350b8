"""Every key of every config changes something: no value is read and forgotten on its way.

A key stands here in one of three ways. A number or a flag is tried with another value that `other`
makes up; any other value needs one in OTHER; and a key whose effect no comparison of what a run is
made of can show stands in ELSEWHERE, with the test that shows it.
"""

import dataclasses
import functools
import hashlib
import inspect
import re
import tempfile
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.build import models, noise, tasks, training
from diffjax.build.inputs import columns, moments, reading, texts
from diffjax.build.kinds import autoencoding, contrastive, distilling, lora, perceptual, rehearsing
from diffjax.build.options import config
from diffjax.core import rng
from diffjax.data import pipeline
from diffjax.diffusion import schedule
from diffjax.tasks import sampling
from diffjax.tasks.conditions import Class
from tests import lora_base
from tests.encoders.clip import small
from tests.tiny_t5 import save_tiny

# Keys whose effect cannot be seen without a run or another data set, and where a test sees it.
ELSEWHERE = {
    "stages": "the parts of a cascade: below",
    "sample.clip": "names the CLIP that guides: tests/test_sample_clip.py",
    "sample.classifier": "names the classifier that guides: tests/test_sample_classifier.py",
    "sample.classifier_guidance": "guides diffjax.sample alone: tests/test_sample_classifier.py",
    "sample.clip_guidance": "guides diffjax.sample alone: tests/test_sample_clip.py",
    "classes.names": "what diffjax.sample --class takes: tests/test_sample_told.py",
    "data.split": "chooses among records: tests/build/inputs/test_data.py",
    "data.validation_split": "of what an evaluation looks at: tests/test_evaluate.py",
    "data.validation": "chooses among records: tests/build/inputs/test_data.py",
    "data.names": "made-up pictures are all taken: tests/data/sources/tfds/test_records.py",
    "data.validation_names": "of what an evaluation looks at: tests/test_evaluate.py",
    "data.image_key": "made-up pictures have no fields: tests/data/sources/tfds/test_records.py",
    "data.caption_key": "made-up pictures have no fields: tests/data/sources/tfds/test_records.py",
    "data.caption_words": "made-up pictures have one caption: tests/data/test_readers.py",
    "data.captions": "made-up pictures lie in no folder: tests/build/inputs/test_data.py",
    "data.aspect": "made-up pictures are squares: tests/build/inputs/test_data.py",
    "data.ground": "made-up pictures are opaque: tests/build/inputs/test_data.py",
    "data.allow_changed": "allows what a resume refuses: tests/build/inputs/test_data.py",
    "data.workers": "the same batches from other processes: tests/data/test_pipeline.py",
    "data.embeddings": "names a cache on the disk: tests/build/inputs/test_embeddings.py",
    "vectors.clip": "names a CLIP: tests/build/inputs/test_clip_columns.py",
    "vectors.width": "is that of the CLIP: tests/build/inputs/test_clip_columns.py",
    "vectors.scale": "of what a prior learns: tests/tasks/test_prior.py",
    "vectors.mark": "refuses another CLIP: tests/build/inputs/test_clip_columns.py",
    "embedding.drop": "what a decoder trains without: tests/test_unclip.py",
    "embedding.width": "is that of the vectors: tests/build/others/test_unclip.py",
    "embedding.encoder": "is empty beside a CLIP's vectors: tests/encoders/clip/test_vectors.py",
    "embedding.of": "is the column of a CLIP's vectors: tests/build/others/test_unclip.py",
    "latent.autoencoder": "names a place: tests/build/kinds/test_latents.py",
    "latent.mark": "refuses another autoencoder: tests/build/kinds/test_latents.py",
    "latent.by_channel": "measured when a run begins: tests/build/inputs/test_moments.py",
    "latent.cache": "names a folder: tests/build/inputs/test_moments.py",
    "latent.crops": "made-up pictures are squares: tests/encoders/test_latents.py",
    "mesh.data": "of 8 devices -1 takes what the others leave: tests/training/test_meshes.py",
    "model.dropout": "is drawn in training alone: tests/tasks/test_denoising.py",
    "model.steps": "of numbers that a program holds: tests/models/test_ancestors.py",
    "model.kind": "changes which other keys there are: tests/build/test_check.py",
    "text.width": "0 asks the encoder, any other number must be its own: test_check.py",
    "start.base": "names a place: tests/build/stages/test_start.py",
    "start.average": "of what lies there: tests/build/stages/test_start.py",
    "train.evaluate_examples": "how many an evaluation looks at: tests/test_evaluate.py",
    "train.evaluate_scores": "what an evaluation says of their set: tests/test_evaluate.py",
    "train.allow_dtype_change": "allows what a resume refuses: test_resume.py",
}
# Another allowed value, where the general rule of `other` gives one that is not.
OTHER = {
    "stage": "another",
    "data.name": "fake/17",
    "data.size_px": 32,
    "data.batch_size": 16,
    "data.crop_px": 8,
    "text.encoder": "t5-nano",
    "model.width": 32,
    "model.dtype": "bfloat16",
    "model.mults": (1, 2, 2),
    "model.num_blocks": 2,
    "model.attention_levels": (0,),
    "model.head_width": 8,
    "model.num_heads": 1,
    "model.patch": 2,
    "model.remat": "full",
    "model.text": "cross",
    "model.norm_groups": 4,
    "model.embedding_width": 32,
    "model.resample": "conv",
    "diffusion.schedule": "sigmoid",
    "diffusion.predict": "v",
    "diffusion.weighting": "min_snr",
    "diffusion.times": "stratified",
    "diffusion.objective": "hybrid",
    "diffusion.over": "logsnr",
    "optim.name": "adamw",
    "optim.decay": "constant",
    "diffusion.self_condition": 1.0,
    "text.drop": 1.0,
    "classes.drop": 1.0,
    "classes.names": tuple("abcdefghij"),
    "mask.drop": 1.0,
    "mask.strokes": 1.0,
    "tokens.vocabulary": "tests/golden/clip_merges.txt.gz",
    "tokens.drop": 1.0,
    "model.text_width": 16,
    "model.text_heads": 1,
    "model.attention": "self",
    "model.skip": "concat",
    "model.upsampling": "shuffle",
    "model.canvas": 8,
    "sample.guidance_from": -5.0,
    "sample.guidance_to": -5.0,
    "optim.groups": ("stem/.* rate=0.5",),
    "optim.weight_decay": 0.1,
    "train.ema": ("decay_0.5",),
    "sample.sampler": "ddim",
    "sample.spacing": "karras",
    "sample.threshold": "none",
    "sample.prompts": ("a frog",),
    "sample.num_images": 3,
    "low_res.size_px": 32,
    "low_res.degrade": "bsr",
    "latent.factor": 4,
    "latent.scale": (2.0,),
    "latent.shift": (0.5,),
    "latent.tile_px": 8,
    "mesh.fsdp": 8,
    "mesh.tensor": 2,
}
# What all configs are tried with.
PLAIN = {"diffusion.predict": "eps", "optim.weight_decay": 0.05, "sample.num_steps": 2}
# What has to be said with a key for its value to count.
WITH = {
    "optim.weight_decay": {"optim.name": "adamw"},
    "sample.percentile": {"sample.threshold": "dynamic"},
    "diffusion.num_levels": {"diffusion.objective": "hybrid"},
    "diffusion.vlb_weight": {"diffusion.objective": "hybrid"},
    "diffusion.zero_snr": {"diffusion.predict": "v"},
    "diffusion.times_mean": {"diffusion.times": "logit_normal"},
    "diffusion.times_std": {"diffusion.times": "logit_normal"},
    "model.head_width": {"model.num_heads": 0},
    "model.scan": {"model.num_blocks": 3},
    "model.from_low_res": {"diffusion.predict": "x_0"},
}
# Configs to try a key with, where the first that has it does nothing with it.
HOMES = {
    "diffusion.discrete": "ddpm:tiny",
    "low_res.size_px": "sr256:tiny",
    "low_res.degrade": "unclip_sr:tiny",
    "low_res.max_aug_level": "sr256:tiny",
    "sample.aug_level": "sr256:tiny",
    "model.attention_bias": "adm:tiny",
    "model.heads_first": "adm:tiny",
    "model.norm_groups": "adm:tiny",
    "model.null_class": "adm:tiny",
    "model.text_heads": "glide64:tiny",
    "model.text_layers": "glide64:tiny",
    "model.text_width": "glide64:tiny",
    "tokens.drop": "glide64:tiny",
    "tokens.length": "glide64:tiny",
    "tokens.vocabulary": "glide64:tiny",
    "model.from_low_res": "sr256:tiny",
    "model.skip": "sr256:paper",
    "model.skip_conv": "sr256:paper",
    "model.upsampling": "sr256:paper",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@functools.cache
def stages():
    """The stages' configs that come with diffjax: name -> config.

    The tiny ones come first, and those of data sets that are not here last.
    """
    found = {}
    for path in sorted(config.shipped().glob("*.py")):
        if not hasattr(module := config_module(path), "PRESETS"):
            continue  # a part of other configs
        for preset in module.PRESETS:
            made = config.load(f"{path}:{preset}")
            parts = made.stages if "stages" in made else ("",)
            for part in parts:
                found[f"{path.stem}:{preset} {part}".strip()] = made[part] if part else made

    def place(name):
        chains = ("adm:", "ddpm:", "iddpm:", "glide")
        later = name.startswith(chains)  # which allow fewer values
        return name.startswith("datasets:"), later, ":tiny" not in name, name

    return {name: found[name] for name in sorted(found, key=place)}


def config_module(path):
    return __import__(f"configs.{path.stem}", fromlist=["PRESETS"])


@functools.cache
def homes():
    """Each key of each config -> the first stage that has it; those of other kinds are below."""
    found = {"stages": None} if any("stages" in c for c in map(config.load, cascades())) else {}
    for name, options in stages().items():
        kind = options.get("model", {}).get("kind")
        if (
            tasks.other_kind(options)
            or {"lora", "distil", "rehearsal"} & set(options)
            or kind == "prior"
        ):
            continue
        for key, _ in config.leaves(options):
            found.setdefault(key, name)
    return found | HOMES


def cascades():
    return [f"configs/{p.stem}.py" for p in config.shipped().glob("*.py") if p.stem == "cascade"]


def example(encoder, name, **changes):
    """A stage's config made tiny, with a small encoder and these values."""
    options = stages()[name].copy_and_resolve_references().unlock()
    tiny = f"{name.partition(':')[0]}:tiny"
    if tiny in stages() and ":tiny" not in name:  # a preset at scale
        for known, value in config.leaves(stages()[tiny]):
            if known in dict(config.leaves(options)):
                put(options, known, value)
    if "text" in options:
        options.text.update(encoder=encoder, max_tokens=16)
    if "vectors" in options:
        options.vectors.update(clip=f"clip:{small_clip()}", width=small.CONFIG.embed)
    if "vectors" in options and "embedding" in options:
        options.embedding.width = small.CONFIG.embed
    for changed, value in changes.items():
        put(options, changed, value)
    return options


@functools.cache
def small_clip():
    return small.write(Path(tempfile.mkdtemp()) / "small")


def put(options, key, value):
    section, _, last = key.rpartition(".")
    (options[section] if section else options)[last] = value


def other(key, value):
    """Another value of the same type."""
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 + 0.25
    if isinstance(value, int):
        return value + 1
    return pytest.fail(
        f"the key {key} is new: give another value of it in OTHER, or say in ELSEWHERE which test "
        "sees what it does"
    )


@dataclasses.dataclass(frozen=True)
class Toy:
    """A network of one number that hears all that it is told."""

    channels: int

    @property
    def sharding(self):
        return ()

    def init(self, key, *inputs, **told):
        return {"params": {"weight": jnp.float32(0.7)}}

    def apply(self, variables, x_t, logsnr_t, **told):
        rows = lambda x: x.reshape(len(x), -1).astype(jnp.float32)  # noqa: E731
        heard = sum(jnp.mean(jnp.sin(rows(x)), axis=1) for x in told.values())
        sides = jnp.split(x_t, max(x_t.shape[-1] // 3, 1), axis=-1)  # what it guessed, beside x_t
        weight = variables["params"]["weight"] * (1.0 + 0.3 * heard)[:, None, None, None]
        said = weight * (sides[0] + 0.5 * sum(sides[1:]))
        said = said + 0.3 * jnp.tanh(logsnr_t / 4)[:, None, None, None]
        return jnp.concatenate([said] * max(self.channels // 3, 1), axis=-1)


KEY = jax.random.key(0)
# What equal tasks make of equal batches; most keys change neither.
SEEN = {}


def losses_of(toy, batch):
    """What a task loses on a batch that it draws for, and the shapes of its own parameters."""
    if (toy, digest(batch)) not in SEEN:
        with jax.disable_jit():
            params = toy.init(KEY)
            drawn = toy.draw(KEY, jax.tree.map(jnp.asarray, batch), jnp.int32(3))
            losses = toy.loss(jax.tree.map(lambda p: p + 0.1, params), drawn)
        shapes = [(str(path), x.shape) for path, x in jax.tree_util.tree_leaves_with_path(params)]
        SEEN[toy, digest(batch)] = digest({"loss": losses.per_example}), shapes
    return SEEN[toy, digest(batch)]


def pictures_of(toy):
    """What is sampled with a task."""
    if toy not in SEEN:
        prompts = {
            name: jnp.asarray(np.random.default_rng(1).normal(size=(2, *shape.shape)) > 0.5)
            .astype(shape.dtype)
            for name, shape in toy.prompts().items()
        }  # fmt: skip
        with jax.disable_jit():
            params = jax.tree.map(lambda p: p + 0.1, toy.init(KEY))
            keys = rng.per_example(jnp.arange(2))
            made = sampling.sample(params, prompts, keys, task=toy, settings=toy.settings)
        SEEN[toy] = digest({"made": made})
    return SEEN[toy]


def digest(columns):
    made = hashlib.sha256()
    for name, column in sorted(columns.items()):
        made.update(f"{name} {column.shape}".encode() + np.ascontiguousarray(column).tobytes())
    return made.hexdigest()


def program(task):
    """The network as a program; a field that its code never reads changes none of it."""
    text = str(jax.make_jaxpr(task.init)(jax.random.key(0)))
    return re.sub(r"0x[0-9a-f]+", "", text)


def moved(tx, rate):
    """Where an optimiser takes a few parameters in three steps of uneven gradients."""
    params = {"stem": {"kernel": jnp.ones((2, 2))}, "out": {"bias": jnp.array([0.5, -2.0])}}
    state = tx.init(params)
    for step in range(3):
        scale = (0.1, 3.0, 1.0)[step]  # clipping tells them apart
        gradients = jax.tree.map(lambda p, s=scale: p * s, params)
        updates, state = tx.update(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    small = jax.tree.map(lambda p: 1e-9 * p, params)
    updates, _ = tx.update(small, tx.init(params), params)
    rates = [float(rate(step)) for step in (0, 1, 2, 3, 5, 100)]
    return [np.asarray(x).tolist() for x in jax.tree.leaves((params, updates))], rates


class Run:
    """What a run of `example` is made of, in parts that are computed when they are asked for."""

    def __init__(self, encoder, name, values):
        self.options = example(encoder, name, **dict(values))
        self.encoder = encoder_of(self.options)
        self.found = {}

    def part(self, name):
        if name not in self.found:
            self.found[name] = PARTS[name](self)
        return self.found[name]

    @functools.cached_property
    def made(self):
        return training.training_of(self.options, self.encoder.width if self.encoder else 0)

    @property
    def toy(self):
        return dataclasses.replace(self.made.task, model=Toy(models.out_channels(self.options)))

    def embed(self, caption):
        return np.full((2, self.encoder.width), len(caption), np.float32)

    @functools.cached_property
    def records(self):
        return reading.source_of(self.options)

    @functools.cached_property
    def batches(self):
        """(the first batch, how many records may be broken)."""
        embed = self.embed if self.encoder else None
        batches = pipeline.train_iterator(
            self.records,
            columns.trained_on(self.options, embed, moments.cached(self.options, self.records)),
            batch_size=self.made.batch_size,
            seed=self.made.seed,
            max_bad_fraction=reading.max_bad_fraction_of(self.options),
            threads=0,
        )
        return next(batches), batches._broken.limit

    def shown(self):
        embed = self.embed if self.encoder else None
        return columns.shown_of(self.options, self.records, self.encoder, embed).captions

    def trained(self):
        made = self.made
        return made.averages, dict(made.mesh.shape), made.seed, made.parts, made.log_every


# The parts, the cheap ones first.
PARTS = {
    "loop": lambda run: training.loop_of(run.options),
    "trained": Run.trained,
    "sampled": lambda run: training.sampled_average(run.options),
    "classes": lambda run: [c.names for c in run.made.task.conditions if isinstance(c, Class)],
    "space": lambda run: repr(run.made.task.space),
    "optimiser": lambda run: moved(run.made.tx, run.made.rate),
    "batch": lambda run: (digest(run.batches[0]), run.batches[1]),
    "shown": Run.shown,
    "losses": lambda run: losses_of(run.toy, run.batches[0]),
    "pictures": lambda run: pictures_of(run.toy),
    "network": lambda run: program(run.made.task),
}
# The part that the keys of a section change, mostly.
OF_SECTION = {"model": "network", "sample": "pictures", "data": "batch", "optim": "optimiser"}


@functools.cache
def run_of(encoder, name, values):
    return Run(encoder, name, values)


ENCODERS = {}


def encoder_of(options):
    """The text encoder of a config, read once; None without text."""
    if "text" not in options:
        return None
    said = options.text.to_json()
    if said not in ENCODERS:
        ENCODERS[said] = texts.encoder_of(options)
    return ENCODERS[said]


@pytest.mark.parametrize("key", sorted(homes().keys() - ELSEWHERE.keys()))
def test_another_value_changes_what_a_run_is_made_of(encoder, key):
    before = {**PLAIN, **WITH.get(key, {})}
    value = dict(config.leaves(example(encoder, homes()[key], **before)))[key]
    changed = other(key, value)
    assert changed != value
    runs = [
        run_of(encoder, homes()[key], tuple(values.items()))
        for values in (before, {**before, key: changed})
    ]
    first = OF_SECTION.get(key.partition(".")[0])
    parts = sorted(PARTS, key=lambda part: part != first)
    assert any(runs[0].part(part) != runs[1].part(part) for part in parts), (
        f"a run with {key}={changed!r} is made of the same as one with {value!r}: hand the key on, "
        "say in WITH beside what it counts, or say in ELSEWHERE which test sees what it does"
    )


# Another value of the keys of a CLIP, where the general rule gives one that is not allowed.
OF_A_CLIP = {
    "tokens.vocabulary": "tests/golden/clip_merges.txt.gz",
    "model.activation": "gelu",
    "model.remat": "full",
    "model.dtype": "bfloat16",
    "contrastive.loss": "sigmoid",
    "contrastive.noised": True,
    "contrastive.backbone": "lite0",
    "contrastive.drop": 0.5,
}


@functools.cache
def clip(key="", value=None):
    """What a run of a tiny CLIP is made of that its own sections can change."""
    options = config.load("configs/clip.py:tiny").copy_and_resolve_references().unlock()
    if key:
        put(options, key, value)
    reader = columns.tokens_of(options)
    ids = reader({"captions": ("a red apple on a table",)}, None)["tokens"]
    return repr(contrastive.task_of(options)), ids.tolist()


@pytest.mark.parametrize(
    "key",
    [
        key
        for key, _ in config.leaves(config.load("configs/clip.py:tiny"))
        if key.split(".")[0] in ("tokens", "model", "contrastive") and key != "model.kind"
    ],
)
def test_another_value_changes_what_a_clip_is_made_of(key):
    value = dict(config.leaves(config.load("configs/clip.py:tiny")))[key]
    changed = OF_A_CLIP.get(key, value + 1 if isinstance(value, int) else None)
    assert changed != value
    assert clip(key, changed) != clip()


# Another value of the keys of an autoencoder, where the general rule gives one that is not allowed.
OF_AN_AUTOENCODER = {
    "model.mults": (1, 2, 2),
    "model.attention_levels": (0,),
    "model.remat": "full",
    "model.dtype": "bfloat16",
    "autoencoding.perceptual": "lite0",
    "autoencoding.adversary_weight": 0.25,
}


@functools.cache
def autoencoder(key="", value=None):
    """What a run of a tiny autoencoder is made of that its own sections can change."""
    options = config.load("configs/autoencoder.py:tiny").copy_and_resolve_references().unlock()
    if key:
        put(options, key, value)
    task = autoencoding.task_of(options)
    return repr(dataclasses.replace(task, frozen={})), sorted(task.frozen)


@pytest.mark.parametrize(
    "key",
    [
        key
        for key, _ in config.leaves(config.load("configs/autoencoder.py:tiny"))
        if key.split(".")[0] in ("model", "autoencoding") and key != "model.kind"
    ],
)
def test_another_value_changes_what_an_autoencoder_is_made_of(key, monkeypatch):
    monkeypatch.setattr(perceptual.lite0, "load", lambda: types.SimpleNamespace(params={}))
    value = dict(config.leaves(config.load("configs/autoencoder.py:tiny")))[key]
    changed = OF_AN_AUTOENCODER[key] if key in OF_AN_AUTOENCODER else other(key, value)
    assert changed != value
    assert autoencoder(key, changed) != autoencoder()


# Another value of the keys of a prior, where the general rule gives one that is not allowed.
OF_A_PRIOR = {
    "model.width": 32,
    "model.num_heads": 1,
    "model.remat": "full",
    "model.dtype": "bfloat16",
    "sample.sampler": "ddim",
    "sample.spacing": "karras",
    "sample.threshold": "static",
}
# Of these a test elsewhere sees what they do, or they are those of every stage.
NOT_OF_A_PRIOR = (
    "model.kind", "vectors.clip", "vectors.mark", "autoregressive.basis", "autoregressive.mark",
    "sample.num_images", "sample.prompts", "sample.clip", "sample.classifier",
)  # fmt: skip


@functools.cache
def prior(preset, key="", value=None):
    """What a run of a tiny prior is made of that its own sections can change."""
    options = config.load(f"configs/prior.py:{preset}").copy_and_resolve_references().unlock()
    options.text.width = 16
    if key:
        put(options, key, value)
    return repr(tasks.trained_task_of(options, 16))


@pytest.mark.parametrize(
    ("preset", "key"),
    [
        (preset, key)
        for preset in ("tiny", "tiny_ar")
        for key, _ in config.leaves(config.load(f"configs/prior.py:{preset}"))
        if key.split(".")[0] in ("model", "vectors", "autoregressive", "sample")
        and key not in NOT_OF_A_PRIOR
    ],
)
def test_another_value_changes_what_a_prior_is_made_of(preset, key):
    value = dict(config.leaves(config.load(f"configs/prior.py:{preset}")))[key]
    changed = OF_A_PRIOR[key] if key in OF_A_PRIOR else other(key, value)
    assert changed != value
    assert prior(preset, key, changed) != prior(preset)


# Another value of the keys of a classifier, where the general rule gives one that is not allowed.
OF_A_CLASSIFIER = {
    "model.mults": (1, 2, 2),
    "model.attention_levels": (0,),
    "model.head_width": 4,
    "model.norm_groups": 8,
    "model.embedding_width": 8,
    "model.steps": 500,
    "model.remat": "full",
    "model.dtype": "bfloat16",
    "diffusion.schedule": "quadratic",
    "diffusion.logsnr_max": 10.0,
    "diffusion.discrete": True,
    "classes.num": 11,
    "classes.names": tuple("abcdefghij"),
    "classifying.min_crop": 0.5,
}
# What a key counts beside.
OF_A_CHAIN = {"schedule": "linear", "discrete": True, "num_levels": 1000}


@functools.cache
def classifier(key="", value=None):
    """What a run of a tiny classifier is made of that its own sections can change."""
    options = config.load("configs/adm_classifier.py:tiny").copy_and_resolve_references().unlock()
    if key == "model.steps" or (key.startswith("diffusion.") and "logsnr" not in key):
        options.diffusion.update(**OF_A_CHAIN)
    if key == "classes.num":
        options.classes.names = ()
    if value is not None:
        put(options, key, value)
    task = tasks.classifying_of(options)
    u = jnp.linspace(0.0, 1.0, 7)
    told = task.model.steps(task.schedule(u)).tolist() if task.model.steps else None
    model = repr(task.model.clone(steps=None))
    (reader,) = [one for one in columns.readers_of(options, None) if "min_crop" in one.keywords]
    said = (task.num_classes, task.names, task.schedule(u).tolist(), reader.keywords["min_crop"])
    return model, told, said


@pytest.mark.parametrize(
    "key",
    [
        key
        for key, _ in config.leaves(config.load("configs/adm_classifier.py:tiny"))
        if key.split(".")[0] in ("model", "diffusion", "classes", "classifying")
        and key != "model.kind"
    ],
)
def test_another_value_changes_what_a_classifier_is_made_of(key):
    value = dict(config.leaves(config.load("configs/adm_classifier.py:tiny")))[key]
    if key.startswith("diffusion."):
        value = OF_A_CHAIN.get(key.partition(".")[2], value)
    changed = OF_A_CLASSIFIER[key] if key in OF_A_CLASSIFIER else other(key, value)
    if key == "diffusion.discrete":
        changed = False
    assert classifier(key, changed) != classifier(key)


# Another value of the keys of a LoRA, and what a run is made of that shows it.
OF_A_LORA = {
    "lora.base": ("shipped", "refused"),  # another network
    "lora.checkpoint": ("0" * 64, "refused"),  # another base
    "lora.rank": (3, "task"),
    "lora.alpha": (5.0, "task"),
    "lora.targets": (("stem/kernel",), "task"),
    "lora.prior": ("fake/9", "records"),
    "lora.prior_share": (0.25, "records"),
    "lora.prior_weight": (0.5, "task"),
    "lora.prior_target": ("base", "task"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return lora_base.write(tmp_path_factory.mktemp("base") / "digits.safetensors")


@functools.cache
def changed_by_lora(base, key="", value=None):
    """What a run of a tiny LoRA is made of that its section can change."""
    options = config.load(f"configs/lora.py:tiny:{base}").copy_and_resolve_references().unlock()
    options.lora.prior = "fake/8"
    if key:
        put(options, key, value)
    records = reading.source_of(options)
    try:
        task = lora.adapted(options, tasks.task_of(options, 0))
    except ValueError:
        return {"refused": True, "task": None, "records": None}
    task = dataclasses.replace(task, frozen={})
    shares = [round(share, 6) for share in records.shares()]
    return {"refused": False, "task": repr(task), "records": (len(records), shares)}


@pytest.mark.parametrize(
    "key",
    [key for key, _ in config.leaves(config.load("configs/lora.py:tiny")) if key[:5] == "lora."],
)
def test_another_value_changes_what_a_lora_is_made_of(base, key):
    value, where = OF_A_LORA[key]
    assert changed_by_lora(base, key, value)[where] != changed_by_lora(base)[where]


# Another value of the keys of a student, and what it is made of that shows it.
OF_A_STUDENT = {
    "distil.teacher": ("shipped", "refused"),  # another network
    "distil.checkpoint": ("0" * 64, "refused"),  # another teacher
    "distil.teacher_steps": (8, "task"),
    "distil.guidance_weight": (5.0, "task"),
}


@functools.cache
def student(base, key="", value=None):
    """What a run of a student is made of that its section can change."""
    options = config.load(f"configs/distil.py:tiny:{base}").copy_and_resolve_references().unlock()
    if key:
        put(options, key, value)
    try:
        task = distilling.distilled(options, tasks.task_of(options, 0))
    except ValueError:
        return {"refused": True, "task": None}
    return {"refused": False, "task": repr(dataclasses.replace(task, frozen={}))}


@pytest.mark.parametrize(
    "key",
    [
        key
        for key, _ in config.leaves(config.load("configs/distil.py:tiny"))
        if key[:7] == "distil."
    ],
)
def test_another_value_changes_what_a_student_is_made_of(base, key):
    value, where = OF_A_STUDENT[key]
    assert student(base, key, value)[where] != student(base)[where]


@pytest.mark.parametrize(
    ("key", "value"), [("rehearsal.perceptual", "lite0"), ("rehearsal.perceptual_weight", 0.5)]
)
def test_another_value_changes_what_a_rehearsal_is_made_of(key, value, monkeypatch):
    monkeypatch.setattr(perceptual.lite0, "load", lambda: types.SimpleNamespace(params={}))

    def made(**changes):
        options = config.load("configs/rehearse.py:tiny").copy_and_resolve_references().unlock()
        for name, other in changes.items():
            put(options, name, other)
        task = rehearsing.rehearsed(options, tasks.task_of(options, 16))
        return repr(dataclasses.replace(task, frozen={}))

    assert made(**{key: value}) != made()


def test_presets_ask_the_drawings_for_no_field_that_they_do_not_have():
    """A column that a CLIP computes of the pictures is not read from the data set."""
    fields = {"image", "captions", "name", "style", "code", ""}
    for name, options in stages().items():
        if options.data.name.startswith("emoji/"):
            wanted = reading.wanted_of(options, options.data.split)
            asked = {wanted.image_key, wanted.caption_key, wanted.vector_key}
            assert asked <= fields, name


def test_the_keys_that_are_left_out_exist():
    assert set(ELSEWHERE) | set(OTHER) | set(WITH) | set(HOMES) <= homes().keys()


def test_each_stage_of_the_cascade_is_a_config_of_its_own():
    """`stages` names the parts, in their order, and each part is a stage's whole config."""
    (spec,) = cascades()
    for preset in config_module(config.shipped() / "cascade.py").PRESETS:
        whole = config.load(f"{spec}:{preset}")
        assert set(whole) == {"stages", *whole.stages}
        sizes = [whole[name].data.size_px for name in whole.stages]
        assert sizes == sorted(sizes)
        assert [whole[name].stage for name in whole.stages] == list(whole.stages)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_a_schedule_that_has_ends_has_those_of_the_config(encoder, name):
    """Each schedule that can be given ends is given them; the others are as they are."""
    ends = {"diffusion.logsnr_min": -7.0, "diffusion.logsnr_max": 5.0}
    made = noise.schedule_of(
        example(encoder, "base64:tiny", **{"diffusion.schedule": name}, **ends)
    )
    has_ends = {"logsnr_min", "logsnr_max"} <= set(
        inspect.signature(schedule.SCHEDULES[name]).parameters
    )
    plain = (-7.0, 5.0) if has_ends else tuple(schedule.SCHEDULES[name]()(jnp.array([1.0, 0.0])))
    np.testing.assert_allclose(made(jnp.array([1.0, 0.0])), plain, atol=1e-3)


def test_the_small_picture_keeps_its_own_schedule(encoder):
    """The noise on it is the cosine schedule's, whatever that of the picture is."""
    made = [
        tasks.task_of(example(encoder, "sr256:tiny", **{"diffusion.schedule": name}), 16)
        for name in ("cosine", "linear")
    ]
    u = jnp.linspace(0.0, 1.0, 5)
    want = schedule.cosine()(u)
    for task in made:
        np.testing.assert_array_equal(task.low_res.schedule(u), want)
    assert np.any(np.asarray(made[0].schedule(u)) != np.asarray(made[1].schedule(u)))


@pytest.mark.parametrize(
    ("name", "prompts"),
    [("base64:tiny", ("a frog", "a dog")), ("base64:tiny", ()), ("sr256:tiny", ("a frog",))],
)
def test_what_previews_show(encoder, name, prompts):
    """The config's prompts; pictures of the data without any, and for a stage that wants one."""
    options = example(encoder, name, **{"sample.prompts": prompts})
    records, said = reading.source_of(options), texts.encoder_of(options)
    embed = lambda caption: np.zeros((1, said.width), np.float32)  # noqa: E731
    shown = columns.shown_of(options, records, said, embed)
    base = name.startswith("base")
    assert ("image" in shown.batch) is not base
    spread = [records[i * len(records) // 2]["captions"][0] for i in range(2)]
    assert shown.captions == (prompts if base and prompts else tuple(spread))


@pytest.mark.parametrize(
    ("names", "sampled"), [(("power_0.1", "decay_0.5"), "power_0.1"), ((), "live")]
)
def test_the_first_average_is_the_one_that_is_sampled(encoder, names, sampled):
    options = example(encoder, "base64:tiny", **{"train.ema": names})
    assert training.sampled_average(options) == sampled
