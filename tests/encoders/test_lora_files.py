"""LoRA files: both layouts, older names, and what is refused."""

import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffjax.encoders import lora_files
from diffjax.encoders.lora_files import Layer
from diffjax.encoders.source import Source

SHAPES = {
    "down_1_0/attention/qkv/kernel": (4, 12),
    "down_1_0/attention/out/kernel": (2, 2, 5),
    "down_1_0/res/conv_0/kernel": (3, 3, 4, 6),
    "down_1_1_on/attention/qkv/kernel": (2, 4, 6),
}
RANK, ALPHA = 2, 3.0


def ab(name, seed=0):
    """The A and B of a kernel as training has them."""
    random = np.random.default_rng([seed, *name.encode()])
    shape = SHAPES[name]
    stack = shape[:1] if "_on" in name else ()
    own = shape[len(stack) :]
    inputs = math.prod(own[:-1]) if name.endswith(("out/kernel", "conv_0/kernel")) else own[0]
    outputs = math.prod(own) // inputs
    draw = lambda *sides: random.standard_normal((*stack, *sides)).astype(np.float32)  # noqa: E731
    return draw(inputs, RANK), draw(RANK, outputs)


def layers(sources=lora_files.ours, names=tuple(SHAPES), seed=0):
    found = {}
    for name in names:
        found |= lora_files.layers_of(name, *ab(name, seed), SHAPES[name], ALPHA, sources)
    return found


@pytest.mark.parametrize("layout", lora_files.LAYOUTS)
def test_a_file_adds_what_training_added(tmp_path, layout):
    file = tmp_path / "a.safetensors"
    lora_files.write(file, layers(), layout, {"told": "x"})
    found = lora_files.read(file)
    assert found.metadata["told"] == "x"
    added = lora_files.changes(found, SHAPES)
    assert added.keys() == SHAPES.keys()
    for name, shape in SHAPES.items():
        a, b = (x.astype(np.float64) for x in ab(name))
        wanted = ALPHA / RANK * (a @ b)
        np.testing.assert_allclose(added[name], wanted.reshape(shape), rtol=1e-5, atol=1e-6)


def test_the_names_and_shapes_are_those_of_others(tmp_path):
    some = layers(names=("down_1_0/attention/qkv/kernel", "down_1_0/res/conv_0/kernel"))
    files = {}
    for layout in lora_files.LAYOUTS:
        lora_files.write(tmp_path / layout, some, layout, {})
        files[layout] = lora_files.tensorfile.shapes(tmp_path / layout)
    assert files["diffusers"] == {
        "unet.down_1_0.attention.qkv.lora_A.weight": (2, 4),
        "unet.down_1_0.attention.qkv.lora_B.weight": (12, 2),
        "unet.down_1_0.res.conv_0.lora_A.weight": (2, 4, 3, 3),
        "unet.down_1_0.res.conv_0.lora_B.weight": (6, 2, 1, 1),
    }
    assert files["kohya"] == {
        "lora_unet_down_1_0_attention_qkv.lora_down.weight": (2, 4),
        "lora_unet_down_1_0_attention_qkv.lora_up.weight": (12, 2),
        "lora_unet_down_1_0_attention_qkv.alpha": (),
        "lora_unet_down_1_0_res_conv_0.lora_down.weight": (2, 4, 3, 3),
        "lora_unet_down_1_0_res_conv_0.lora_up.weight": (6, 2, 1, 1),
        "lora_unet_down_1_0_res_conv_0.alpha": (),
    }


def theirs(name, shape):
    """As Stable Diffusion has them: three layers for queries, keys and values."""
    return Source(tuple(f"attn1.to_{part}.weight" for part in "qkv"), (1, 0))


def test_a_kernel_of_several_layers_of_others_comes_back(tmp_path):
    name = "down_1_0/attention/qkv/kernel"
    found = layers(theirs, [name])
    assert found.keys() == {"attn1.to_q", "attn1.to_k", "attn1.to_v"}
    assert all(layer.up.shape == (4, 2) for layer in found.values())
    lora_files.write(tmp_path / "a", found, "kohya", {})
    (added,) = lora_files.changes(lora_files.read(tmp_path / "a"), {name: (4, 12)}, theirs).values()
    a, b = ab(name)
    np.testing.assert_allclose(added, ALPHA / RANK * (a @ b), rtol=1e-5, atol=1e-6)


def test_layers_that_a_file_lacks_add_nothing(tmp_path):
    found = layers(theirs, ["down_1_0/attention/qkv/kernel"])
    del found["attn1.to_k"]
    lora_files.write(tmp_path / "a", found, "diffusers", {})
    (added,) = lora_files.changes(
        lora_files.read(tmp_path / "a"), {"x/qkv/kernel": (4, 12)}, theirs
    ).values()
    assert np.any(added[:, :4])
    assert np.any(added[:, 8:])
    assert not np.any(added[:, 4:8])


