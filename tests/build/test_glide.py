"""GLIDE's files as stages that read prompts, and what is refused of them."""

from pathlib import Path

import numpy as np
import pytest

from diffjax.build import check
from diffjax.build.options import config
from diffjax.build.stages import loading
from diffjax.core.errors import ConfigError
from diffjax.encoders.tokens import TokenReader
from diffjax.generation import rows
from diffjax.generation.jobs import Job
from tests.encoders.ancestors import glide, made

# 256 bytes, a token that ends a text, and so many ids of merges.
BYTES = 257


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """CONFIG=FILE of a base and an upsampler that know the bytes and one merge."""
    found = {}
    for name in ("base", "upsampler"):
        folder = tmp_path_factory.mktemp(name)
        stored = glide.weights(name)
        wide = np.resize(stored["token_embedding.weight"], (BYTES + 1, glide.WIDTH))
        made.write_pt(folder / "model.pt", {**stored, "token_embedding.weight": wide})
        glide.vocabulary(folder / "vocab.bpe", [("e", "d")])
        own = glide.config_file(folder / "own.py", name)
        text = own.read_text()
        size = 8 if name == "base" else 16
        vocabulary = f"    config.tokens.vocabulary = {str(folder / 'vocab.bpe')!r}\n    return"
        sizes = f"    config.data.size_px = {size}\n"
        own.write_text(text.replace("    return", sizes + vocabulary))
        found[name] = Path(f"{own}={folder / 'model.pt'}")
    return found


def test_a_base_and_its_upsampler_read_prompts_with_the_vocabulary_beside_them(files):
    cascade = loading.load([files["base"], files["upsampler"]])
    assert isinstance(cascade.encoder, TokenReader)
    assert [stage.task.size_px for stage in cascade.stages] == [8, 16]
    assert [stage.settings.num_steps for stage in cascade.stages] == [2, 5]
    jobs = [Job("Red", 0, negative="b")]
    columns, _ = rows.inputs_of(jobs, rows.embedder(cascade), cascade.conditions)
    letter = lambda one: ord(one) - ord("!")  # noqa: E731
    assert columns["tokens"].tolist() == [[letter("r"), 256, -1, -1, -1, -1]]
    assert columns["negative_tokens"].tolist() == [[letter("b"), -1, -1, -1, -1, -1]]


def test_what_cannot_be_is_one_line(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    def said(*dirs):
        with pytest.raises(ConfigError) as caught:
            loading.load(list(dirs))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "starts from 8 px, the stage before it makes none" in said(files["upsampler"])
    beside = "diffjax.encoders.tokens.beside"
    monkeypatch.setattr(beside, lambda path: "emoji")
    line = said(files["base"])
    assert "knows 258 token ids, and the vocabulary emoji has 1,538; put vocab.bpe.gz" in line
    monkeypatch.setattr(beside, lambda path: "absent")
    assert "its vocabulary: vocabulary 'absent' is neither" in said(files["base"])


@pytest.mark.parametrize("name", ["glide64", "glide256", "glide_inpaint"])
def test_every_preset_is_a_config_that_is_allowed(name):
    for preset in config.presets_of(name):
        check.check(config.load(f"{name}:{preset}"), devices=8)


@pytest.mark.parametrize(
    ("spec", "values", "said"),
    [
        ("glide64:tiny", {"model.text_heads": 3}, "text_heads = 3: must divide text_width, 8"),
        ("glide64:tiny", {"tokens.vocabulary": "absent"}, "tokens.vocabulary = 'absent': "),
        ("glide64:tiny", {"tokens.drop": 1.5}, "tokens.drop = 1.5: must be between 0 and 1"),
        ("glide64:tiny", {"model.kind": "dit"}, 'tokens needs "unet"'),
        ("glide256:tiny", {"low_res.max_aug_level": 0.5}, "or low_res.max_aug_level must"),
        ("glide256:tiny", {"sample.num_steps": 51}, "num_steps = 51: at most 50 with spacing"),
        ("glide_inpaint:tiny", {"mask.strokes": -1.0}, "mask.strokes = -1.0: must be between"),
    ],
)
def test_what_a_glide_cannot_be_is_one_line(spec, values, said):
    options = config.load(spec).copy_and_resolve_references().unlock()
    for key, value in values.items():
        section, _, last = key.partition(".")
        options[section][last] = value
    with pytest.raises(ConfigError, match=said) as caught:
        check.check(options)
    assert "\n" not in str(caught.value)
