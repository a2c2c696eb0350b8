"""From a config with a section lora to its task: the base, the targets, and what is refused."""

import re

import jax
import numpy as np
import pytest

from diffjax.build import check, tasks
from diffjax.build.inputs import reading
from diffjax.build.kinds import lora
from diffjax.build.options import config, resume
from diffjax.build.stages import bases, places
from diffjax.core import trees
from diffjax.core.errors import ConfigError, StorageError
from diffjax.tasks.lora import Adapted
from tests import lora_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return lora_base.write(tmp_path_factory.mktemp("base") / "digits.safetensors")


def options(base, **changes):
    made = config.load(f"configs/lora.py:tiny:{base}").copy_and_resolve_references().unlock()
    for key, value in changes.items():
        section, _, last = key.rpartition("__")
        (made[section] if section else made)[last] = value
    return made


def adapted(made):
    check.check(made)
    return lora.adapted(made, tasks.trained_task_of(made, 0))


def test_the_attention_of_the_base_is_changed_and_its_weights_are_frozen(base):
    made = options(base)
    task = adapted(made)
    assert isinstance(task, Adapted)
    wanted = [f"{block}/attention/{name}/kernel" for block in
              ("down_0_0", "middle_0", "up_0_0", "up_0_1") for name in ("out", "qkv")]  # fmt: skip
    assert sorted(task.targets) == wanted
    assert (task.rank, task.alpha, task.prior_weight) == (2, 2.0, None)
    whole = lora_base.params(lora_base.options())
    for ours, theirs in zip(*map(jax.tree.leaves, (task.frozen["base"], whole)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert task.whole == tasks.task_of(made, 0)
    plain = task.whole
    assert lora.adapted(lora_base.options(), plain) is plain


def test_the_digest_of_the_base_is_that_of_pictures_that_it_makes(base):
    from diffjax.build.stages import loading

    cascade = loading.load([base])
    assert adapted(options(base)).checkpoint == cascade.origins[0].checkpoint


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("lora__alpha", 6.0, lambda task: task.alpha),
        ("lora__rank", 3, lambda task: (task.rank, task.alpha)),
        ("lora__targets", ("head/conv/kernel",), lambda task: task.targets),
        ("lora__targets", ("attention", ".*/conv_0/kernel"), lambda task: task.targets),
        ("lora__prior", "digits", lambda task: task.prior_weight),
    ],
)
def test_a_key_changes_the_task(base, key, value, what):
    assert what(adapted(options(base, **{key: value}))) != what(adapted(options(base)))


def test_rows_of_the_prior_have_its_share_and_are_marked(base):
    from diffjax.build.inputs import columns
    from diffjax.data import pipeline

    records = reading.source_of(options(base, data__split="train[:6]", lora__prior="digits",
                                     lora__prior_share=0.25))  # fmt: skip
    assert records.shares() == pytest.approx([0.75, 0.25])
    some = options(base, lora__prior="digits", lora__prior_share=0.25)
    readers = columns.readers_of(some, None)
    batches = pipeline.train_iterator(records, readers, batch_size=40, seed=0, threads=0)
    assert np.sum(next(batches)["prior"]) == 10
    assert "prior" not in next(
        pipeline.train_iterator(
            records, columns.readers_of(options(base), None), batch_size=2, seed=0, threads=0
        )
    )


