"""The web page without Gradio: what may be asked for, pictures as they come, what is open."""

import asyncio
import dataclasses
import importlib.util
import json
import os
import re
import socket
import struct
import time
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffjax import sample
from diffjax.app import __main__ as command
from diffjax.app import drawing, frames, gate, limits, server, uploads, values
from diffjax.app.answers import Studio
from diffjax.app.followers import Followers
from diffjax.app.room import Room
from diffjax.app.values import Refused
from diffjax.build.stages import loading
from diffjax.core.errors import ConfigError
from diffjax.core.limits import MAX_SEED
from diffjax.editing import inpaint
from diffjax.generation import chain, folder, jobs, parse, recipe, rows
from diffjax.images import pixels, png
from diffjax.tasks.conditions import Class
from diffjax.tasks.critic import ClassifierCritic
from tests import tiny_cascade
from tests.test_sample_told import CLASSES

# prompt, negative, new seed, seed, guidance, steps, pictures
GOOD = ["a red apple", "", False, 3, 3.0, 2, 2]
NAMES = ["prompt", "negative", "new_seed", "seed", "guidance", "steps", "count"]
HUGE = 10**400
BAD = [
    *[("prompt", x) for x in ("", "  \n", None, 3, ["a"], {"a": 1}, True, "x" * 10_001, "\ud800")],
    *[("negative", x) for x in (3, [], "x" * 10_001, "\udfff")],
    *[("new_seed", x) for x in (None, 1, "yes", [])],
    *[("seed", x) for x in (-1, 2**31 - 1, 2**31, 1.5, "3", None, float("nan"), HUGE, True)],
    *[("guidance", x) for x in (-0.5, 30.5, 3.3, float("nan"), float("inf"), "3", None, HUGE)],
    *[("steps", x) for x in (0, -1, 251, 2.5, "32", None, float("inf"), 1e308, [32], False)],
    *[("count", x) for x in (0, 5, -1, 1.5, "1", None, 10**9, HUGE, float("-inf"))],
]


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))


def request(**changes):
    return [changes.get(name, value) for name, value in zip(NAMES, GOOD, strict=True)]


def test_a_request_is_jobs_with_seeds_one_after_the_other():
    wish = limits.wish(*request(negative=" pears "))
    assert wish.jobs == (jobs.Job("a red apple", 3, "pears"), jobs.Job("a red apple", 4, "pears"))
    assert (wish.guidance, wish.steps) == (3.0, 2)
    assert limits.wish(*request(negative=None)).jobs[0].negative is None
    assert limits.wish(*request(seed=2**31 - 2)).jobs[1].seed == MAX_SEED
    assert limits.wish(*request(steps=250.0, guidance=30)).steps == 250
    drawn = {limits.wish(*request(new_seed=True, seed="x")).jobs[0].seed for _ in range(9)}
    assert len(drawn) > 1


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_value_that_is_not_allowed_is_refused_in_one_line(name, value):
    with pytest.raises(Refused) as refused:
        limits.wish(*request(**{name: value}))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 120


def test_a_negative_prompt_without_guidance_is_refused():
    with pytest.raises(Refused, match="negative prompt: does nothing"):
        limits.wish(*request(negative="pears", guidance=1))


DIGITS = limits.Told(text=False, classes=Class(10), scaled=True)


def test_several_classes_are_drawn_with_the_same_seeds():
    wish = limits.wish([7, 10], "", False, 3, 2.0, 25, 2, 1.5, told=DIGITS)
    assert [(job.label, job.seed) for job in wish.jobs] == [(7, 3), (7, 4), (10, 3), (10, 4)]
    assert {job.prompt for job in wish.jobs} == {""}
    assert wish.scale == 1.5
    nothing = dataclasses.replace(DIGITS, classes=None)
    assert limits.wish("", seed=3, told=nothing).jobs == (jobs.Job("", 3),)


