"""How to add to diffjax from outside: each newcomer takes at most 40 lines, and really runs."""

import dataclasses
import inspect
import json
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import checkpoint
from diffjax.core import rng
from diffjax.core.digest import digest_of
from diffjax.data import pipeline
from diffjax.data.readers import caption, picture
from diffjax.devices import mesh as mesh_lib
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.sampling import sampler
from diffjax.evaluation.evaluator import Evaluator
from diffjax.evaluation.examples import Examples
from diffjax.evaluation.extractors.extractor import Extractor, features
from diffjax.evaluation.extractors.open import KINDS, Kind, open_extractor
from diffjax.tasks.conditions import Class
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import ALONE, Losses, register
from diffjax.training import loop, optim
from diffjax.training.program import Training, program_of
from diffjax.training.run import Data, LoopSettings, Run, Shown
from tests.tiny_cascade import Told

RULES = ((r".*", (None, None)),)


class Numbers:
    """An endless source of [4]-vectors around one of three centres; its position is a number."""

    def __init__(self, rows=16):
        self.rows, self.position = rows, 0

    def __next__(self):
        batch = self.at(self.position)
        self.position += self.rows
        return batch

    def at(self, position):
        random = np.random.default_rng(position)
        label = random.integers(0, 3, self.rows)
        x = np.eye(4, dtype=np.float32)[label] + 0.1 * random.standard_normal((self.rows, 4))
        return {"x": x.astype(np.float32), "label": label.astype(np.int32)}

    def get_state(self):
        return {"next_example": self.position}

    def set_state(self, state):
        self.position = int(state["next_example"])


def run_of(task, folder, num_steps=6, devices=1, measures=(), scores=()):
    """A run of any task over `Numbers`, checkpointed and evaluated every second step."""
    rate = optim.learning_rate(1e-2, warmup_steps=1, num_steps=100)
    training = Training(
        task, optim.optimiser("adam", rate), rate, ("decay_0.9",),
        mesh_lib.make_mesh(devices=jax.devices()[:devices]), seed=0, batch_size=16, parts=1,
        log_every=2,
    )  # fmt: skip
    shown = Shown({"x": np.zeros((2, 4), np.float32)}, ("a", "b"))
    settings = LoopSettings(num_steps=num_steps, log_every=2, save_every=2, evaluate_every=2)
    evaluate = None
    if measures or scores:
        held_out = Examples({"x": Numbers().at(99)["x"]}, ("",) * 16, ("",) * 16)
        evaluate = Evaluator(task, held_out, measures, scores, training.mesh, rows=16, seed=0)
    data = lambda: Data(Numbers(), shown, evaluate)  # noqa: E731
    return Run(training, settings, folder, "{}", "decay_0.9", data)


def trained(task, folder, **options):
    """The state at the end of a run, and its report."""
    run = run_of(task, folder, **options)
    report = loop.train(run)
    found = checkpoint.open_dir(folder / "checkpoints", keep=3, keep_every=0)
    state, _ = checkpoint.restore(found, program_of(run.training).place.state_shape)
    return state, report


def resumes_exactly(task, folder):
    """Two runs of 3 and 6 steps end where one of 6 steps does."""
    whole, report = trained(task, folder / "whole")
    trained(task, folder / "parts", num_steps=4)
    parts, _ = trained(task, folder / "parts")
    assert digest_of(whole, {}) == digest_of(parts, {})
    return report


def short(*newcomers):
    """Each newcomer is at most 40 lines."""
    for one in newcomers:
        assert len(inspect.getsource(one).splitlines()) <= 40, one


# --- a sampler: a step rule


def halfway():
    """A rule that goes half of DDIM's way in noise: x_s from the guess and half of the noise."""

    def step(denoise, x_t, logsnr_t, logsnr_s, *, key):
        x_0_hat = denoise(x_t, logsnr_t)
        return diffuse(x_0_hat, jnp.zeros_like(x_t), logsnr_s)

    return step


