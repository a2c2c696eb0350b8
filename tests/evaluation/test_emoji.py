"""What counts as right of drawn emoji, and the network that tells them apart."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.errors import StorageError
from diffjax.evaluation import classifier, emoji, retrieval
from diffjax.evaluation.drawings import Drawings, chosen
from diffjax.generation.chain import TrainedStage
from diffjax.tasks.conditions import Embedding, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.vectors import IMAGE_VECTOR
from tests import tiny_cascade

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
EVERY = Drawings(
    IMAGES, ["apple", "apple", "pear", "plum", "fig", "kiwi"], list("abcdef"),
    ["train", "test", "train", "train", "style", "train"], list("uvwxyz"),
)  # fmt: skip


def test_the_chosen_drawings_of_a_split_are_those_of_the_smallest_hashes():
    found = chosen(EVERY, "train", 3)
    digests = {i: hashlib.sha256(EVERY.captions[i].encode()).hexdigest() for i in (0, 2, 3, 5)}
    assert found == sorted(digests, key=digests.__getitem__)[:3]
    assert chosen(EVERY, "style", 9) == [4]


def test_a_drawing_is_right_where_it_is_nearest_and_its_name_in_either_style():
    spaces = {"pixels": retrieval.small_pixels}
    judge = emoji.Judge(EVERY, spaces, {"pixels": retrieval.small_pixels(IMAGES)})
    found = emoji.scores(judge, [0, 2, 3, 4], IMAGES[[1, 2, 3, 5]])["pixels"]
    assert found["right"]["share"] == 0.5
    assert found["name"]["share"] == 0.75
    assert found["first_five"]["of"] == 4
    low, high = retrieval.interval(2, 4)
    assert (found["right"]["low"], found["right"]["high"]) == (low, high)


def test_prompts_are_the_first_captions_but_those_without_a_style_the_last(monkeypatch, tmp_path):
    asked = {}

    def draw(stage, encoder, captions, seed, title, tell):
        asked[title] = "".join(captions)
        return IMAGES[: len(captions)]

    monkeypatch.setattr(emoji, "draw", draw)
    every = dataclasses.replace(
        EVERY, splits=["train", "test", "style", "compositional", "test", "train"]
    )
    stage = TrainedStage(
        Denoising("base", tiny_cascade.Told(lambda **_: None), (4, 4, 3)), {}, SampleSettings()
    )
    encoder = tiny_cascade.cascade(tmp_path).text_encoder()
    found = emoji.sets(stage, encoder, emoji.Judge(every, {}, {}), most=2)
    assert found.keys() == asked.keys() == emoji.SETS.keys()
    train = chosen(every, "train", 2)
    assert asked["seen"] == "".join("abcdef"[i] for i in train)
    assert asked["plain"] == "".join("uvwxyz"[i] for i in train)
    assert asked["style"] == "c"


def test_a_decoder_draws_what_it_is_told_of_each_caption(tmp_path):
    """Its picture is its vector, as a colour; the pictures of the blank captions are left out."""
    encoder = tiny_cascade.cascade(tmp_path).text_encoder()
    answer = lambda x_t, logsnr_t, text, text_mask, vector: vector[:, None, None] + 0 * x_t  # noqa: E731
    conditions = (Text(16, 16), Embedding(IMAGE_VECTOR, 3))
    task = Denoising("decoder", tiny_cascade.Told(answer), (4, 4, 3), conditions, predict="x_0")
    settings = SampleSettings(num_steps=2, guidance_weight=1.0, threshold="static")
    red = {"a": -0.6, "c": 0.2, "d": 1.0, "": 0.0}

    def tell(jobs, seeds):
        assert seeds.shape == (emoji.BATCH,)
        return jnp.array([[red[job.prompt], 0.0, -1.0] for job in jobs])

    stage = TrainedStage(task, {}, settings)
    made = emoji.draw(stage, encoder, ["a", "c", "d"], 0, "test", tell)
    assert made[:, 1, 2].tolist() == [[51, 128, 0], [153, 128, 0], [255, 128, 0]]


def test_a_classifier_is_trained_where_there_is_none_and_read_where_there_is(
    tmp_path, monkeypatch, capsys
):
    shapes = jax.eval_shape(
        classifier.Features().init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)
    )
    params = jax.tree.map(lambda one: np.full(one.shape, 0.5, one.dtype), shapes["params"])
    trained = []

    def train(images, *, num_steps):
        trained.append(num_steps)
        return params

    monkeypatch.setattr(classifier, "train", train)
    monkeypatch.setattr(classifier, "found_again", lambda params, images: 0.5)
    path = tmp_path / "deep" / "classifier.safetensors"
    first, again = (classifier.trained_at(path, IMAGES, 3) for _ in range(2))
    assert trained == [3]
    assert "of disturbed drawings found" in capsys.readouterr().out
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StorageError, match="delete it, and it is trained anew"):
        classifier.load(path)
    classifier.save(path, {"conv_0": {"kernel": np.zeros(3)}})
    with pytest.raises(StorageError, match="another network"):
        classifier.load(path)
