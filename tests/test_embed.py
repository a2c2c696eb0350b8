import pytest

from diffjax import embed, text
from tests.text.test_encoder import write


@pytest.fixture
def argv(tmp_path):
    (tmp_path / "captions.txt").write_text("a red apple\n\n a blue cat \na red apple\n")
    write(tmp_path / "tiny")
    return [
        "--captions", str(tmp_path / "captions.txt"),
        "--out", str(tmp_path / "cache.safetensors"),
        "--encoder", str(tmp_path / "tiny"),
    ]  # fmt: skip


def test_the_command_writes_each_caption_once(argv, tmp_path, capsys):
    assert embed.main(argv) == 0
    made = text.cache.open_cache(tmp_path / "cache.safetensors")
    assert list(made.index) == ["a red apple", "a blue cat"]
    assert "2 captions, 23 tokens of tiny" in capsys.readouterr().out


def test_the_command_again_extends_the_cache(argv, tmp_path):
    assert embed.main(argv) == 0
    (tmp_path / "captions.txt").write_text("a pear\n")
    assert embed.main(argv) == 0
    assert len(text.cache.open_cache(tmp_path / "cache.safetensors")) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.txt", b"\n \n", "no captions in it"),
        ("captions.txt", b"\xff\xfe", "not UTF-8"),
        ("captions.txt", None, "captions.txt"),
        ("cache.safetensors", b"something else", "not an embeddings cache"),
        ("tiny/config.json", b"{", "not JSON"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_line(argv, tmp_path, capsys, name, content, message):
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    assert embed.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_cache_of_another_encoder_is_not_overwritten(argv, tmp_path, capsys):
    assert embed.main(argv) == 0
    assert embed.main([*argv, "--max-length", "50"]) == 2
    assert "max_length 96" in capsys.readouterr().err