@pytest.mark.parametrize(
    ("words", "changes", "told"),
    [
        *[("class: choose at least one", {"prompt": x}, {}) for x in ([], "", None, "3", 3, {})],
        *[("class: want a whole", {"prompt": [x]}, {}) for x in (11, -1, 1.5, "3", None, True)],
        ("class: is chosen twice", {"prompt": [1, 1]}, {}),
        ("class: at most 16", {"prompt": [*range(10)] * 2}, {}),
        ("5 classes of 4 each are more than 16", {"prompt": [*range(5)], "count": 4}, {}),
        ("class: want a whole number from 0 to 9", {"prompt": [10]},
         {"classes": Class(10, null=False)}),
        ("negative prompt: this model takes no text", {"negative": "pears"}, {}),
        ("guidance: this model has none", {"guidance": 2.0}, {"weighed": False}),
        ("steps: want a whole number from 1 to 50", {"steps": 51}, {"steps": 50}),
        ("classifier guidance: there is no classifier", {"scale": 1}, {"scaled": False}),
        ("classifier guidance: 0 is off", {"scale": 0}, {"must_scale": True}),
        *[("classifier guidance: want", {"scale": x}, {}) for x in (-1, 31, None, "1", HUGE)],
        ("classifier guidance: 0.3 is not a multiple", {"scale": 0.3}, {}),
    ],
)  # fmt: skip
def test_what_a_model_of_classes_cannot_be_told_is_refused_in_one_line(words, changes, told):
    asked = {"prompt": [3], "guidance": 1, "steps": 2, "scale": 1, **changes}
    with pytest.raises(Refused, match=re.escape(words)) as refused:
        limits.wish(**asked, told=dataclasses.replace(DIGITS, **told))
    assert "\n" not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NAMES), JSON | st.integers(-3, 300) | st.floats(-1, 40))
def test_no_value_out_of_bounds_is_accepted(name, value):
    try:
        wish = limits.wish(*request(**{name: value}))
    except Refused:
        return
    assert 1 <= len(wish.jobs) <= 4
    assert all(0 <= job.seed < 2**31 and 0 < len(job.prompt) <= 10_000 for job in wish.jobs)
    assert 1 <= wish.steps <= 250
    assert 0 <= wish.guidance <= 30
    assert (2 * wish.guidance).is_integer()


def saved(folder, name, pixels_):
    path = folder / name
    Image.fromarray(pixels_).save(path)
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


COLOURS = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)


def layer(top=6, bottom=12, shape=(20, 16)):
    pixels_ = np.zeros((*shape, 4), np.uint8)
    pixels_[top:bottom, 5:12] = (255, 0, 255, 255)
    pixels_[0, 0] = (255, 0, 255, 127)  # more transparent than not
    return pixels_


def test_the_mask_is_what_any_layer_covers(tmp_path):
    sent = {
        "background": saved(tmp_path, "b.png", COLOURS),
        "layers": [saved(tmp_path, "l.png", layer()), saved(tmp_path, "m.png", layer(1, 2))],
        "composite": None,
    }
    painting = uploads.painting(sent, tmp_path)
    np.testing.assert_array_equal(painting.picture, COLOURS)
    expected = np.zeros((20, 16), bool)
    expected[6:12, 5:12] = expected[1:2, 5:12] = True
    np.testing.assert_array_equal(painting.mask, expected)


