"""Counts the answers of several people: how often each system wins, and how much judges agree."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffjax.core.errors import InputError
from diffjax.core.files import parse_json_object, read_json
from diffjax.core.tables import align_columns
from diffjax.evaluation.judging.collection import PAGES

SIDES = ("left", "right", "tie")
TIE = "tie"
ALL = "all"
RESAMPLES = 10_000
MAX_FILE_BYTES = 1 << 24
HASH, JUDGE, NUMBER = "[0-9a-f]{64}", "[0-9a-f]{32}", r"0|[1-9]\d{0,8}"


class Question(NamedTuple):
    """The systems on both sides of a question, the category of its prompt, and its number."""

    left: str
    right: str
    category: str
    prompt: int


class Key(NamedTuple):
    """What a page does not say: which systems its questions compare."""

    page: str
    systems: tuple[str, ...]
    questions: tuple[Question, ...]


class Answers(NamedTuple):
    """A person's answers: the number of a question -> "left", "right" or "tie"."""

    path: Path
    page: str
    judge: str
    sides: Mapping[int, str]


@dataclasses.dataclass(frozen=True)
class Share:
    """How often the first system of a pair won, lost and neither.

    win_rate: (wins + ties / 2) / answers. low, high: its 95 % interval over questions.
    """

    questions: int
    answers: int
    wins: int
    ties: int
    losses: int
    win_rate: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two systems, and the shares of the first by category; ALL is all categories together."""

    first: str
    second: str
    by_category: Mapping[str, Share]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How much judges agree on the `questions` that two or more of them answered.

    share: of pairs of judges who gave the same answer. alpha: 1 for judges who always agree, 0 for
    those who agree by chance. None: not defined, as no question has two answers or all are equal.
    """

    questions: int
    share: float | None
    alpha: float | None


@dataclasses.dataclass(frozen=True)
class Tally:
    """All numbers of a page, and what they depend on."""

    page: str
    judges: int
    questions: int
    answers: int
    seed: int
    pairs: tuple[Pair, ...]
    agreement: Agreement
    resamples: int = RESAMPLES
    format: int = 1


