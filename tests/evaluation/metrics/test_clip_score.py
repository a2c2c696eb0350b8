"""CLIP's score, R-precision and diversity, of vectors with known angles."""

import numpy as np
import pytest

from diffjax.evaluation.metrics.clip_score import clip_score, r_precision
from diffjax.evaluation.metrics.diversity import diversity
from tools.inputs.metric_features import features

VECTORS = features(seed=7)[0]
NAMES = [f"text {i}" for i in range(len(VECTORS))]


def test_the_score_is_a_hundred_times_the_cosine():
    image = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    text = np.array([[3.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(clip_score(image, text), [100, -100, 100 / np.sqrt(2)], rtol=1e-12)


def test_pictures_find_their_own_text_and_not_anothers():
    assert r_precision(VECTORS, VECTORS, NAMES, distractors=40).mean() == 1.0
    assert r_precision(VECTORS, -VECTORS, NAMES, distractors=40).mean() == 0.0


def test_vectors_that_say_nothing_find_what_chance_would():
    same = np.ones_like(VECTORS)
    np.testing.assert_allclose(r_precision(VECTORS, same, NAMES, distractors=9), 0.1)


def test_equal_texts_are_not_wrong_ones():
    text, names = np.concatenate([VECTORS[:4]] * 2), NAMES[:4] * 2
    image = np.concatenate([VECTORS[:4], VECTORS[:4]])
    assert r_precision(image, text, names, distractors=3).mean() == 1.0
    with pytest.raises(ValueError, match="distractors = 4: want 1 to 3, there are 4 different"):
        r_precision(image, text, names, distractors=4)


def test_rows_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="48 pictures and 47 texts"):
        clip_score(VECTORS, VECTORS[1:])
    with pytest.raises(ValueError, match="image: 6 features, text: 5"):
        clip_score(VECTORS, VECTORS[:, 1:])
    with pytest.raises(ValueError, match="text: row 1 is zero"):
        clip_score(VECTORS[:2], VECTORS[:2] * [[1.0], [0.0]])


def test_diversity_is_the_mean_cosine_distance_of_pairs():
    rows = VECTORS.reshape(12, 4, -1)
    lengths = np.sqrt(np.sum(rows**2, axis=-1))
    want = [
        np.mean([1 - p[i] @ p[j] / (n[i] * n[j]) for i in range(4) for j in range(i)])
        for p, n in zip(rows, lengths, strict=True)
    ]
    np.testing.assert_allclose(diversity(rows), want, rtol=1e-12)
    same = np.repeat(VECTORS[:2, None], 3, axis=1)
    np.testing.assert_allclose(diversity(same), 0.0, atol=1e-14)
    with pytest.raises(ValueError, match="12 prompts with 1 seeds"):
        diversity(rows[:, :1])
