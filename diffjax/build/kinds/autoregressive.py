"""Makes the task of an autoregressive prior from its config, and measures its basis."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax.build.inputs import texts, vectors
from diffjax.build.models import DTYPES, check_heads
from diffjax.build.options import resume
from diffjax.checkpoint.portable import FROZEN, FROZEN_PREFIX, frozen_of
from diffjax.core import tensorfile
from diffjax.core.errors import ConfigError, require
from diffjax.core.trees import Params
from diffjax.data.readers import Embed
from diffjax.data.record import RecordSource, captions_at, clean
from diffjax.encoders import principal
from diffjax.encoders.clip.vectors import WithVectors
from diffjax.models.layers.level import KEPT
from diffjax.models.prior_ar import AutoregressivePrior as Network
from diffjax.tasks.autoregressive_prior import AutoregressivePrior
from diffjax.tasks.buckets import BASIS, REACH, Buckets
from diffjax.tasks.conditions import Text
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.vectors import TextVector

# The section by which such a config is known, and the key of the file with its basis.
SECTION, KEY = "autoregressive", "autoregressive.basis"
CHOICES: Mapping[str, Iterable[str]] = {
    "model.kind": ("prior_ar",),
    "model.remat": ("none", *KEPT),
}
PREFIX = f"{FROZEN_PREFIX}{BASIS}/"
# The most vectors that a basis is measured on.
MEASURED = 50_000


def is_one(config: ConfigDict) -> bool:
    """Whether the config trains an autoregressive prior."""
    return SECTION in config


def task_of(config: ConfigDict) -> AutoregressivePrior:
    """The task; without a file of its basis the frozen weights are shapes, which do for plans.

    Raises:
      ConfigError: the file is of another basis, or damaged.
    """
    model, width = config.model, config.vectors.width
    buckets = buckets_of(config)
    network = Network(
        width=model.width,
        num_blocks=model.num_blocks,
        num_heads=model.num_heads,
        length=config.text.max_tokens,
        components=buckets.components,
        buckets=buckets.count,
        dots=buckets.dots,
        remat=model.remat,
        dtype=DTYPES[model.dtype],
    )
    return AutoregressivePrior(
        name=config.stage,
        model=network,  # type: ignore[arg-type]
        text=Text(texts.text_width_of(config), config.text.max_tokens, config.text.drop),
        vector=TextVector(width),
        buckets=buckets,
        settings=SampleSettings(guidance_weight=config.sample.guidance_weight),
        best_of=config.sample.get("best_of", 1),
        frozen={BASIS: basis_of(config)},
    )


def buckets_of(config: ConfigDict) -> Buckets:
    """The numbers of components, of their buckets, and of those of products."""
    own = config.autoregressive
    return Buckets(own.components, own.buckets, own.dots)


def basis_of(config: ConfigDict) -> Params:
    """The basis in the file that the config names, or its shapes if it names none.

    Raises:
      ConfigError: the file is of another basis, or damaged.
    """
    own, like = config.autoregressive, buckets_of(config).shapes(config.vectors.width)
    if not own.basis:
        return like
    try:
        found = {name: tensorfile.read(Path(own.basis), f"{PREFIX}{name}") for name in like}
    except (ValueError, OSError, KeyError) as error:
        said = str(error).splitlines()[0]
        raise ConfigError(KEY, own.basis, f"holds no basis: {said}; bring back a copy") from None
    for name, array in found.items():
        fits = array.shape == like[name].shape and bool(np.isfinite(array).all())
        require(fits, KEY, own.basis, f"{name} is {array.shape}, want {like[name].shape}")
    mark = mark_of(found)
    require(own.mark in ("", mark), KEY, own.basis,
            f"is another basis, {mark[:12]}, than the run began with, {own.mark[:12]}")  # fmt: skip
    return jax.tree.map(jnp.asarray, found)


def mark_of(basis: Mapping[str, np.ndarray]) -> str:
    """The sha256 of a basis."""
    digest = hashlib.sha256()
    for name in sorted(basis):
        digest.update(f"{name} {basis[name].shape} ".encode() + basis[name].tobytes())
    return digest.hexdigest()


def check(config: ConfigDict) -> None:
    """Checks what only such a config has.

    Raises:
      ConfigError: a value is not allowed.
    """
    vectors.check_sections(config)
    vectors.check(config)
    check_heads(config.model)
    components, width = config.autoregressive.components, config.vectors.width
    most = f"at most {width}, the vectors.width"
    require(components <= width, "autoregressive.components", components, most)
    weight = config.sample.guidance_weight
    require(0 <= weight <= 1000, "sample.guidance_weight", weight, "from 0 to 1000")


def begun(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config with the fingerprint of the basis that a run in the workdir began with, if any."""
    if SECTION not in config or config.autoregressive.mark:
        return config
    new = config.copy_and_resolve_references()
    with new.unlocked():
        new.autoregressive.mark = str(resume.begun(workdir).get("autoregressive.mark", ""))
    return new


