import base64
import io
import json
import logging as std_logging
import shutil
import sys
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from diffjax.encoders import tokenizer
from diffjax.encoders.tokenizer import ByteTokenizer
from tests.encoders.strings import texts

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizers.tar.xz"
LONG = 10**6  # so many tokens that nothing is cut

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


@pytest.fixture(scope="module")
def golden():
    """The files that tools/golden/tokenizers.py packed, as name -> bytes."""
    with tarfile.open(GOLDEN) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}


@pytest.fixture(scope="module")
def pieces(golden, tmp_path_factory):
    """A folder with only spiece.model."""
    pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("pieces")
    (folder / tokenizer.SENTENCEPIECE).write_bytes(golden["spiece.model"])
    return folder


@pytest.fixture(scope="module")
def whole_json(golden, tmp_path_factory):
    """A folder with only tokenizer.json, after restoring its normaliser's table."""
    pytest.importorskip("tokenizers")
    model = pytest.importorskip("sentencepiece.sentencepiece_model_pb2").ModelProto()
    model.ParseFromString(golden["spiece.model"])
    raw = json.loads(golden["tokenizer.json"])
    table = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    raw["normalizer"]["precompiled_charsmap"] = table
    folder = tmp_path_factory.mktemp("json")
    (folder / tokenizer.JSON).write_text(json.dumps(raw))
    return folder


def golden_ids(golden, name):
    with np.load(io.BytesIO(golden["ids.npz"])) as arrays:
        ends = np.cumsum(arrays[f"{name}_lengths"])
        return [row.tolist() for row in np.split(arrays[name], ends[:-1])]


def differing(tokens, wanted, among):
    found = [tokens.ids(text, LONG) for text in among]
    assert tokens.cut.captions == 0
    return [text for text, a, b in zip(among, found, wanted, strict=True) if a != b]


def test_ids_of_a_sentencepiece_model_are_those_of_transformers_on_1000_texts(golden, pieces):
    tokens = tokenizer.load(pieces)
    assert isinstance(tokens, tokenizer.SentencePieceTokenizer)
    assert differing(tokens, golden_ids(golden, "slow"), texts()) == []


def test_ids_of_a_tokenizer_json_are_those_of_transformers_on_1000_texts(golden, whole_json):
    tokens = tokenizer.load(whole_json)
    assert isinstance(tokens, tokenizer.JsonTokenizer)
    assert differing(tokens, golden_ids(golden, "fast"), texts()) == []


def test_ids_of_bytes_are_those_of_transformers_on_1000_texts(golden):
    assert differing(ByteTokenizer(), golden_ids(golden, "bytes"), texts()) == []


def test_the_two_tokenizers_of_transformers_differ_only_in_u0085_and_marks(golden):
    rows = zip(texts(), golden_ids(golden, "slow"), golden_ids(golden, "fast"), strict=True)
    apart = [text for text, slow, fast in rows if slow != fast]
    assert len(apart) == 109
    for text in apart:
        joins = [unicodedata.category(c)[0] == "M" or c in "\u0e33\u1161\u11ab" for c in text]
        assert "\x85" in text or any(joins), ascii(text)


def test_sentinels_are_the_last_ids_in_reverse_order(pieces):
    tokens = tokenizer.load(pieces)
    count = len(tokens.backend)
    assert tokens.ids("<extra_id_0><extra_id_99>", 9) == [count + 99, count, 1]
    assert tokens.ids("<pad></s><unk>", 9) == [0, 1, 2, 1]


def test_the_settings_of_a_folder_change_its_special_tokens(golden, pieces, tmp_path):
    shutil.copy(pieces / tokenizer.SENTENCEPIECE, tmp_path)
    added = {"195": {"content": "<mask>", "special": True}}
    settings = {"extra_ids": 2, "added_tokens_decoder": added}
    (tmp_path / tokenizer.CONFIG).write_text(json.dumps(settings))
    (tmp_path / tokenizer.ADDED).write_text('{"<more>": 196}')
    tokens = tokenizer.load(tmp_path)
    assert tokens.ids("<extra_id_1><extra_id_0><mask><more>", 9) == [190, 191, 195, 196, 1]
    assert len(tokens.ids("<extra_id_2>", 99)) > 2  # not a token, so it is split into pieces
    assert tokenizer.files(tmp_path) == [
        tmp_path / name for name in (tokenizer.CONFIG, tokenizer.ADDED, tokenizer.SENTENCEPIECE)
    ]
    (tmp_path / tokenizer.CONFIG).write_text('{"extra_ids": "two"}')
    with pytest.raises(ValueError, match="extra_ids='two', want a whole number"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["pieces", "whole_json"])
def test_too_many_pieces_are_cut_at_the_end_and_counted(kind, request):
    tokens = tokenizer.load(request.getfixturevalue(kind))
    whole = tokens.ids("a red apple on the table", LONG)
    assert tokens.ids("a red apple on the table", 4) == [*whole[:3], 1]
    assert tokens.cut.captions == 1


