"""Candidates of a picture: which there are, which is kept, and how it is scored."""

import numpy as np
import pytest

from diffjax.encoders.clip import encoder
from diffjax.generation import best
from diffjax.generation.jobs import Job
from tests.encoders.clip import small


def grey(value):
    return np.full((16, 16, 3), value, np.uint8)


def test_candidates_are_the_asked_seed_and_others_that_are_its_functions():
    seeds = best.seeds_of(7, 50)
    assert seeds[0] == 7
    assert len(set(seeds)) == 50
    assert best.seeds_of(7, 3) == seeds[:3]  # more candidates change none of the first
    assert not set(seeds[1:]) & set(best.seeds_of(8, 50))
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_highest_score_is_kept_and_of_equal_ones_the_first():
    jobs = best.candidates_of(Job("x", 0), 4)
    judge = best.Best(4, "c" * 64, lambda prompt, picture: float(picture[0, 0, 0]) / 255)
    made = iter([[grey(9), grey(one)] for one in (10, 51, 20, 51)])
    job, score, pictures = best.pick(judge, jobs, made)
    assert (job, score) == (jobs[1], 0.2)
    assert pictures[0][0, 0, 0] == 9
    assert next(made, None) is None


def test_no_more_than_two_candidates_are_in_memory():
    class Picture(list):
        alive = 0

        def __init__(self):
            Picture.alive += 1
            most.append(Picture.alive)
            super().__init__([grey(0)])

        def __del__(self):
            Picture.alive -= 1

    most: list[int] = []
    made = (Picture() for _ in range(20))
    judge = best.Best(20, "c" * 64, lambda prompt, picture: 0.5)
    best.pick(judge, best.candidates_of(Job("x", 0), 20), made)
    assert max(most) <= 3  # the best, the last one, and the one that is being made


def test_a_score_is_the_cosine_of_the_clips_vectors(tmp_path):
    clip = encoder.load(small.write(tmp_path))
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    image, text = clip.of_pictures(picture[None])[0], clip.of_captions(["a red apple"])[0]
    score = best.scorer(clip)
    assert score("a red apple", picture) == pytest.approx(float(image @ text), abs=1e-5)
    assert score("a red apple", picture) == score("a red apple", picture)
