"""OpenAI's classifiers: what they answer, their gradient, and files that are refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from diffjax.build import tasks
from diffjax.build.guides import classifiers, guiding
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.core.trees import named_leaves
from diffjax.tasks.critic import ClassifierCritic
from tests.encoders.ancestors import made
from tools.inputs import ancestors_inputs, random_tensors

# The config of the small classifier, as a person writes it.
CONFIG = """
from configs import adm_classifier

def get_config(preset=""):
    config = adm_classifier.get_config("tiny")
    config.classes.update(num=5, names=())
    config.model.update(width=32, attention_levels=(1,), head_width=16, norm_groups=32, steps=1000)
    config.diffusion.update(schedule="linear", discrete=True)
    return config
"""


def weights():
    shapes = json.loads((made.GOLDEN / "classifier.json").read_text())
    return random_tensors.transformer(0, {key: tuple(shape) for key, shape in shapes.items()})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """CONFIG=FILE of the small classifier."""
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "small.py").write_text(CONFIG)
    file = made.write_pt(folder / "small_classifier.pt", weights())
    return f"{folder / 'small.py'}={file}"


def test_logits_and_their_gradient_are_those_of_an_independent_forward_pass(place):
    (guide,) = guiding.parse(place)
    assert classifiers.split([guide]) == ([guide], [])
    task, params, origin = classifiers.others_of(guide)
    assert (origin.step, origin.size_px, task.num_classes) == (None, 8, 5)
    given = ancestors_inputs.given()
    level = jnp.asarray(made.LOGSNRS[given["step"]], jnp.float32)
    judge = ClassifierCritic(task.model, 5)
    told = {"label": jnp.asarray(given["label"])}

    @jax.jit
    def run(x):
        log_prob = lambda x: jnp.sum(judge.log_prob(params, told, x, level))  # noqa: E731
        return task.model.apply({"params": params}, x, level), jax.grad(log_prob)(x)

    logits, gradient = run(jnp.asarray(given["x"]))
    wanted = load_file(made.GOLDEN / "classifier.safetensors")
    np.testing.assert_allclose(logits, wanted["logits"], atol=1e-4)
    np.testing.assert_allclose(gradient, wanted["gradient"], atol=1e-4)
    assert np.abs(wanted["gradient"]).max() > 0.01


def test_every_tensor_of_the_file_is_a_parameter(place):
    _, params, _ = classifiers.others_of(guiding.parse(place)[0])
    count = sum(x.size for x in named_leaves(params).values())
    assert count == sum(x.size for x in weights().values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w | {"out.2.c_proj.weight": np.zeros((7, 64, 1), np.float32)},
         "knows 7 classes, and the config's 5"),
        (lambda w: w | {"out.2.positional_embedding": np.zeros((64, 65), np.float32)},
         "is of another size: side is 8, and the config's is 4"),
        (lambda w: w | {"more.weight": np.zeros(2, np.float32)},
         "more.weight is not of this classifier, 1 in all"),
        (lambda w: {k: x for k, x in w.items() if k != "middle_block.1.qkv.bias"},
         "middle_block.1.qkv.bias is missing"),
        (lambda w: {k: x for k, x in w.items() if not k.startswith("out.2")},
         "holds no classifier of guided-diffusion"),
        (lambda w: w | {"out.0.bias": np.full(64, np.nan, np.float32)}, "holds NaN"),
    ],
)  # fmt: skip
def test_a_file_of_another_network_is_refused_in_one_line(change, words, place, tmp_path):
    spec = place.partition("=")[0]
    file = made.write_pt(tmp_path / "other.pt", change(weights()))
    with pytest.raises(ConfigError, match=words) as caught:
        classifiers.others_of(guiding.parse(f"{spec}={file}")[0])
    assert "\n" not in str(caught.value)


def test_a_file_that_fits_no_preset_says_how_to_name_its_config(place):
    file = place.partition("=")[2]
    with pytest.raises(ConfigError, match=r"say its config: --guide-by CONFIG.py:PRESET="):
        classifiers.others_of(guiding.parse(file)[0])


def test_a_file_that_is_damaged_missing_or_would_run_code_is_refused(tmp_path):
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04" + b"\0" * 50)
    made.pickled(tmp_path / "code.pt")
    for name in ("cut.pt", "code.pt", "absent.pt"):
        with pytest.raises(ConfigError) as caught:
            classifiers.others_of(guiding.parse(str(tmp_path / name))[0])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["64", "128", "256", "512"])
def test_the_presets_of_the_paper_are_told_apart_by_their_shapes(size):
    options = config.load(f"configs/adm_classifier.py:{size}")
    model = tasks.classifying.model_of(options)
    facts = classifiers.others.facts_of_model(model, options.data.size_px)
    found = classifiers.preset_of(facts, Path("x.pt"))
    assert found.data.size_px == int(size)
    assert found.to_dict() == options.to_dict()