@pytest.mark.parametrize("kind", ["pieces", "whole_json"])
def test_half_a_surrogate_pair_raises_a_value_error(kind, request):
    tokens = tokenizer.load(request.getfixturevalue(kind))
    for one in (tokens, ByteTokenizer()):
        with pytest.raises(ValueError, match="surrogates not allowed"):
            one.ids("a\ud800", 9)


@pytest.mark.parametrize("name", [tokenizer.JSON, tokenizer.SENTENCEPIECE])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html></html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"", "it is empty"),
        (b"\x0a\xff\xff\xff", "damaged or cut short"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path, name, content, message):
    pytest.importorskip("tokenizers")
    pytest.importorskip("sentencepiece")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}") as caught:
        tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_family_is_refused(whole_json, tmp_path):
    raw = json.loads((whole_json / tokenizer.JSON).read_text())
    raw["added_tokens"][1]["content"] = raw["model"]["vocab"][1][0] = "<end>"
    raw["post_processor"] = None
    (tmp_path / tokenizer.JSON).write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"the id of </s> is None, want 1"):
        tokenizer.load(tmp_path)


@pytest.mark.peers
@pytest.mark.parametrize("seed", [1, 2])
def test_ids_are_those_of_transformers_on_other_texts(seed, tmp_path):
    pytest.importorskip("transformers")
    from tools.golden.tokenizers import references, train

    train(tmp_path)
    wanted = references(tmp_path)
    others = texts(1000, seed)
    slow = tokenizer.load(tmp_path)
    assert differing(slow, map(wanted["slow"], others), others) == []
    assert differing(ByteTokenizer(), map(wanted["bytes"], others), others) == []
    transformers = pytest.importorskip("transformers")
    transformers.T5Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "fast")
    fast = tokenizer.load(tmp_path / "fast")
    assert differing(fast, map(wanted["fast"], others), others) == []


@pytest.mark.peers
def test_ids_of_mt5_are_those_of_transformers(tmp_path):
    # mT5's sentinels are pieces of its model, with a blank before them.
    transformers = pytest.importorskip("transformers")
    from tools.golden.tokenizers import train

    sentinels = [f"\u2581<extra_id_{i}>" for i in range(9, -1, -1)]
    train(tmp_path, ",".join(sentinels))
    (tmp_path / tokenizer.CONFIG).write_text('{"extra_ids": 0, "tokenizer_class": "T5Tokenizer"}')
    ours, theirs = tokenizer.load(tmp_path), transformers.T5Tokenizer.from_pretrained(tmp_path)
    for text in ("a <extra_id_0> red", "<extra_id_9> apple <extra_id_1>", "no sentinel"):
        assert ours.ids(text, LONG) == theirs(text).input_ids
    assert len(ours.ids("<extra_id_0>", LONG)) == 2


@pytest.mark.peers
@pytest.mark.parametrize("text", [*KNOWN, "Tab\tnewline\n end ", "ünïcödé ☕ in  two  blanks"])
def test_byte_ids_are_those_of_transformers(text):
    transformers = pytest.importorskip("transformers")
    assert ByteTokenizer().ids(text, 96) == transformers.ByT5Tokenizer()(text).input_ids


@pytest.mark.parametrize("max_length", [1, 2, 5, 9])
def test_too_many_bytes_are_cut_before_the_eos(max_length):
    ids = ByteTokenizer().ids("red apple", max_length)
    assert ids == [*KNOWN["red apple"][: max_length - 1], 1]


def test_cut_captions_are_reported_at_powers_of_ten(caplog):
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


def test_a_caption_that_fits_exactly_is_not_cut():
    tokens = ByteTokenizer()
    assert tokens.ids("red apple", 10) == KNOWN["red apple"]
    assert tokens.cut.captions == 0


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json"])
def test_a_folder_of_byt5_needs_no_tokenizer_files(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    assert tokenizer.load(tmp_path) == ByteTokenizer()


@pytest.mark.parametrize(
    ("name", "package"), [("tokenizer.json", "tokenizers"), ("spiece.model", "sentencepiece")]
)
def test_a_missing_package_is_named_in_the_error(tmp_path, monkeypatch, name, package):
    (tmp_path / name).write_text("")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{name} needs the package {package}: pip install"):
        tokenizer.load(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
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


@pytest.mark.parametrize("names", [("<a>", "<a><b>", "<a"), ("<a", "<a>", "<a><b>")])
def test_of_special_tokens_that_begin_alike_the_longest_is_meant(names):
    special = {name: 10 + i for i, name in enumerate(names)}
    found = list(tokenizer._split("x<a><b>y<a>z<a", special))
    want = [("x", "<a><b>"), ("y", "<a>"), ("z", "<a")]
    assert found == [*((text, special[name]) for text, name in want), ("", None)]