def keep(config: ConfigDict, workdir: Path, measure: Callable[[], Params] | None) -> ConfigDict:
    """The config with the basis of a run. measure: makes it, to be written; None if it is there.

    Raises:
      ConfigError: that in the workdir is another one than the run began with.
      StorageError: the disk is full or fails.
    """
    file, new = workdir / FROZEN, config.copy_and_resolve_references()
    if measure is not None:
        made = measure()
        workdir.mkdir(parents=True, exist_ok=True)
        tensorfile.write(file, {f"{PREFIX}{name}": x for name, x in made.items()}, {BASIS: "1"})
    with new.unlocked():
        new.autoregressive.basis = str(file)
        found = {name: np.asarray(x) for name, x in basis_of(new).items()}
        new.autoregressive.mark = mark_of(found)
    return new


def placed(config: ConfigDict, place: Path) -> ConfigDict:
    """The config of a workdir, or of an exported file, with the basis that lies there."""
    copy = place if place.is_file() else place / FROZEN
    if SECTION not in config or not frozen_of(copy)[0]:
        return config
    new = config.copy_and_resolve_references()
    with new.unlocked():
        new.autoregressive.basis = str(copy)
    return new


def measured(config: ConfigDict, records: RecordSource, vector_of: Embed) -> Params:
    """The basis of the vectors of these records, and the products with their first captions.

    Raises:
      ConfigError: no picture can be read, or all vectors are equal.
    """
    own = config.autoregressive
    assert isinstance(records, WithVectors)
    rows = np.asarray(records.vectors(), np.float64)
    there = np.flatnonzero(rows.any(axis=1))
    there = there[np.arange(0, len(there), len(there) // MEASURED + 1)]
    require(len(there) > 1, "data.name", config.data.name, "has fewer than 2 pictures to measure")
    found = principal.fit(rows[there], own.components)
    total = float(rows[there].var(axis=0).sum())
    require(total > 0, "data.name", config.data.name, "has pictures whose vectors are all equal")
    share = float(found.variance.sum()) / total
    print(f"{own.components} components have {share:.1%} of the variance of {len(there)} vectors",
          flush=True)  # fmt: skip
    texts_of = [captions_at(records, int(i))[:1] for i in there]
    pairs = [(i, clean(text[0])) for i, text in zip(there, texts_of, strict=True) if text]
    dots = np.array([rows[i] @ np.asarray(vector_of(said))[0] for i, said in pairs if said])
    dots = dots if len(dots) else np.zeros(1)
    deviation = float(dots.std()) or 1.0
    width = own.dots / (2 * REACH)
    places = np.floor(((dots - dots.mean()) / deviation + REACH) * width)
    counts = np.bincount(np.clip(places, 0, own.dots - 1).astype(int), minlength=own.dots)
    # a component that never varies must not be divided by zero
    spread = np.maximum(np.sqrt(found.variance), 1e-6)
    made = {
        "mean": found.mean, "components": found.components, "deviation": spread,
        "dot_mean": dots.mean(), "dot_deviation": deviation, "dot_shares": counts / counts.sum(),
    }  # fmt: skip
    return {name: np.asarray(x, np.float32) for name, x in made.items()}
