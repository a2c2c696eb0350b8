import copy
import dataclasses
import json

import pytest

from diffjax.generation import parse, recipe
from diffjax.generation.recipe import Origin, Recipe
from diffjax.tasks import settings
from diffjax.tasks.settings import SampleSettings

RECIPE = Recipe(
    prompt="a red apple 🍏 \0",
    negative="worms",
    seed=7,
    stages=(
        (Origin("base64", 64, 4, "decay_0.999", "a" * 64), SampleSettings()),
        (Origin("sr256", 256, None, "file", "b" * 64), SampleSettings(sampler="heun", noise=0.5)),
    ),
    encoder="c" * 64,
    made_with={"diffjax": "0.1.0", "jax": "0.10.2", "platform": "cpu"},
)
GUIDE = {"name": "base64", "size_px": 64, "step": 2, "average": "live", "checkpoint": "d" * 64}
CHOSEN = {"seed": 3, "of": 8, "clip": "e" * 64, "score": 0.25}
PLAIN = json.loads(json.dumps(recipe.to_json(RECIPE)))


def test_a_recipe_comes_back_from_json():
    assert parse.from_json(PLAIN) == RECIPE
    none = dataclasses.replace(RECIPE, negative=None, prompt="")
    assert parse.from_json(json.loads(json.dumps(recipe.to_json(none)))) == none


def test_the_largest_values_come_back_too():
    """Each limit is allowed itself; one beyond is refused below."""
    most = SampleSettings(**{name: high for name, (_, high) in settings.LIMITS.items()})
    origin = Origin("n" * 40, 8192, 2**53, "a" * 80, "0" * 64)
    origin = dataclasses.replace(origin, classifier=origin)
    largest = Recipe(
        "x" * 10_000, 2**31 - 1, ((origin, most),), "f" * 64, RECIPE.made_with, clip="e" * 64
    )
    assert parse.from_json(json.loads(json.dumps(recipe.to_json(largest)))) == largest


def test_a_class_further_prompts_and_a_guide_come_back_and_are_not_said_where_there_is_none():
    assert not {"label", "also", "chosen", "clip"} & set(PLAIN)
    assert not any("guide" in stage for stage in PLAIN["stages"])
    (first, how), *rest = RECIPE.stages
    more = dataclasses.replace(
        RECIPE, label=7, also=(("a pear", 0.5), ("worms", -1.0)), chosen=recipe.Chosen(**CHOSEN),
        stages=((first.by(Origin("base64", 64, 2, "live", "d" * 64)), how), *rest),
    )  # fmt: skip
    plain = json.loads(json.dumps(recipe.to_json(more)))
    assert plain["stages"][0]["guide"] == GUIDE
    assert plain["chosen"] == CHOSEN
    assert parse.from_json(plain) == more
    no_text = dataclasses.replace(RECIPE, prompt="", negative=None, encoder=None, label=3)
    assert parse.from_json(json.loads(json.dumps(recipe.to_json(no_text)))) == no_text


def test_merged_files_come_back_and_are_not_said_where_there_are_none():
    assert not any("loras" in stage for stage in PLAIN["stages"])
    (first, how), *rest = RECIPE.stages
    merged = dataclasses.replace(first, loras=(recipe.Lora("e" * 64, -0.5),) * 2)
    more = dataclasses.replace(RECIPE, stages=((merged, how), *rest))
    plain = json.loads(json.dumps(recipe.to_json(more)))
    assert plain["stages"][0]["loras"] == [["e" * 64, -0.5]] * 2
    assert parse.from_json(plain) == more
    for wrong in ("x", [["e" * 64]], [["e" * 63, 1.0]], [["e" * 64, 11.0]], [["e" * 64, True]],
                  [["e" * 64, 1.0]] * 17):  # fmt: skip
        plain["stages"][0]["loras"] = wrong
        with pytest.raises(ValueError, match="loras: want"):
            parse.from_json(plain)


def test_the_classifier_that_guided_a_stage_comes_back_and_is_said_where_one_guided_alone():
    assert not any("classifier" in stage for stage in PLAIN["stages"])
    (first, how), *rest = RECIPE.stages
    judge = recipe.Origin("classifier", first.size_px, 4, "live", "a" * 64)
    guided = dataclasses.replace(first, classifier=judge)
    how = dataclasses.replace(how, classifier_guidance=2.0)
    more = dataclasses.replace(RECIPE, stages=((guided, how), *rest))
    plain = json.loads(json.dumps(recipe.to_json(more)))
    assert plain["stages"][0]["classifier"]["checkpoint"] == "a" * 64
    assert parse.from_json(plain) == more
    for place, value in (("classifier", None), ("classifier", {"name": "x"})):
        wrong = json.loads(json.dumps(plain))
        wrong["stages"][0][place] = value
        with pytest.raises(ValueError, match=r"stages\[0\].classifier: (want one|lacks)"):
            parse.from_json(wrong)