def read_answers(path: Path) -> Answers:
    """A file that a page saved. It may come from anybody, so every field is checked.

    Raises:
      InputError: it is no such file.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"has more than {MAX_FILE_BYTES} bytes")
        said = parse_json_object(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: not answers of a page: {error}") from None
    page, judge, found = said.get("page"), said.get("judge"), said.get("answers")
    sides = found if isinstance(found, dict) else {"": ""}
    right = said.get("format") == 1 and _word(page, HASH) and _word(judge, JUDGE)
    if not right or not all(_word(at, NUMBER) and side in SIDES for at, side in sides.items()):
        raise InputError(f"{path}: not answers of a page: want format, page, judge and answers")
    if not sides:
        raise InputError(f"{path}: holds no answers")
    return Answers(path, str(page), str(judge), {int(at): str(side) for at, side in sides.items()})


def read_key(folder: Path, page: str) -> Key:
    """The key of a page of a collection.

    Raises:
      InputError: there is no such page, or its key is damaged.
      StorageError: it cannot be read.
    """
    path = folder / PAGES / f"{page}.json"
    remedy = "write the page anew with the same flags"
    try:
        said = read_json(path, remedy)
    except FileNotFoundError:
        raise InputError(f"{folder}: has no page {page[:12]}, which the answers are of") from None
    items, systems = said.get("items"), said.get("systems")
    questions = []
    for one in items if isinstance(items, list) else [None]:
        match one:
            case [str(left), str(right), str(category), int(prompt)]:
                questions.append(Question(left, right, category, prompt))
            case _:
                raise InputError(f"{path}: damaged; {remedy}")
    if not isinstance(systems, list) or said.get("page") != page:
        raise InputError(f"{path}: damaged; {remedy}")
    return Key(page, tuple(map(str, systems)), tuple(questions))


def check(key: Key, files: Sequence[Answers]) -> None:
    """Checks that all answers are of one page, and that no person's are given twice.

    Raises:
      InputError: they are not; names the file.
    """
    seen: dict[str, Path] = {}
    for one in files:
        if one.page != key.page:
            raise InputError(
                f"{one.path}: is of page {one.page[:12]}, and {files[0].path} of {key.page[:12]}"
            )
        if one.judge in seen:
            raise InputError(
                f"{one.path}: is of the same person as {seen[one.judge]}; give the later one alone"
            )
        seen[one.judge] = one.path
        beyond = max(one.sides) >= len(key.questions)
        if beyond:
            raise InputError(f"{one.path}: answers question {max(one.sides)}, which there is not")


def tally(key: Key, files: Sequence[Answers], seed: int = 0) -> Tally:
    """The shares of wins of each pair of systems, by category and in all, and the agreement.

    Raises:
      InputError: see `check`.
    """
    check(key, files)
    answers = [[one.sides.get(at, "") for one in files] for at in range(len(key.questions))]
    categories = (ALL, *sorted({one.category for one in key.questions}))
    pairs = []
    for first, second in itertools.combinations(key.systems, 2):
        rows = {}
        for category in categories:
            points = [
                _points(one, sides, first)
                for one, sides in zip(key.questions, answers, strict=True)
                if {first, second} == {one.left, one.right} and category in (ALL, one.category)
            ]
            if any(points):
                rows[category] = counted([one for one in points if one], seed)
        pairs.append(Pair(first, second, rows))
    return Tally(
        page=key.page,
        judges=len(files),
        questions=len(key.questions),
        answers=sum(len(one.sides) for one in files),
        seed=seed,
        pairs=tuple(pairs),
        agreement=agreement([[side for side in row if side] for row in answers]),
    )


def _points(question: Question, sides: Sequence[str], first: str) -> list[float]:
    """For each answer 1 if `first` won, 0.5 for a tie, else 0."""
    won = "left" if question.left == first else "right"
    return [0.5 if side == TIE else float(side == won) for side in sides if side]


def counted(points: Sequence[Sequence[float]], seed: int = 0) -> Share:
    """The share of the first system: `points` are those of each answer, question by question."""
    every = np.concatenate([np.asarray(one, np.float64) for one in points])
    low, high = interval(points, seed)
    return Share(
        questions=len(points),
        answers=len(every),
        wins=int(np.sum(every == 1)),
        ties=int(np.sum(every == 0.5)),
        losses=int(np.sum(every == 0)),
        win_rate=float(every.mean()),
        low=low,
        high=high,
    )


def interval(points: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of the mean over questions drawn with replacement (Efron 1979).

    All answers to a question are drawn together, since judges who see the same pictures agree.
    """
    sums = np.array([sum(one) for one in points], np.float64)
    counts = np.array([len(one) for one in points], np.float64)
    means = resampled(sums, counts, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def resampled(
    sums: Float[np.ndarray, " n"], counts: Float[np.ndarray, " n"], draw: np.random.Generator
) -> Float[np.ndarray, " r"]:
    """RESAMPLES means of n questions drawn with replacement, a thousand at a time."""
    n, means = len(sums), []
    for _ in range(RESAMPLES // 1000):
        times = draw.multinomial(n, np.full(n, 1 / n), size=1000)
        means.append((times @ sums) / (times @ counts))
    return np.concatenate(means)


def agreement(answers: Sequence[Sequence[str]]) -> Agreement:
    """alpha = 1 - observed / expected disagreement  (Krippendorff 2011, nominal data)."""
    shared = [one for one in answers if len(one) > 1]
    if not shared:
        return Agreement(0, None, None)
    values = sorted({side for one in shared for side in one})
    counts = np.array([[list(one).count(value) for value in values] for one in shared], np.float64)
    judges, totals = counts.sum(axis=1), counts.sum(axis=0)
    equal = (counts * (counts - 1)).sum(axis=1)
    share = equal.sum() / (judges * (judges - 1)).sum()
    total = judges.sum()
    observed = 1 - (equal / (judges - 1)).sum() / total
    expected = 1 - (totals * (totals - 1)).sum() / (total * (total - 1))
    alpha = float(1 - observed / expected) if expected > 0 else None
    return Agreement(len(shared), float(share), alpha)


def table(found: Tally) -> list[str]:
    """The numbers as lines of text."""
    lines = []
    for pair in found.pairs:
        rows = [(f"{pair.first} against {pair.second}", "win rate", "95 %", "answers")]
        for category, one in pair.by_category.items():
            span = f"{one.low:.3f} to {one.high:.3f}"
            rows.append((category, f"{one.win_rate:.3f}", span, str(one.answers)))
        lines += [*align_columns(rows), ""]
    agreed = found.agreement
    if agreed.share is not None:
        alpha = "" if agreed.alpha is None else f", Krippendorff's alpha {agreed.alpha:.3f}"
        lines.append(
            f"{found.judges} judges; on {agreed.questions} questions of several judges "
            f"{100 * agreed.share:.0f} % of pairs agree{alpha}"
        )
    return lines


def _word(value: object, pattern: str) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None