DOWN, UP = np.float32([[1, 2]]), np.float32([[3], [4]])
# Names under which the same change is found in files of different programs and years.
NAMES = {
    "peft": ("unet.a.to_q.lora_A.weight", "unet.a.to_q.lora_B.weight"),
    "peft with an adapter": (
        "unet.a.to_q.lora_A.default.weight", "unet.a.to_q.lora_B.default.weight",
    ),
    "diffusers of 2023": ("unet.a.to_q.lora.down.weight", "unet.a.to_q.lora.up.weight"),
    "processors": (
        "unet.a.processor.to_q_lora.down.weight", "unet.a.processor.to_q_lora.up.weight",
    ),
    "kohya": ("lora_unet_a_to_q.lora_down.weight", "lora_unet_a_to_q.lora_up.weight"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_the_names_of_other_programs_are_read(tmp_path, kind):
    down, up = NAMES[kind]
    save_file({down: DOWN, up: UP}, tmp_path / "a")
    read = lora_files.read(tmp_path / "a")
    (added,) = lora_files.changes(read, {"a/to_q/kernel": (2, 2)}).values()
    np.testing.assert_allclose(added, (UP @ DOWN).T)


def test_layers_of_a_text_encoder_are_counted_and_left_out(tmp_path):
    down, up = NAMES["kohya"]
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"
    save_file({down: DOWN, up: UP, text: DOWN}, tmp_path / "a")
    read = lora_files.read(tmp_path / "a")
    assert (list(read.layers), read.of_text) == (["a_to_q"], 1)


def test_the_alpha_of_the_metadata_counts(tmp_path):
    told = {"lora_adapter_metadata": json.dumps({"unet.r": 1, "unet.lora_alpha": 4})}
    save_file(dict(zip(NAMES["peft"], (DOWN, UP), strict=True)), tmp_path / "a", told)
    read = lora_files.read(tmp_path / "a")
    assert read.layers["a_to_q"].alpha == 4
    np.testing.assert_allclose(read.layers["a_to_q"].change(), 4 * (UP @ DOWN))


BAD = {
    "a pickle": (b"PK\x03\x04 archive", "is a pickle"),
    "an old pickle": (b"\x80\x02}q\x00.", "is a pickle"),
    "cut": (b"\x08\x00\x00\x00\x00\x00\x00\x00{", "not safetensors"),
    "another file": ({"stem.weight": DOWN}, "is not of a LoRA"),
    "another kind": ({"lora_unet_a.hada_w1_a": DOWN}, "another kind of change"),
    "half of it": ({NAMES["kohya"][0]: DOWN}, "lacks up"),
    "rank 0": ({NAMES["peft"][0]: np.zeros((0, 2), np.float32),
                NAMES["peft"][1]: np.zeros((2, 0), np.float32)}, "has shapes"),
    "unequal ranks": ({NAMES["peft"][0]: DOWN, NAMES["peft"][1]: UP.repeat(2, 1)}, "has shapes"),
    "NaN": ({NAMES["peft"][0]: DOWN * np.nan, NAMES["peft"][1]: UP}, "NaN"),
    "text alone": ({"text_encoder.a.lora_A.weight": DOWN}, "changes no layer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_lora_is_refused_in_one_line(tmp_path, kind):
    content, words = BAD[kind]
    if isinstance(content, bytes):
        (tmp_path / "a").write_bytes(content)
    else:
        save_file(content, tmp_path / "a")
    with pytest.raises(ValueError, match=words) as caught:
        lora_files.read(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_layers_of_another_network_and_of_another_width_are_refused(tmp_path):
    lora_files.write(tmp_path / "a", {"a.to_q": Layer(DOWN, UP, 1.0)}, "kohya", {})
    read = lora_files.read(tmp_path / "a")
    with pytest.raises(ValueError, match="a_to_q is no layer of it"):
        lora_files.changes(read, {"b/to_q/kernel": (2, 2)})
    with pytest.raises(ValueError, match=r"a_to_q changes a weight of \(2, 2\), here it is \(6, 4"):
        lora_files.changes(read, {"a/to_q/kernel": (4, 6)})


def test_a_damaged_file_of_ours_is_noticed(tmp_path):
    lora_files.write(tmp_path / "a", {"a.to_q": Layer(DOWN, UP, 1.0)}, "kohya", {})
    data = bytearray((tmp_path / "a").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        lora_files.read(tmp_path / "a")