WRONG = {
    "lora__rank": (0, "lora.rank = 0: must be between 1 and 4096"),
    "lora__targets": (("attn",), "matches no kernel of digits; want attention or feed_forward, or"),
    "lora__base": ("/nowhere", "lora.base = '/nowhere'"),
    "lora__alpha": (-1.0, "lora.alpha"),
    "lora__prior_weight": (float("nan"), "lora.prior_weight"),
    "lora__prior_share": (1.0, "lora.prior_share"),
    "lora__prior_target": ("picture", "lora.prior_target"),
    "lora__checkpoint": ("0" * 64, "is another one than the run began with"),
    "model__width": (32, "model.width = 32: the base .* was trained with 16"),
    "diffusion__predict": ("eps", "diffusion.predict = 'eps': the base .* was trained with 'x_0'"),
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_one_line(base, key):
    value, words = WRONG[key]
    with pytest.raises(ConfigError, match=words) as caught:
        adapted(options(base, **{key: value}))
    assert "\n" not in str(caught.value)


def test_only_what_denoises_can_say_what_its_class_leads_to(base):
    other = config.load("configs/adm_classifier.py:tiny").copy_and_resolve_references()
    task = tasks.trained_task_of(other, 0)
    with pytest.raises(ConfigError, match=r"lora\.prior_target.*is none: want pictures"):
        lora.without_base(options(base, lora__prior_target="base"), task)


@pytest.mark.parametrize(
    ("targets", "words"), [((), "name some"), (("(",), "is no pattern"), ((".*bias",), "no kernel")]
)
def test_targets_that_are_no_targets_are_refused(base, targets, words):
    with pytest.raises(ConfigError, match=words):
        adapted(options(base, lora__targets=targets))


def test_a_base_of_numbers_that_are_not_finite_is_refused(tmp_path):
    path = lora_base.write(tmp_path / "nan.safetensors", change=lambda tree: jax.tree.map(
        lambda x: x * np.float32("nan"), tree))  # fmt: skip
    with pytest.raises(StorageError, match="holds NaN or infinity"):
        adapted(options(path))


def test_a_base_that_changed_since_the_run_began_is_refused(base, tmp_path):
    made = options(base)
    config.save(bases.with_checkpoint(made, "lora", "1" * 64), tmp_path / "config.json")
    begun = bases.as_begun(made, tmp_path)
    assert begun.lora.checkpoint == "1" * 64
    with pytest.raises(ConfigError, match="bring it back, or begin in a new workdir"):
        adapted(begun)
    assert bases.as_begun(made, tmp_path / "new").lora.checkpoint == ""


def test_a_run_cannot_go_on_with_another_rank_but_with_its_base_elsewhere(base, tmp_path):
    config.save(options(base), tmp_path / "config.json")
    with pytest.raises(ConfigError, match=r"lora\.rank"):
        resume.allowed_changes(options(base, lora__rank=4), tmp_path)
    (change,) = resume.allowed_changes(options(base, lora__base="elsewhere"), tmp_path)
    assert change.key == "lora.base"


# Paths of the networks that there are, by the word that is to match them.
PATHS = {
    "attention": [
        "down_1_0/attention/qkv/kernel", "down_1_0/attention/text_kv/kernel",
        "middle_0/attention/out/kernel", "block_0_on/attention/qkv/kernel",
        "down_0_0/attention/block_0/self/qkv/kernel", "up_0_1/attention/block_0/cross/out/kernel",
        "block_3/cross/q/kernel",
    ],
    "feed_forward": [
        "block_0/feed_forward/in/kernel", "down_0_0/attention/block_0/feed/dense_0/kernel",
        "text/block_0/mlp/dense_1/kernel",
    ],
    "": ["stem/kernel", "down_0_0/res/conv_0/kernel", "conditioning/text_in/kernel",
         "down_0_0/attention/proj_in/kernel", "down_0_0/attention/proj_out/kernel",
         "head/conv/kernel", "down_1_0/attention/norm/scale"],
}  # fmt: skip


@pytest.mark.parametrize("path", [path for paths in PATHS.values() for path in paths])
def test_words_stand_for_the_kernels_that_they_name(path):
    named = [word for word, pattern in lora.TARGETS.items() if re.fullmatch(pattern, path)]
    assert named == [word for word, paths in PATHS.items() if word and path in paths]


def test_the_shipped_cascade_is_a_base():
    made = config.load("configs/lora.py:dreambooth")
    assert (made.stage, made.lora.base) == ("base64", "shipped")
    check.check(made)
    place = bases.place_of(made, lora.BASE)
    bases.check_same(made, places.options_of(place), place)
    assert trees.num_values(lora_base.params(lora_base.options())) > 0