def test_the_settings_are_all_checked():
    fields = {field.name for field in dataclasses.fields(SampleSettings)}
    assert fields == set(settings.LIMITS) | set(settings.CHOICES)
    assert not any(settings.fault(name, getattr(SampleSettings(), name)) for name in fields)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("format", 2, "format: want 1"),
        ("format", True, "format: want 1"),
        ("kind", "inpaint", "kind: 'inpaint', only pictures of diffjax.sample"),
        ("kind", None, "kind"),
        ("prompt", 3, "prompt: want a text"),
        ("prompt", "x" * 10_001, "prompt: 10001 characters"),
        ("prompt", "\ud800", "prompt: not valid Unicode"),
        ("negative", ["x"], "negative: want a text"),
        ("seed", -1, "seed: want a number from 0"),
        ("seed", 2**31, "seed: want a number"),
        ("seed", 1.0, "seed: want a number"),
        ("seed", True, "seed: want a number"),
        ("stages", [], "stages: want a list of 1 to 8"),
        ("stages", {}, "stages: want a list"),
        ("stages", [PLAIN["stages"][0]] * 9, "stages: want a list of 1 to 8"),
        ("stages", [PLAIN["stages"][0]] * 2, "sizes"),
        ("stages.0", 3, r"stages\[0\]: want an object"),
        ("stages.0.name", "../x", r"stages\[0\].name"),
        ("stages.0.name", "bäse", r"stages\[0\].name"),
        ("stages.0.average", "decay_٣", "average: want a text"),
        ("made_with.jax", "0.é", "made_with.jax"),
        ("stages.0.size_px", 8193, r"size_px: want a number from 1 to 8192"),
        ("stages.0.size_px", 0, r"size_px: want a number from 1 to 8192"),
        ("stages.0.step", 2**53 + 1, "step: want a number"),
        ("stages.0.step", -1, "step: want a number"),
        ("stages.0.name", "n" * 41, r"stages\[0\].name"),
        ("stages.0.name", "", r"stages\[0\].name"),
        ("stages.0.average", "a" * 81, "average: want a text"),
        ("stages.0.checkpoint", "a" * 65, "checkpoint"),
        ("stages.0.checkpoint", "A" * 64, "checkpoint"),
        ("encoder", "c" * 63, "encoder: want a text"),
        ("made_with.jax", "1" * 41, "made_with.jax"),
        ("negative", "x" * 10_001, "negative: 10001 characters"),
        ("stages.0.size_px", 10**9, r"size_px: want a number from 1 to 8192"),
        ("stages.0.step", "4", "step: want a number"),
        ("stages.0.average", "/etc/x.safetensors", "average: want a text"),
        ("stages.0.average", "x.safetensors", "average: want a text"),
        ("stages.0.checkpoint", "a" * 63, "checkpoint"),
        ("stages.1.settings.num_steps", 10**6, r"stages\[1\].settings.num_steps: a whole number"),
        ("stages.1.settings.num_steps", 2.5, "num_steps: a whole number"),
        ("stages.1.settings.guidance_weight", float("inf"), "guidance_weight: a number"),
        ("stages.1.settings.guidance_weight", [1], "guidance_weight: want a word or a number"),
        ("stages.1.settings.sampler", "plms", "sampler: allowed: ddpm, ddpm_learned, ddim"),
        ("stages.1.settings.sampler", "__import__", "sampler: allowed"),
        ("stages.1.settings.sampler", "unipc", "adds none"),
        ("stages.1.settings.more", 1, "settings: want no more than num_steps"),
        ("encoder", None, "encoder: want a text"),
        ("label", -1, "label: want a number from 0"),
        ("label", "7", "label: want a number"),
        ("chosen", {**CHOSEN, "of": 1}, "chosen.of: want a number from 2 to 1000"),
        ("chosen", {**CHOSEN, "seed": -1}, "chosen.seed: want a number"),
        ("chosen", {**CHOSEN, "clip": "c"}, "chosen.clip: want a text"),
        ("chosen", {**CHOSEN, "score": float("nan")}, "chosen.score: want a number"),
        ("chosen", {**CHOSEN, "score": True}, "chosen.score: want a number"),
        ("chosen", {**CHOSEN, "more": 1}, "chosen: want no more"),
        ("chosen", [3], "chosen: want an object"),
        ("clip", "e" * 63, "clip: want a text"),
        ("clip", "e" * 64, "clip: want one if and only if one guided"),
        ("stages.0.settings.clip_guidance", 1.0, "clip: want one if and only if one guided"),
        ("stages.0.settings.clip_guidance", -1, "clip_guidance: a number from 0 to 1000"),
        ("stages.0.settings.classifier_guidance", 1.0, r"classifier: want one if and only if one"),
        ("also", {}, "also: want a list of at most 4"),
        ("also", [["x", 1.0]] * 5, "also: want a list of at most 4"),
        ("also", [["x"]], "also: want pairs"),
        ("also", [["x", 11]], "also: want shares from -10 to 10"),
        ("also", [["x", True]], "also: want shares"),
        ("also", [["x", float("nan")]], "also: want shares"),
        ("also", [[3, 1.0]], "also: want a text"),
        ("stages.0.guide", {"name": "x"}, r"stages\[0\].guide: lacks size_px"),
        ("stages.0.guide", {**GUIDE, "step": "x"}, r"stages\[0\].guide.step: want a number"),
        ("stages.0.guide", {**GUIDE, "guide": GUIDE}, r"guide: want no more than name"),
        ("stages.0.guide", 3, r"stages\[0\].guide: want an object"),
        ("made_with.platform", "cpu\x1b[31m", "made_with.platform"),
        ("made_with.home", "/root", "made_with: want no more than"),
        ("path", "/etc/passwd", "metadata: want no more than"),
    ],
)
def test_a_forged_field_is_named(place, value, words):
    forged = copy.deepcopy(PLAIN)
    *parents, last = place.split(".")
    node = forged
    for name in parents:
        node = node[int(name) if name.isdecimal() else name]
    node[int(last) if last.isdecimal() else last] = value
    with pytest.raises(ValueError, match=words) as error:
        parse.from_json(forged)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", PLAIN)
def test_a_missing_field_is_named(name):
    forged = {key: value for key, value in PLAIN.items() if key != name}
    with pytest.raises(ValueError, match=f"metadata: lacks {name}"):
        parse.from_json(forged)


@pytest.mark.parametrize("value", [None, 3, [], "x", {}])
def test_json_that_is_not_a_recipe_is_refused(value):
    with pytest.raises(ValueError, match="metadata: "):
        parse.from_json(value)
