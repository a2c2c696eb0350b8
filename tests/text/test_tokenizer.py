import json
import logging as std_logging
import sys

import pytest

from diffjax.text import tokenizer
from diffjax.text.tokenizer import ByteTokenizer

# ByT5Tokenizer's answers, from its paper's rule and checked against it below.
KNOWN = {
    "": [1],
    "a": [100, 1],
    "red apple": [117, 104, 103, 35, 100, 115, 115, 111, 104, 1],
    "Life is like": [79, 108, 105, 104, 35, 108, 118, 35, 111, 108, 110, 104, 1],
    "é€": [198, 172, 229, 133, 175, 1],
    "\U0001f34e": [243, 162, 144, 145, 1],
}


@pytest.mark.parametrize("text", KNOWN)
def test_byte_ids_are_those_of_byt5(text):
    assert ByteTokenizer().ids(text, 96) == KNOWN[text]


@pytest.mark.peers
@pytest.mark.parametrize("text", [*KNOWN, "Tab\tnewline\n end ", "ünïcödé ☕ in  two  blanks"])
def test_byte_ids_are_those_of_transformers(text):
    transformers = pytest.importorskip("transformers")
    assert ByteTokenizer().ids(text, 96) == transformers.ByT5Tokenizer()(text).input_ids


@pytest.mark.parametrize("max_length", [1, 2, 5, 9])
def test_truncation_keeps_the_front_and_the_eos(max_length):
    ids = ByteTokenizer().ids("red apple", max_length)
    assert ids == [*KNOWN["red apple"][: max_length - 1], 1]


def test_truncation_is_reported_with_a_count_at_powers_of_ten(caplog):
    tokens = ByteTokenizer()
    with caplog.at_level(std_logging.WARNING):
        for _ in range(12):
            tokens.ids("red apple", 5)
        tokens.ids("red", 5)
    assert tokens.cut.captions == 12
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "1 caption(s) cut to max_length=5 tokens so far; this one has 10" in messages[0]
    assert messages[1].startswith("10 caption(s)")


def test_what_fits_exactly_is_not_cut():
    tokens = ByteTokenizer()
    assert tokens.ids("red apple", 10) == KNOWN["red apple"]
    assert tokens.cut.captions == 0


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json"])
def test_a_folder_of_byt5_needs_no_files_of_pieces(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    assert tokenizer.load(tmp_path) == ByteTokenizer()


@pytest.mark.parametrize(
    ("name", "package"), [("tokenizer.json", "tokenizers"), ("spiece.model", "sentencepiece")]
)
def test_a_missing_package_is_an_error_that_names_it(tmp_path, monkeypatch, name, package):
    (tmp_path / name).write_text("")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{name} needs the package {package}: pip install"):
        tokenizer.load(tmp_path)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer\.json, no spiece\.model, no ByT5"):
        tokenizer.load(tmp_path)


@pytest.mark.peers
def test_tokenizer_json_and_spiece_model_give_the_same_ids_with_eos(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    tokenizers = pytest.importorskip("tokenizers")
    lines = ["a red apple on a table", "the cat sat on the mat", "two blue birds in the sky"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "spiece"), vocab_size=50,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    one = tokenizer.load(tmp_path)
    backend.save(str(tmp_path / "tokenizer.json"))
    other = tokenizer.load(tmp_path)
    assert type(one) is not type(other)
    ids = one.ids("a red cat in the sky", 96)
    assert ids[-1] == 1
    assert (
        ids
        == other.ids("a red cat in the sky", 96)
        == [*processor.encode("a red cat in the sky"), 1]
    )
    assert one.ids("a red cat in the sky", 4) == [*ids[:3], 1]
