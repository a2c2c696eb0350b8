"""Files of OpenAI's diffusion code: the same answers, the same tensors, and refusals in a line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.encoders.ancestors import openai
from diffjax.encoders.matching import stored_of
from tests.encoders.ancestors import made
from tools.inputs.ancestors_inputs import NETS, given

SLOW = pytest.mark.slow
FAST = ("adm", "plain")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=SLOW) for name in NETS]
)
def test_the_network_answers_as_the_forward_pass_that_was_written_for_this_test(name, tmp_path):
    model, inputs = made.network(name), given()
    told = made.told(name, inputs)
    file = made.write_pt(tmp_path / "model.pt", made.weights(name))
    params = openai.params_of(model, made.shapes_of(model, told), openai.read(file), file)
    levels = jnp.asarray(made.LOGSNRS[inputs["step"]], jnp.float32)
    found = jax.jit(model.apply)({"params": params}, jnp.asarray(inputs["x"]), levels, **told)
    wanted = made.answers()[name]
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_the_shapes_of_the_tensors_say_what_the_network_is(name, tmp_path):
    net = NETS[name]
    facts = openai.facts_of(made.weights(name), tmp_path / "x.pt")
    assert facts == openai.facts_of_model(made.network(name), net.inputs, net.outputs)


@pytest.mark.parametrize("name", ["adm", "iddpm"])
def test_the_parameters_are_their_tensors_byte_for_byte(name, tmp_path):
    model, stored = made.network(name), made.weights(name)
    shapes = made.shapes_of(model, made.told(name, given()))
    again = stored_of(openai.params_of(model, shapes, stored, tmp_path), openai.sources(model))
    assert again.keys() == stored.keys()
    assert all(again[key].tobytes() == x.tobytes() for key, x in stored.items())


def test_files_of_safetensors_hold_the_same(tmp_path):
    from safetensors.numpy import save_file

    save_file(made.weights("plain"), tmp_path / "model.safetensors")
    stored = openai.read(tmp_path / "model.safetensors")
    assert openai.facts_of(stored, tmp_path) == openai.facts_of(made.weights("plain"), tmp_path)


def test_what_is_no_such_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        openai.read(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="more than tensors"):
        openai.read(made.pickled(tmp_path / "evil.pt"))
    stored = made.weights("adm")
    with pytest.raises(ValueError, match="holds no U-Net of improved-diffusion or guided"):
        openai.facts_of({"a.weight": np.zeros(3)}, tmp_path)
    with pytest.raises(ValueError, match="a classifier, which draws nothing"):
        openai.facts_of({**stored, "out.2.positional_embedding": np.zeros((4, 4))}, tmp_path)
    model = made.network("adm")
    shapes = made.shapes_of(model, made.told("adm", given()))
    with pytest.raises(ValueError, match=r"extra\.weight is not of this U-Net, and 1 in all"):
        openai.params_of(model, shapes, {**stored, "extra.weight": np.zeros(3)}, tmp_path)
    stored["out.0.bias"] = stored["out.0.bias"] * np.nan
    with pytest.raises(ValueError, match=r"out\.0\.bias holds NaN"):
        openai.params_of(model, shapes, stored, tmp_path)


def test_another_network_than_the_config_s_is_said_in_words(tmp_path):
    facts = openai.facts_of(made.weights("adm"), tmp_path)
    wanted = {
        "predicts the noise and a variance (6 channels), and the config's predicts the noise "
        "alone (3 channels)": dict(outputs=3),
        "starts from noise alone, and the config's enlarges a smaller picture": dict(inputs=6),
        "knows 5 classes, and the config's knows 1000 classes": dict(classes=1000),
        "knows 5 classes, and the config's knows no classes": dict(classes=0),
        "is of another size: its levels have 32 64 channels, the config's 32 64 64":
            dict(widths=(32, 64, 64)),
        "is another network: in_blocks is True, and the config's is False": dict(in_blocks=False),
    }  # fmt: skip
    for said, changed in wanted.items():
        assert openai.difference(facts, facts._replace(**changed)) == said
    assert openai.difference(facts, facts) == ""