def test_a_new_sampler_is_a_step_rule():
    """With a perfect denoiser it ends on the data."""
    short(halfway)
    x_0 = jnp.arange(8.0).reshape(2, 4) / 8
    x = sampler.sample(
        lambda x_t, logsnr_t: x_0, jnp.ones((2, 4)), logsnrs=jnp.array([-5.0, 0.0, jnp.inf]),
        step=halfway(), key=None,
    )  # fmt: skip
    np.testing.assert_allclose(x, x_0, atol=1e-6)


# --- a condition: one class, and an input of a network


class Angle(Class):
    """A condition told as an angle on a circle, which a label is turned into."""

    def told(self, batch):
        label = super().told(batch)["label"]
        return {"angle": 2 * jnp.pi * label / (self.num + 1)}

    def given(self, columns, keys, settings):
        return {"angle": 2 * jnp.pi * columns["label"] / (self.num + 1)}

    def absent(self, given, columns):
        return {"angle": jnp.full_like(given["angle"], 2 * jnp.pi * self.num / (self.num + 1))}


class Toy(nn.Module):
    """x_0 of a vector, its level and an angle."""

    sharding: ClassVar = RULES

    @nn.compact
    def __call__(self, x_t, logsnr_t, angle):
        told = jnp.stack([logsnr_t / 10, jnp.sin(angle), jnp.cos(angle)], axis=-1)
        return nn.Dense(4)(nn.silu(nn.Dense(32)(jnp.concatenate([x_t, told], axis=-1))))


def test_a_new_condition_trains_resumes_and_guides(tmp_path):
    short(Angle, Toy)
    task = Denoising(
        "angle", Toy(), (4,), (Angle(3, drop=0.1),), predict="x_0", weighting="x_0", of="x",
        settings=SampleSettings(num_steps=4, guidance_weight=2.0, threshold="none"),
    )  # fmt: skip
    report = resumes_exactly(task, tmp_path)
    assert np.isfinite(report.last_loss)
    params = jax.jit(task.init)(jax.random.key(0))
    keys = rng.per_example(jnp.arange(2))
    from diffjax.tasks.sampling import sample

    how = dict(task=task, settings=task.settings)
    one = sample(params, {"label": jnp.array([0, 1])}, keys, **how)
    other = sample(params, {"label": jnp.array([1, 1])}, keys, **how)
    assert float(jnp.abs(one[0] - other[0]).max()) > 0
    np.testing.assert_allclose(one[1], other[1], atol=1e-6)


# --- a critic: a log-probability whose gradient guides


@dataclasses.dataclass(frozen=True)
class Near:
    """Says that data are the likelier the nearer they are to the column `wanted`."""

    of_clean: bool = True
    reads: tuple = ("wanted",)

    def log_prob(self, params, columns, x, logsnr):
        return -params["weight"] * jnp.sum((x - columns["wanted"]) ** 2, axis=-1)


def test_a_new_critic_guides_to_what_its_column_says():
    from diffjax.tasks.sampling import sample

    short(Near)
    task = Denoising(
        "toy", Told(lambda x_t, logsnr_t: 0.5 * jnp.tanh(x_t)), (4,), predict="x_0",
        critic=Near(), frozen={"critic": {"weight": jnp.float32(1.0)}},
    )  # fmt: skip
    how = SampleSettings(num_steps=8, sampler="ddim", threshold="none", guidance_from=-2.0)
    wanted, far = {"wanted": jnp.full((2, 4), 0.4)}, []
    for scale in (0.0, 0.5):
        settings = dataclasses.replace(how, clip_guidance=scale)
        made = sample({}, wanted, jax.random.split(jax.random.key(0)), task=task, settings=settings)
        far.append(np.linalg.norm(made - wanted["wanted"], axis=1))
    assert (far[1] < 0.95 * far[0]).all()


