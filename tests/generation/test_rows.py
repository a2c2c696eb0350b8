import dataclasses
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from diffjax.generation import rows
from diffjax.generation.jobs import Job
from diffjax.tasks import sampling
from diffjax.tasks.conditions import Text
from tests import tiny_cascade

JOBS = [
    Job(prompt, seed) for prompt in ("a red apple", "", "x" * 5000, "🍏\0/..") for seed in (0, 5)
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def pictures(trained):
    return list(rows.make(trained, JOBS))


def test_every_job_gets_a_picture_of_every_stage(pictures):
    assert len(pictures) == len(JOBS)
    for row in pictures:
        assert [(one.shape, one.dtype) for one in row] == [
            ((8, 8, 3), "uint8"),
            ((16, 16, 3), "uint8"),
        ]
    apple, again = pictures[0][-1], pictures[1][-1]
    assert (apple != again).mean() > 0.9
    assert len(np.unique(apple)) > 50  # nothing is hidden by saturation


def test_on_a_cpu_a_picture_does_not_depend_on_its_batch(trained, pictures):
    """Order, neighbours and count: not one bit; and it is one program that makes them all."""
    small = sampling.compiled(sampling.sample, trained.stages[0].settings)
    before = small._cache_size()
    for order in ([3], [5, 3, 0], list(reversed(range(len(JOBS))))):
        made = rows.make(trained, [JOBS[i] for i in order])
        for i, row in zip(order, made, strict=True):
            for one, other in zip(row, pictures[i], strict=True):
                np.testing.assert_array_equal(one, other)
    assert small._cache_size() == before


def test_a_full_batch_gives_the_same_pictures_to_one_level(trained, pictures, monkeypatch):
    monkeypatch.setattr(rows, "rows_per_call", lambda: 3)
    for row, alone in zip(rows.make(trained, JOBS), pictures, strict=True):
        for one, other in zip(row, alone, strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1


def test_a_negative_prompt_takes_the_place_of_no_prompt(trained, pictures):
    """Guided away from the prompt itself, the weight no longer matters: w c + (1 - w) c = c."""
    itself = [dataclasses.replace(job, negative=job.prompt) for job in JOBS[:2]]
    plain = [dataclasses.replace(stage.settings, guidance_weight=1.0) for stage in trained.stages]
    unguided = list(rows.make(trained.with_settings(plain), JOBS[:2]))
    for row, same, guided in zip(rows.make(trained, itself), unguided, pictures, strict=False):
        assert np.abs(row[0].astype(int) - same[0]).max() <= 1
        assert np.abs(row[0].astype(int) - guided[0]).max() > 1


def test_a_call_has_a_negative_prompt_for_all_or_for_none(trained):
    embed = lambda prompt: rows.embedded(trained.encoder, [prompt])  # noqa: E731
    with pytest.raises(ValueError, match="1 of 2 jobs have a negative prompt"):
        rows.inputs_of([Job("a", 0, "b"), Job("a", 1)], embed)


@pytest.mark.parametrize(("devices", "rows_"), [(1, 8), (3, 9), (8, 8), (12, 12)])
def test_an_accelerator_takes_full_batches_in_equal_shares(devices, rows_, monkeypatch):
    """At least BATCH rows, and as many on each device."""
    here = [SimpleNamespace(platform="tpu")] * devices
    monkeypatch.setattr(rows, "sampling_devices", lambda: here)
    assert rows.rows_per_call() == rows_
    assert [len(padded) for padded, _ in rows.in_calls(range(20))] == [rows_] * -(-20 // rows_)


def test_embeddings_of_prompts_are_rounded_as_those_that_stages_are_trained_on(trained):
    prompts = ["a red apple", "x"]
    text, mask = rows.embedded(trained.encoder, prompts)
    exact, exact_mask = trained.encoder.encode(prompts, trained.encoder.max_length)
    np.testing.assert_array_equal(text, np.asarray(exact).astype(ml_dtypes.bfloat16))
    assert (np.asarray(text) != np.asarray(exact)).any()
    np.testing.assert_array_equal(mask, exact_mask)


def test_a_call_has_as_many_further_prompts_and_a_class_for_all_or_for_none(trained):
    embed = rows.embedder(trained)
    with pytest.raises(ValueError, match=r"jobs of \[0, 1\] further prompts"):
        rows.inputs_of([Job("a", 0, also=(("b", 1.0),)), Job("a", 1)], embed)
    with pytest.raises(ValueError, match="1 of 2 jobs have a class"):
        rows.inputs_of([Job("a", 0, label=3), Job("a", 1)], embed)
    columns, _ = rows.inputs_of([Job("a", 0, also=(("b", 0.5),), label=3)], embed)
    np.testing.assert_array_equal(columns["also_0_share"], [0.5])
    np.testing.assert_array_equal(columns["label"], [3])


def test_a_blank_prompt_is_the_null_text_and_is_not_encoded(trained):
    (want,) = [one for one in trained.conditions if isinstance(one, Text)][:1]
    broken = dataclasses.replace(trained.encoder, load=lambda: pytest.fail("it was encoded"))
    for prompt in ("", " \n"):
        text, mask = rows.embedded(broken, [prompt])
        np.testing.assert_array_equal(text, want.nothing(1)["text"])
        np.testing.assert_array_equal(mask, want.nothing(1)["text_mask"])
