import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from diffjax.core.errors import InputError
from diffjax.evaluation.judging import page, tally
from diffjax.evaluation.judging.tally import Answers, Key, Question
from tests.evaluation.judging import made

PAGE = "a" * 64
QUESTIONS = (
    Question("x", "y", "Colors", 0),
    Question("y", "x", "Colors", 1),
    Question("y", "x", "Text", 2),
    Question("x", "y", "Text", 3),
)
KEY = Key(PAGE, ("x", "y"), QUESTIONS)


def tallied(key, files):
    return dataclasses.asdict(tally.tally(key, files))


def given(judge, *sides):
    said = {at: side for at, side in enumerate(sides) if side}
    return Answers(f"{judge}.json", PAGE, f"{judge:032x}", said)


def test_wins_are_those_of_the_system_on_whichever_side_it_was():
    found = tallied(KEY, [given(0, "left", "right", "left", "tie")])
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"]) == ("x", "y")
    rows = pair["by_category"]
    counts = {name: (one["wins"], one["ties"], one["losses"]) for name, one in rows.items()}
    assert counts == {"all": (2, 1, 1), "Colors": (2, 0, 0), "Text": (0, 1, 1)}
    assert [rows[name]["win_rate"] for name in rows] == [0.625, 1.0, 0.25]
    assert (rows["Colors"]["low"], rows["Colors"]["high"]) == (1.0, 1.0)


def test_a_category_and_a_pair_without_answers_have_no_numbers():
    found = tallied(KEY, [given(0, "left")])
    assert set(found["pairs"][0]["by_category"]) == {"all", "Colors"}
    more = Key(PAGE, ("x", "y", "z"), QUESTIONS)
    assert [set(one["by_category"]) for one in tallied(more, [given(0, "left")])["pairs"]] == [
        {"all", "Colors"}, set(), set(),
    ]  # fmt: skip


@pytest.mark.parametrize(("questions", "wins"), [(40, 26), (200, 100), (200, 190)])
def test_the_interval_of_one_judge_is_that_of_the_binomial(questions, wins):
    """Drawing n of n answers with replacement, of which w are wins: wins are Binomial(n, w / n)."""
    points = [[1.0]] * wins + [[0.0]] * (questions - wins)
    low, high = tally.interval(points)
    exact = stats.binom.ppf([0.025, 0.975], questions, wins / questions) / questions
    np.testing.assert_allclose([low, high], exact, atol=1.01 / questions)


def test_judges_who_say_the_same_do_not_narrow_the_interval():
    one = [[1.0], [0.0], [0.5], [1.0], [1.0], [0.0]]
    assert tally.interval(one) == tally.interval([[x, x, x] for [x] in one])


def test_the_interval_is_a_function_of_the_seed():
    points = [[float(i % 3 == 0)] for i in range(37)]
    assert tally.interval(points, 1) == tally.interval(points, 1)
    means = [
        tally.resampled(np.arange(9.0), np.ones(9), np.random.default_rng(seed)) for seed in (0, 1)
    ]
    assert (means[0] != means[1]).any()
    assert means[0].std() == pytest.approx(np.arange(9.0).std() / 3, rel=0.05)  # sigma / sqrt(n)


def test_alpha_is_that_of_the_known_example():
    """Three coders, fifteen units, 0.691: the example of Wikipedia's Krippendorff's alpha."""
    coders = ["*****34121133*3", "1*213343*******", "**21344*21133*4"]
    units = [[one[i] for one in coders if one[i] != "*"] for i in range(15)]
    assert tally.agreement(units).alpha == pytest.approx(0.691, abs=5e-4)


def test_judges_who_agree_by_chance_have_alpha_zero_and_those_who_always_agree_one():
    draw = np.random.default_rng(0)
    random = [list(row) for row in draw.choice(["left", "right"], (4000, 3))]
    found = tally.agreement(random)
    assert found.share == pytest.approx(0.5, abs=0.02)
    assert found.alpha == pytest.approx(0.0, abs=0.04)
    assert tally.agreement([["left", "left"], ["tie", "tie"]]).alpha == pytest.approx(1.0)
    assert tally.agreement([["left", "left"]]) == tally.Agreement(1, 1.0, None)
    assert tally.agreement([["left"], []]) == tally.Agreement(0, None, None)


def test_answers_of_another_page_or_of_one_person_twice_are_refused():
    other = given(1, "left")._replace(page="b" * 64)
    with pytest.raises(InputError, match=r"1.json: is of page bbbbbbbbbbbb, and 0.json of aaaa"):
        tally.tally(KEY, [given(0, "left"), other])
    twice = given(0, "right")._replace(path="again.json")
    with pytest.raises(InputError, match=r"again.json: is of the same person as 0.json"):
        tally.tally(KEY, [given(0, "left"), twice])
    with pytest.raises(InputError, match="answers question 4, which there is not"):
        tally.tally(KEY, [given(0, "left", "", "", "", "left")])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("[]", "holds a JSON list"),
        ("{}", "want format, page, judge and answers"),
        ({"format": 2}, "want format"),
        ({"page": "a" * 63}, "want format"),
        ({"judge": "../x"}, "want format"),
        ({"answers": {}}, "holds no answers"),
        ({"answers": {"0": "up"}}, "want format"),
        ({"answers": {"-1": "left"}}, "want format"),
        ({"answers": {"00": "left"}}, "want format"),
        ({"answers": {"0": ["left"]}}, "want format"),
    ],
)
def test_a_file_that_is_no_answers_is_refused_in_one_line(content, words, tmp_path):
    whole = {"format": 1, "page": PAGE, "judge": "0" * 32, "answers": {"0": "left"}}
    text = json.dumps({**whole, **content}) if isinstance(content, dict) else content
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        tally.read_answers(tmp_path / "x.json")
    assert "\n" not in str(error.value)


def test_the_key_of_a_page_is_found_by_its_hash(tmp_path):
    folder = made.pictures(tmp_path / "judged")
    page.write(folder, tmp_path / "page")
    said = made.key_of(folder)
    key = tally.read_key(folder, said["page"])
    assert [list(one) for one in key.questions] == said["items"]
    with pytest.raises(InputError, match="has no page aaaaaaaaaaaa"):
        tally.read_key(folder, PAGE)