# --- a task with frozen weights, and one that compares examples


@register
@dataclasses.dataclass(frozen=True)
class Imitating:
    """Learns a linear map to say what a frozen one says."""

    frozen: dict = dataclasses.field(default_factory=dict, compare=False)
    name: str = "imitating"
    whole_batch: bool = False
    sharding: tuple = RULES

    def columns(self):
        return {"x": jax.ShapeDtypeStruct((4,), jnp.float32)}

    def init(self, key):
        return {"map": 0.1 * jax.random.normal(key, (4, 2))}

    def draw(self, key, batch, step):
        return {**batch, "noise": 0.01 * jax.random.normal(key, batch["x"].shape)}

    def loss(self, params, batch, peers=ALONE):
        x = batch["x"] + batch["noise"]
        error = jnp.mean((x @ params["map"] - x @ self.frozen["teacher"]) ** 2, axis=-1)
        return Losses(error, {"error": jnp.sqrt(error)})

    def preview(self, params, batch, keys):
        return {"made": batch["x"] @ params["map"]}


def test_a_new_task_with_frozen_weights_trains_and_resumes(tmp_path):
    """Its frozen weights are no constants of the program and are never trained."""
    short(Imitating)
    teacher = jax.random.normal(jax.random.key(5), (4, 2))
    task = Imitating({"teacher": teacher})
    resumes_exactly(task, tmp_path)
    state, report = trained(task, tmp_path / "long", num_steps=200)
    assert report.last_loss < 0.3 * report.first_loss
    assert jax.tree.leaves(task) == [teacher]
    assert set(state.params) == {"map"}


@register
@dataclasses.dataclass(frozen=True)
class Pairing:
    """Learns to tell each vector's noisy twin among those of the whole batch."""

    frozen: dict = dataclasses.field(default_factory=dict, compare=False)
    name: str = "pairing"
    whole_batch: bool = True
    sharding: tuple = RULES

    def columns(self):
        return {"x": jax.ShapeDtypeStruct((4,), jnp.float32)}

    def init(self, key):
        return {"map": jax.random.normal(key, (4, 8))}

    def draw(self, key, batch, step):
        return {**batch, "twin": batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)}

    def loss(self, params, batch, peers=ALONE):
        mine, twin = batch["x"] @ params["map"], batch["twin"] @ params["map"]
        scores = jax.nn.log_softmax(mine @ peers.all(twin).T)
        right = scores[jnp.arange(len(mine)), peers.mine(len(mine))]
        return Losses(-right, {})

    def preview(self, params, batch, keys):
        return {"made": batch["x"] @ params["map"]}


def test_a_new_task_that_compares_examples_is_the_same_on_eight_devices_as_on_one(tmp_path):
    short(Pairing)
    resumes_exactly(Pairing(), tmp_path)
    one, alone = trained(Pairing(), tmp_path / "one")
    eight, spread = trained(Pairing(), tmp_path / "eight", devices=8)
    assert spread.last_loss == pytest.approx(alone.last_loss, rel=1e-5)
    np.testing.assert_allclose(eight.params["map"], one.params["map"], atol=1e-5)


def test_a_task_that_compares_examples_is_not_trained_in_parts(tmp_path):
    run = run_of(Pairing(), tmp_path)
    parts = dataclasses.replace(run, training=dataclasses.replace(run.training, parts=2))
    with pytest.raises(Exception, match=r"train\.accumulate = 2.*compares"):
        loop.train(parts)


# --- what is asked of held-out examples: a measure of each row, and a score of what is made


def agreement(task, params, batch, keys):
    """Whether the first output has the teacher's sign; no number where the teacher says 0."""
    mine, wanted = batch["x"] @ params["map"], batch["x"] @ task.frozen["teacher"]
    agree = jnp.where(mine[:, 0] * wanted[:, 0] > 0, 1.0, 0.0)
    return {"agrees": jnp.where(wanted[:, 0] == 0, jnp.nan, agree)}