def bomb(path, side=20_000):
    """A PNG of a hundred bytes whose header claims `side` x `side` pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    path.write_bytes(
        png.SIGNATURE
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    return {"path": str(path)}


def test_invalid_paintings_are_refused(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    whole, painted = saved(folder, "b.png", COLOURS), saved(folder, "l.png", layer())
    outside = saved(tmp_path, "outside.png", COLOURS)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "letter.png").write_text("dear")
    cut = (folder / "b.png").read_bytes()[:-200]
    (folder / "cut.png").write_bytes(cut)
    bad = {
        "want what": [None, 3, [], {"background": whole, "layers": 3}],
        "upload one": [{}, {"background": None, "layers": [painted]}],
        "want an uploaded": [{"background": "b.png"}, {"background": {"path": "a\0b"}}],
        "no longer here": [
            {"background": outside},
            {"background": {"path": f"{folder}/../outside.png"}},
            {"background": {"path": "/etc/passwd"}},
            {"background": {"path": str(folder / "link.png")}},
            {"background": {"path": str(folder)}},
        ],
        "more than 8 layers": [{"background": whole, "layers": [painted] * 9}],
        "not a picture of": [{"background": {"path": str(folder / "letter.png")}}],
        "damaged": [{"background": {"path": str(folder / "cut.png")}, "layers": [painted]}],
        "16 million": [
            {"background": bomb(folder / "bomb.png")},
            {"background": bomb(folder / "small_bomb.png", 4001)},
            {"background": whole, "layers": [bomb(folder / "bomb.png")]},
        ],
        "paint over": [
            {"background": whole, "layers": []},
            {"background": whole, "layers": [saved(folder, "n.png", layer(0, 0))]},
        ],
        "what is painted is not": [
            {"background": whole, "layers": [saved(folder, "s.png", layer(shape=(20, 17)))]}
        ],
    }
    for words, sent in bad.items():
        for value in sent:
            with pytest.raises(Refused, match=words) as refused:
                uploads.painting(value, folder)
            assert "\n" not in str(refused.value)
            assert str(tmp_path) not in str(refused.value)


WISH = limits.Wish((jobs.Job("a red apple", 3), jobs.Job("a frog", 9)), 2.0, 3)


def test_pictures_come_a_stage_at_a_time_with_the_bytes_of_the_command(cascade):
    here = drawing.wished(cascade, WISH)
    assert [stage.settings.num_steps for stage in here.stages] == [3, 2]
    came = drawing.draw(here, WISH.jobs)
    first = next(came)
    assert (first.index, first.stage, first.picture.shape) == (0, 0, (8, 8, 3))
    made = [first, *came]
    assert [(one.stage, one.index) for one in made] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    expected = list(rows.make(here, WISH.jobs))
    for one in made:
        np.testing.assert_array_equal(one.picture, expected[one.index][one.stage])


def test_a_student_draws_with_the_first_settings_and_its_teacher_does_all_else(cascade, tmp_path):
    own = dataclasses.replace(cascade.stages[0].settings, num_steps=4, guidance_weight=1.0)
    few = cascade.with_settings([own, cascade.stages[1].settings])
    studio = Studio(cascade, Room(tmp_path), Followers(), few=few)
    assert studio.first is few

    def used(guidance, steps, **paints):
        here = studio.wished(limits.Wish(WISH.jobs, guidance, steps), **paints)
        settings = here.stages[0].settings
        return settings.guidance_weight, settings.num_steps

    assert used(1.0, 4) == (1.0, 4)
    assert used(1.0, 4, paints=True) == (3.0, 2)  # as its teacher's config says
    assert used(1.0, 9) == (1.0, 9)
    assert used(2.0, 4, paints=True) == (2.0, 4)
    alone = dataclasses.replace(studio, few=None)
    assert alone.first is cascade
    assert alone.wished(WISH).stages[0].settings.num_steps == WISH.steps


def test_a_full_batch_comes_in_the_same_order(cascade, monkeypatch):
    monkeypatch.setattr(rows, "rows_per_call", lambda: 3)
    made = list(drawing.draw(cascade, WISH.jobs))
    assert [(one.stage, one.index) for one in made] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for one in made:
        np.testing.assert_array_equal(
            one.picture, list(rows.make(cascade, WISH.jobs))[one.index][one.stage]
        )


def test_painting_anew_equals_inpainting_and_changes_nothing_outside_the_mask(cascade):
    mask = np.zeros((16, 16), bool)
    mask[4:10, 5:12] = True
    given_ = COLOURS[:16]
    made = list(drawing.paint(cascade, WISH.jobs[:1], uploads.Painting(given_, mask)))
    assert [one.stage for one in made] == [0, 1]
    np.testing.assert_array_equal(made[1].picture[~mask], given_[~mask])
    columns = chain.prompt_columns(*rows.embedded(cascade.encoder, ["a red apple"]))
    expected = inpaint.inpaint(
        cascade.stages,
        columns,
        picture=pixels.from_uint8(jnp.asarray(given_[None])),
        mask=jnp.asarray(mask[None, :, :, None]),
        seeds=jnp.array([3]),
    )
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one.picture, rows.to_bytes(other)[0])


def test_a_picture_of_the_page_is_made_again_byte_for_byte(cascade, tmp_path, monkeypatch):
    wish = dataclasses.replace(WISH, jobs=(jobs.Job("a red apple", 3, "pears"),))
    here = drawing.wished(cascade, wish)
    told = lambda job: drawing.drawn_of(job, here)  # noqa: E731
    for frame in frames.shown_frames(
        here, tmp_path, wish.jobs, drawing.draw(here, wish.jobs), told
    ):
        last = frame
    small, large = (stage[0][0] for stage in last.stages)
    assert last.told == "16 px: 1 of 1"
    assert os.stat(os.path.dirname(large)).st_mode & 0o777 == 0o700
    monkeypatch.setattr(loading, "load", lambda dirs, ema, verify, steps: cascade)
    monkeypatch.setattr("diffjax.devices.mesh.keep_compilations", lambda: None)
    flags = ["--stages", "a,b", "--like", large, "--out", str(tmp_path / "again")]
    assert sample.main(flags) == 0
    for path in map(Path, (small, large)):
        (again,) = (tmp_path / "again").glob(f"*_{png.read_size(path)[0]}px.png")
        assert again.read_bytes() == path.read_bytes()


def guided(scale):
    """The toy model of classes with a classifier, as the page begins."""
    stage = CLASSES.stages[0]
    critic = ClassifierCritic(stage.task.model, 4)
    task = dataclasses.replace(stage.task, classifier=critic, frozen={"classifier": {}})
    how = dataclasses.replace(task.settings, classifier_guidance=scale)
    stage = dataclasses.replace(stage, task=dataclasses.replace(task, settings=how))
    of = dataclasses.replace(CLASSES.origins[0], classifier=CLASSES.origins[0])
    return drawing.at_start(dataclasses.replace(CLASSES, stages=(stage,), origins=(of,)))


def test_classes_are_drawn_with_the_bytes_and_the_metadata_of_the_command(tmp_path):
    told = drawing.told_of(CLASSES)
    assert (told.text, told.classes, told.weighed, told.scaled) == (
        False,
        CLASSES.classes,
        True,
        False,
    )
    wish = limits.wish([3, 1], seed=5, guidance=2, steps=1, told=told)
    here = drawing.wished(CLASSES, wish)
    said = lambda job: drawing.drawn_of(job, here)  # noqa: E731
    *_, last = frames.shown_frames(
        here, tmp_path, wish.jobs, drawing.draw(here, wish.jobs), said
    )  # fmt: skip
    (shown,) = last.stages
    assert [caption for _, caption in shown] == ["hen (5)", "red dog (5)"]
    for (path, _), job, (expected,) in zip(
        shown, wish.jobs, rows.make(here, wish.jobs), strict=True
    ):
        np.testing.assert_array_equal(png.read(Path(path)), expected)
        (made,) = folder.recipes_of(job, here)
        assert png.read_metadata(Path(path)) == recipe.to_json(made)
    mask = np.zeros((8, 8), bool)
    mask[2:5] = True
    painting = uploads.Painting(COLOURS[:8, :8], mask)
    (made,) = drawing.paint(here, wish.jobs[:1], painting)
    np.testing.assert_array_equal(made.picture[~mask], painting.picture[~mask])
    assert np.unique(made.picture[mask]) == [round((2 * 3 / 8 - 4 / 8 + 1) * 127.5)]
    (said,) = drawing.painted_of(wish.jobs[0], here, painting)
    assert (said["label"], said["edit"]["prompted"]) == (3, False)


def test_a_visitor_sets_the_scale_of_the_classifier_and_0_leaves_it_out():
    """The page begins with the scale of the config, or with 1."""
    assert [guided(x).stages[0].settings.classifier_guidance for x in (0.0, 2.6)] == [1.0, 2.5]
    here = guided(0.0)
    wish = limits.Wish((jobs.Job("", 0, label=1),), 1.0, 1, 4.0)
    (stage,) = drawing.wished(here, wish).stages
    assert (stage.settings.classifier_guidance, stage.task.classifier is None) == (4.0, False)
    off = drawing.wished(here, dataclasses.replace(wish, scale=0.0))
    assert (off.stages[0].task.classifier, off.origins[0].classifier) == (None, None)
    assert drawing.told_of(here).scaled
    assert not drawing.told_of(here).must_scale  # the stage knows the classes too


def test_the_page_begins_with_no_more_steps_than_a_visitor_may_ask_for():
    many = [dataclasses.replace(one.settings, num_steps=1000) for one in CLASSES.stages]
    here = drawing.at_start(CLASSES.with_settings(many))
    assert here.stages[0].settings.num_steps == 250


def test_a_guide_that_is_no_classifier_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="holds no classifier"):
        command.guided(CLASSES, [], str(tmp_path / "weaker"))


def test_with_a_clip_pictures_say_how_well_they_fit_and_the_best_come_first(cascade, tmp_path):
    score = lambda prompt, picture: {"a red apple": 0.1, "a frog": 0.25}[prompt]  # noqa: E731
    told = lambda job: drawing.drawn_of(job, cascade)  # noqa: E731
    made = drawing.draw(cascade, WISH.jobs)
    *_, last = frames.shown_frames(cascade, tmp_path, WISH.jobs, made, told, score)
    assert last.scores == [0.1, 0.25]
    assert [caption for _, caption in last.stages[0]] == ["a red apple (3)", "a frog (9)"]
    kept, others = frames.ranked(last)
    captions = ["a frog (9), fits 0.250", "a red apple (3), fits 0.100"]
    assert ([one.caption for one in kept], others) == (captions, [])
    assert kept[0].paths == (last.stages[0][1][0], last.stages[1][1][0])
    assert frames.ranked(last, only_best=True) == (kept[:1], kept[1:])
    plain, others = frames.ranked(last._replace(scores=()), only_best=True)
    assert not others
    assert [one.paths for one in plain] == [one.paths for one in reversed(kept)]


@pytest.mark.parametrize("value", [None, 1, "yes", [True]])
def test_a_switch_is_true_or_false(value):
    assert values.switch("only the best", True) is True
    with pytest.raises(Refused, match="only the best: want true or false"):
        values.switch("only the best", value)


def test_the_metadata_of_a_painted_picture_say_what_it_was_made_of(cascade):
    mask = np.ones((20, 16), bool)
    said = drawing.painted_of(WISH.jobs[0], cascade, uploads.Painting(COLOURS, mask))
    assert [(one["kind"], len(one["stages"])) for one in said] == [("inpaint", 1), ("inpaint", 2)]
    assert said[1]["edit"]["resample"] == [10, 1]
    assert len(said[1]["edit"]["mask"]) == 64


def test_kept_pictures_cannot_be_guessed_and_are_forgotten(tmp_path):
    made = drawing.Drawn(0, 0, COLOURS[:16])
    paths = [drawing.keep(tmp_path, WISH.jobs[0], made, [{"kind": "x"}]) for _ in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].parent != paths[1].parent
    assert len(paths[0].parent.name) == 32
    drawing.forget([*paths, tmp_path / "gone" / "x.png"])
    assert list(tmp_path.iterdir()) == []


def test_old_files_are_deleted_and_new_ones_stay(tmp_path):
    for age in (0, 100):
        (tmp_path / str(age)).write_text("x")
        os.utime(tmp_path / str(age), (time.time() - age,) * 2)
    Room(tmp_path).delete_old(time.time() - 50)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def answer(folder, method, path, body=b"", headers=()):
    """(status, body that reached the server or None) of one request through the gate."""
    reached, sent = [], []

    async def app(scope, receive, send):
        reached.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    headers = headers or [(b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(gate.gate(app, folder)(scope, receive, send))
    return sent[0]["status"], reached[0] if reached else None


TOKEN = "0123456789abcdef" * 2


def test_only_the_addresses_that_the_page_needs_are_open(tmp_path):
    own = f"/gradio_api/file={tmp_path}/{TOKEN}"
    for path in ["/", "/config", "/assets/i-a.js", "/theme.css", f"{own}/seed3_64px.png",
                 "/gradio_api/queue/data", "/gradio_api/heartbeat/abc"]:  # fmt: skip
        assert answer(tmp_path, "GET", path)[0] == 200, path
    closed = [
        "/gradio_api/file=/etc/passwd", f"/gradio_api/file={tmp_path}/../etc/passwd",
        f"{own}/../../../etc/passwd", f"{own}/..", f"{own}/a/b", f"/gradio_api/file={tmp_path}",
        f"/gradio_api/file={tmp_path}/{TOKEN}", "/gradio_api/file=http://example.org/x.png",
        f"/gradio_api/file=x{tmp_path}/{TOKEN}/a.png", "/gradio_api/proxy=http://example.org",
        "/gradio_api/deep_link", "/monitoring", "/monitoring/summary", "/gradio_api/file/etc/x",
        "/assets/../../../etc/passwd", "/static/..", "/gradio_api/runs", "/gradio_api/vibe-code",
        "/gradio_api/custom_component/a/client/x/y", "/docs", "/gradio_api/queue/status",
    ]  # fmt: skip
    for path in closed:
        assert answer(tmp_path, "GET", path) == (404, None), path
    for path in ["/", "/gradio_api/run/draw", "/gradio_api/call/draw", "/gradio_api/api/draw",
                 "/gradio_api/component_server", "/gradio_api/process_recording",
                 "/gradio_api/upload/../x", "/gradio_api/run-history/connect"]:  # fmt: skip
        assert answer(tmp_path, "POST", path, b"{}") == (404, None), path
    assert answer(tmp_path, "PUT", "/gradio_api/upload", b"{}") == (404, None)
    assert answer(tmp_path, "DELETE", "/")[0] == 404


def test_bodies_are_limited_in_size_and_may_name_only_files_of_the_page(tmp_path):
    join, upload = "/gradio_api/queue/join", "/gradio_api/upload"
    file = {"path": f"{tmp_path}/{TOKEN}/image.png", "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": ["a", [file]], "fn_index": 0}).encode()
    assert answer(tmp_path, "POST", join, body) == (200, body)
    for path in ["http://example.org/x.png", "/etc/passwd", f"{tmp_path}/x.png", 3, [], {},
                 f"{tmp_path}/{TOKEN}/../../x.png"]:  # fmt: skip
        body = json.dumps({"data": [[{"a": {**file, "path": path}}]]}).encode()
        assert answer(tmp_path, "POST", join, body) == (400, None), path
    for body in [b"", b"{", b"\xff", b"[" * 100_000]:
        assert answer(tmp_path, "POST", join, body) == (400, None)
    assert answer(tmp_path, "POST", join, b" " * (gate.POSTS[join] + 1)) == (413, None)
    assert answer(tmp_path, "POST", upload, b"", [(b"content-length", b"99999999999")])[0] == 413
    for lengths in [(b"x", b"1"), (b"content-length", b"-1"), (b"content-length", b"x")]:
        assert answer(tmp_path, "POST", upload, b"x", [lengths]) == (411, None)


def test_the_longest_prompts_fit_into_a_request(tmp_path):
    longest = "\U0001f34f" * parse.MAX_PROMPT_CHARACTERS
    body = json.dumps({"data": [longest, longest, False, 0, 3, 2, 1]}).encode()
    assert answer(tmp_path, "POST", "/gradio_api/queue/join", body)[0] == 200


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name)
    )
    assert command.main([]) == 2
    assert capsys.readouterr().err == "the page needs Gradio: pip install 'diffjax[app]'\n"


def test_mistakes_in_the_flags_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        bad = [["--auth", "secret"], ["--auth", ":secret"], ["--port", "0"], ["--port", "65536"],
               ["--port", port], ["--host", "203.0.113.7"]]  # fmt: skip
        for flags in bad:
            assert command.main([*flags, "--workdir", "nowhere"]) == 2
            err = capsys.readouterr().err
            assert err.splitlines()[-1].startswith("config error: --")
            assert "secret" not in err


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        (["--host", "0.0.0.0"], True), (["--host", "::"], True), ([], False),
        (["--host", "0.0.0.0", "--auth", "a:b"], False), (["--host", "localhost"], False),
    ],
)  # fmt: skip
def test_a_page_that_others_can_reach_without_a_password_prints_a_warning(
    flags, warned, monkeypatch, capsys
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(command, "check_free", lambda host, port: None)
    assert command.main([*flags, "--workdir", "nowhere"]) == 2
    assert ("warning: anyone who reaches" in capsys.readouterr().err) == warned


def test_variables_of_gradio_change_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_SHARE", "GRADIO_TEMP_DIR", "GRADIO_NEW_ONE"):
            patch.setenv(name, "/")
        patch.setenv("NO_PROXY", "example.org")
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_NUM_WORKERS"):
            patch.setenv(name, "")
        for name in ("HF_HUB_DISABLE_TELEMETRY", "no_proxy"):
            patch.setenv(name, "")
        server.own_environment(tmp_path)
        left = {name: x for name, x in os.environ.items() if name.startswith("GRADIO_")}
        told = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
        assert left == {**told, "GRADIO_TEMP_DIR": str(tmp_path), "GRADIO_NUM_WORKERS": "0"}
        assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"
