"""GPT-2's tokenizer: the words and ids of the package `tokenizers`."""

import pytest

from diffjax.encoders import gpt2, tokens
from tests.encoders.ancestors.glide import vocabulary

MERGES = [("\u0120", "a"), ("r", "e"), ("\u0120a", "p"), ("re", "d"), ("l", "e"), ("\u0120", "red"),
          ("p", "le"), ("\u0120ap", "ple"), ("'", "s"), ("1", "2"), 2 * ("\u0120",)]  # fmt: skip
TEXTS = ["a red apple", "  two   blanks ", "it's 12 apples, isn't it?", "RED Äpfel\n\n x", "", " ",
         "o'clock 'll", "x\t y", "日本 123abc", "a_b--c  !"]  # fmt: skip


@pytest.fixture(scope="module")
def ours():
    return gpt2.from_merges(MERGES)


def test_ids_are_those_of_the_package_tokenizers(ours):
    tokenizers = pytest.importorskip("tokenizers")
    units = {**ours.units}
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=units, merges=MERGES))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in TEXTS:
        assert ours.units_of(text) == theirs.encode(text.lower()).ids, text


def test_words_are_the_text_cut_and_nothing_is_lost():
    for text in TEXTS:
        assert "".join(gpt2.words(text)) == text
    assert list(gpt2.words("it's  a 12x")) == ["it", "'s", " ", " a", " 12", "x"]


def test_a_reader_fills_places_that_are_left_and_cuts_long_texts(ours):
    reader = tokens.TokenReader("own", 4, ours)
    apple, a = ours.units["\u0120apple"], ours.units["a"]
    assert reader.encode(["a apple", ""]).tolist() == [[a, apple, -1, -1], [-1] * 4]
    assert reader.ids("a apple apple apple apple").tolist() == [a, apple, apple, apple]
    assert ours.cut.captions == 1


def test_a_vocabulary_is_known_by_its_merges(tmp_path, ours):
    assert tokens.load("emoji").vocabulary == 1_538
    file = vocabulary(tmp_path / "vocab.bpe", MERGES)
    for name in (str(file), str(tmp_path)):
        found = tokens.load(name)
        assert found.fingerprint == ours.fingerprint
        assert found.vocabulary == 256 + len(MERGES) + 1
    assert tokens.beside(tmp_path / "base.pt") == str(file)
    assert tokens.beside(tmp_path / "else" / "base.pt") == "gpt2"
    with pytest.raises(ValueError, match="neither 'emoji' nor 'openai', nor a file of merges"):
        tokens.load("absent")
