"""The weights that a run begins with: which they are, and what is refused."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.build.stages import places, start
from diffjax.core import trees
from diffjax.core.errors import ConfigError
from diffjax.models.unet import UNet
from diffjax.training import optim
from diffjax.training.program import Training, placement_of, started
from tests import lora_base
from tests.diffusion.helpers import images
from tests.models.parameters import anywhere

KEY = jax.random.key(0)


def glide(**changes):
    made = config.load("glide64:tiny").copy_and_resolve_references().unlock()
    for key, value in changes.items():
        section, _, last = key.partition("__")
        made[section][last] = value
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return lora_base.write(tmp_path_factory.mktemp("base") / "glide.safetensors", glide())


def options(base, spec="glide_inpaint:tiny", **changes):
    made = config.load(spec).copy_and_resolve_references().unlock()
    made.start.base = str(base)
    for key, value in changes.items():
        section, _, last = key.partition("__")
        made[section][last] = value
    return made


@pytest.mark.parametrize("small", [False, True])
def test_a_network_that_begins_to_fill_holes_answers_as_before(small):
    """Whatever it is told of the hole: the weights of the new channels are zero."""
    net = UNet(width=8, mults=(1,), num_blocks=1, attention_levels=(), head_width=8, patch=2)
    given = dict(x_t=images(0, (2, 4, 4, 3)), logsnr_t=jnp.zeros(2))
    given |= {"low_res": images(1, (2, 4, 4, 3))} if small else {}
    hole = {"masked": images(2, (2, 4, 4, 3)), "mask": images(3, (2, 4, 4, 1))}
    before = anywhere(net, **given)
    wanted = jax.eval_shape(net.init, KEY, **given, **hole)["params"]
    after = start.fitted(jax.tree.map(np.asarray, before), wanted, patch=2)
    assert after["stem"]["kernel"].shape == (3, 3, 4 * (10 if small else 7), 8)
    run = jax.jit(lambda params, **told: net.apply({"params": params}, **told))
    np.testing.assert_allclose(run(after, **given, **hole), run(before, **given), atol=1e-6)


def test_a_network_that_begins_to_be_told_vectors_says_the_same_of_all_of_them():
    """The weights that read a vector are zero, all others those of the base, and none is left."""
    net = UNet(
        width=8,
        mults=(1,),
        num_blocks=1,
        attention_levels=(0,),
        head_width=8,
        patch=2,
        token_width=8,
    )
    text, mask = jnp.ones((2, 3, 6)), jnp.ones((2, 3), bool)
    given = dict(x_t=images(0, (2, 4, 4, 3)), logsnr_t=jnp.zeros(2), text=text, text_mask=mask)
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 5)), jnp.float32)
    before = anywhere(net, **given)
    wanted = jax.eval_shape(net.init, KEY, **given, vector=vectors[0])["params"]
    after = start.fitted(jax.tree.map(np.asarray, before), wanted)
    assert jax.tree.structure(after) == jax.tree.structure(wanted)
    theirs, ours = trees.named_leaves(before), trees.named_leaves(after)
    for name, leaf in theirs.items():
        np.testing.assert_array_equal(ours[name], leaf)
    assert {name for name in ours if name not in theirs} == {
        f"conditioning/{layer}/{last}"
        for layer, last in (
            ("vector", "bias"), ("vector", "kernel"), ("vector_norm", "bias"),
            ("vector_norm", "scale"), ("vector_tokens", "bias"), ("vector_tokens", "kernel"),
        )
    }  # fmt: skip
    run = jax.jit(lambda vector: net.apply({"params": after}, **given, vector=vector))
    np.testing.assert_array_equal(run(vectors[0]), run(vectors[1]))
    learns = jax.grad(
        lambda params: net.apply({"params": params}, **given, vector=vectors[0]).sum()
    )
    assert all(jnp.abs(learns(after)["conditioning"][x]["kernel"]).max() > 0
               for x in ("vector", "vector_tokens"))  # fmt: skip


def test_a_run_begins_with_the_weights_of_its_base(base):
    made = options(base)
    task = tasks.task_of(made, 0)
    found = trees.named_leaves(start.params_of(made, task))
    theirs = trees.named_leaves(lora_base.params(glide()))
    assert found.keys() == theirs.keys()
    for name, leaf in theirs.items():
        if name != start.STEM:
            np.testing.assert_array_equal(found[name], leaf)
    kernel = found[start.STEM]
    np.testing.assert_array_equal(kernel[:, :, :3], theirs[start.STEM])
    assert not kernel[:, :, 3:].any()
    assert start.base_of(glide()) == ""


def test_a_network_that_begins_to_finish_its_answer_has_new_last_layers_that_say_nothing(base):
    made = options(base, model__finish=4)
    found = trees.named_leaves(start.params_of(made, tasks.task_of(made, 0)))
    theirs = trees.named_leaves(lora_base.params(glide()))
    new = {name: leaf for name, leaf in found.items() if name not in theirs}
    assert {name.split("/")[0] for name in new} == {"finish"}
    assert new["finish/conv_0/kernel"].any()
    assert not new["finish/conv_2/kernel"].any()


def test_the_first_state_and_all_its_averages_have_the_weights_on_every_mesh(base):
    made = options(base)
    made.mesh.fsdp = 2
    task = tasks.task_of(made, 0)
    params = start.params_of(made, task)
    from diffjax.devices import mesh

    tx = optim.optimiser("adam", lambda step: 1e-3)
    names = ("decay_0.9", "decay_0.5")
    place = placement_of(
        Training(task, tx, lambda step: 1e-3, names, mesh.make_mesh(4, 2, 1), 0, 8, 1, 1)
    )
    state = started(place.state_shape, place, params)
    for tree in (state.params, *(state.ema_params[name] for name in names)):
        for one, other in zip(*map(jax.tree.leaves, (tree, params)), strict=True):
            np.testing.assert_array_equal(one, other)
    kernel = state.params["words"]["blocks"]["block_0"]["qkv"]["kernel"]
    assert (
        kernel.sharding
        == place.state_sharding.params["words"]["blocks"]["block_0"]["qkv"]["kernel"]
    )


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        ("glide_inpaint:tiny", {"start__base": "absent"}, "start.base = 'absent': "),
        ("glide_inpaint:tiny", {"tokens__vocabulary": "gpt2"}, "was trained with 'emoji'"),
        ("glide_inpaint:tiny", {"tokens__length": 9}, "tokens.length = 9: the base"),
        ("glide_inpaint:tiny", {"model__text_layers": 2}, "model.text_layers = 2: the base"),
        ("glide_inpaint:tiny_upsampler", {}, r"makes pictures of \[8\] px, and this stage of 16"),
    ],
)
def test_a_base_that_cannot_be_is_refused_in_one_line(spec, changes, said, base, tmp_path):
    made = options(base, spec, **changes)
    with pytest.raises(ConfigError, match=said) as caught:
        start.check(made, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_that_has_begun_needs_its_base_no_more(base, tmp_path):
    made = options(base)
    config.save(made, tmp_path / "config.json")
    made.start.base = "absent"
    start.check(made, tmp_path)


def test_another_network_is_named_by_its_first_difference(base):
    task = tasks.task_of(options(base), 0)
    wanted = jax.eval_shape(task.init, KEY)
    params = lora_base.params(glide())
    fitted = functools.partial(start.fitted, wanted=wanted)
    short = {name: part for name, part in params.items() if name != "words"}
    with pytest.raises(ValueError, match="only one of the two has words/blocks/"):
        fitted(short)
    other = {**params, "stem": {**params["stem"], "bias": np.zeros(3, np.float32)}}
    with pytest.raises(ValueError, match=r"its stem/bias is \(3,\), want \(8,\)"):
        fitted(other)


def test_shipped_is_the_stage_of_that_size_that_comes_with_diffjax():
    made = options("shipped", "decoder:emoji")
    assert start.place_of(made).name == "base64.safetensors"
    start.check(made, Path("no run"))  # the decoder has its network


def test_a_student_begins_with_its_teacher_and_not_with_what_the_teacher_began_with(base, tmp_path):
    place = lora_base.write(tmp_path / "teacher.safetensors", options(base))
    made = config.load(f"configs/distil.py:own:{place}")
    assert start.base_of(made) == ""
    assert start.base_of(places.options_of(place)) == str(base)