def variety(made, examples):
    """One number of the whole set, as an FID is: how far apart what the task made lies."""
    return {"variety": np.std(made["made"], axis=0).mean()}


def test_a_new_measure_and_a_new_score_are_logged_by_the_loop_and_change_no_training(tmp_path):
    short(agreement, variety)
    task = Imitating({"teacher": jax.random.normal(jax.random.key(5), (4, 2))})
    asked = dict(measures=(agreement,), scores=(variety,))
    with_them, _ = trained(task, tmp_path / "with", **asked)
    without, _ = trained(task, tmp_path / "without")
    assert digest_of(with_them, {}) == digest_of(without, {})
    x = Numbers().at(99)["x"]
    params = with_them.ema_params["decay_0.9"]
    made, wanted = x @ np.asarray(params["map"]), x @ np.asarray(task.frozen["teacher"])
    lines = [json.loads(line) for line in (tmp_path / "with/metrics.jsonl").open()]
    found = [line for line in lines if "evaluate/agrees" in line]
    assert [line["step"] for line in found] == [2, 4, 6]
    assert found[-1]["evaluate/agrees"] == pytest.approx(np.mean(made[:, 0] * wanted[:, 0] > 0))
    assert found[-1]["evaluate/variety"] == pytest.approx(made.std(axis=0).mean(), rel=1e-4)


# --- a metric: a function of each row


class Counting(Imitating):
    """The same task, and one more figure: how often the sign of the first output is right."""

    def loss(self, params, batch, peers=ALONE):
        losses = super().loss(params, batch, peers)
        right = (batch["x"] @ params["map"])[:, 0] * (batch["x"] @ self.frozen["teacher"])[:, 0] > 0
        return Losses(losses.per_example, {**losses.metrics, "right": right.astype(jnp.float32)})


def test_a_new_metric_is_a_line_of_the_log(tmp_path):
    short(Counting)
    register(Counting)
    trained(Counting({"teacher": jnp.ones((4, 2))}), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert all('"right": ' in line and '"error": ' in line for line in lines)


def test_a_new_source_is_a_length_and_an_item_by_index():
    """Any sequence of records trains: here two, in memory."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    records = [{"image": out.getvalue(), "captions": ("a square",), "name": f"{i}"} for i in (0, 1)]
    batch = next(pipeline.train_iterator(records, [picture(8), caption], batch_size=3, seed=0))
    assert batch["image"].shape == (3, 8, 8, 3)
    assert list(batch["caption"]) == ["a square"] * 3


def test_a_new_extractor_is_a_pure_function_and_a_line_of_the_kinds(monkeypatch):
    def brightness(params, pictures):
        return params["gain"] * pictures.mean((1, 2))

    def opened(place):
        gain = {"gain": jnp.float32(place)}
        return Extractor(f"brightness {place}", "none", 3, "fd_lite0", gain, brightness)

    monkeypatch.setitem(KINDS, "brightness", Kind(opened, "GAIN"))
    pictures = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    found = features(open_extractor("brightness:2"), pictures, mesh=mesh_lib.make_mesh())
    np.testing.assert_allclose(found, 2 * pictures.mean((1, 2)), rtol=1e-6)
    with pytest.raises(ValueError, match="brightness:GAIN"):
        open_extractor("brightness")


def test_optimiser_groups_stop_what_their_pattern_names():
    params = {"a": {"kernel": jnp.ones(3)}, "b": {"kernel": jnp.ones(3)}}
    rate = optim.learning_rate(0.1, warmup_steps=0, num_steps=10)
    tx = optim.optimiser("adam", rate, groups=(optim.parse_group("a/.* rate=0"),))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(moved["a"]["kernel"], 1.0)
    assert float(moved["b"]["kernel"][0]) < 1.0
