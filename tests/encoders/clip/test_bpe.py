"""CLIP's tokenizer: the ids of open_clip's, and what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from diffjax.data.sources.tfds import open_source
from diffjax.encoders.clip import bpe, vocabulary
from diffjax.encoders.clip.cleaning import clean, repaired
from tests.encoders.strings import texts
from tools.ship.learn_bpe import learn

GOLDEN = Path(__file__).parents[2] / "golden"
LENGTH = 77


@pytest.fixture(scope="module")
def golden():
    return vocabulary.load(str(GOLDEN / "clip_merges.txt.gz"))


def strings():
    """The texts of tools/golden/clip.py, of which the golden file keeps some."""
    source = (Path(__file__).parents[3] / "tools/golden/clip.py").read_text()
    more = source.partition("MORE = ")[2].partition(")  # fmt")[0] + ")"
    return [*eval(more), *texts(1700)]  # a tuple of strings, without the peers' imports


def test_the_ids_of_a_thousand_texts_are_those_of_open_clip(golden):
    found, every = np.load(GOLDEN / "clip_tokens.npz"), strings()
    ours = np.stack([golden.padded(every[i], LENGTH) for i in found["kept"]])
    assert len(ours) == 1000
    np.testing.assert_array_equal(ours, found["ids"])


@pytest.mark.peers
def test_the_ids_with_all_of_openais_merges_are_those_of_open_clip():
    from tools.golden import clip as make_golden_clip
    from tools.peers import clip_peers

    theirs = clip_peers.open_clip().tokenizer
    ours = vocabulary.load(theirs.default_bpe())
    tokenizer = theirs.SimpleTokenizer()
    assert (ours.vocabulary, ours.end) == (tokenizer.vocab_size, tokenizer.eot_token_id)
    plain = [text for text in strings() if make_golden_clip.plain(text)]
    want = tokenizer(plain).numpy()
    np.testing.assert_array_equal([ours.padded(text, LENGTH) for text in plain], want)


@pytest.mark.peers
def test_texts_are_repaired_as_ftfy_repairs_them():
    import ftfy

    from tools.golden.clip import plain

    every = [text for text in strings() if plain(text)]
    assert [repaired(text) for text in every] == [ftfy.fix_text(text) for text in every]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("A  caf\u00e9 &amp;amp; more", "a caf\u00e9 & more"),
        ("\u201cx\u201d \u2018y\u2019", "\"x\" 'y'"),
        ("\uff21\u3000\ufb01", "a fi"),
        ("e\u0301\u200b", "\u00e9\u200b"),
        ("a\x00\x1b[31mb\r\nc", "ab c"),
    ],
)
def test_a_text_is_cleaned_as_the_original_cleans_it(text, want):
    assert clean(text) == want


def test_a_word_is_split_where_letters_digits_and_other_signs_meet():
    assert list(bpe.words("it's 12 dogs!!x")) == ["it", "'s", "1", "2", "dogs", "!!", "x"]


def test_a_text_begins_and_ends_with_its_marks_and_is_cut_before_the_end(golden):
    ids = golden.ids("a red apple", LENGTH)
    assert (ids[0], ids[-1]) == (golden.end - 1, golden.end)
    assert golden.end == golden.vocabulary - 1 == max(ids)
    before = golden.cut.captions
    cut = golden.ids("a red apple " * 50, 10)
    assert (len(cut), cut[0], cut[-1]) == (10, ids[0], golden.end)
    assert golden.cut.captions == before + 1
    with pytest.raises(ValueError, match="at least 2"):
        golden.ids("a", 1)


def test_the_shortest_vocabulary_that_ships_spells_every_caption_of_the_emoji():
    """Of the captions that training does not see, none needs more than 24 ids."""
    tokens = vocabulary.load("emoji")
    source = open_source("emoji/64", "test")
    lengths = [len(tokens.ids(text, 99)) for i in range(303) for text in source[i]["captions"]]
    assert tokens.vocabulary == 512 + 1024 + 2
    assert max(lengths) <= 24


def test_merges_are_learned_from_the_most_frequent_pairs():
    merges = learn(["low low low", "lower lower newest"], 3)
    assert merges[:2] == [("l", "o"), ("lo", "w</w>")]


def test_a_file_that_holds_no_merges_is_refused_with_a_reason(tmp_path):
    with pytest.raises(ValueError, match="neither 'emoji' nor 'openai'"):
        vocabulary.load(str(tmp_path / "absent"))
    (tmp_path / "merges.txt").write_text("#version\na b\nc d e\n")
    with pytest.raises(ValueError, match="line 3: 'c d e', want two units"):
        vocabulary.load(str(tmp_path))
    (tmp_path / "x.gz").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="web page"):
        vocabulary.read(tmp_path / "x.gz")
    (tmp_path / "y.gz").write_bytes(gzip.compress(b"#version\n"))
    with pytest.raises(ValueError, match="no merges"):
        vocabulary.read(tmp_path / "y.gz")
