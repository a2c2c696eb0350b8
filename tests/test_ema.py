"""Averages made after training, from snapshots of a state that is split over 8 devices."""

import functools
import json
import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from configs import base64
from diffjax import ema, sample
from diffjax.build.options import config
from diffjax.build.stages import places
from diffjax.core import tensorfile
from diffjax.core.errors import ConfigError, StorageError
from diffjax.devices.mesh import make_mesh, state_sharding
from diffjax.models.layers.sharding import RULES
from diffjax.tasks.denoising import Denoising
from diffjax.training import averages, profiles, snapshots, state
from tests import runs
from tests.tasks.network import Network
from tests.tiny_t5 import save_tiny
from tests.training.test_two_processes import MESH, saved, together

NUM_STEPS, EVERY = 96, 8
NAMES = ["decay_0.9", "power_0.05", "power_0.1"]
SHAPES = {"stem": {"kernel": (3, 3, 4, 16)}, "mid": {"dense_0": {"kernel": (16, 8), "bias": (8,)}}}


@functools.cache
def walked(folder):
    """A random walk of 96 steps in a workdir, snapshots every 8; the parameters of each step."""
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    mesh, tx, kept = make_mesh(2, 4, 1), optax.sgd(1.0), averages.parse(NAMES)
    init = lambda key: jax.tree.map(lambda s: jnp.full(s, 3.0), SHAPES, is_leaf=is_shape)  # noqa: E731
    create = functools.partial(state.create, init, tx, NAMES)
    place = state_sharding(mesh, jax.eval_shape(create, jax.random.key(0)), RULES)

    def walk(current, key):
        leaves, structure = jax.tree.flatten(current.params)
        keys = jax.random.split(key, len(leaves))
        drawn = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
        gradients = jax.tree.unflatten(structure, drawn)
        return state.apply_gradients(current, gradients, tx, kept)

    step = jax.jit(walk, in_shardings=(place, None), out_shardings=place, donate_argnums=0)
    current = jax.jit(create, out_shardings=place)(jax.random.key(0))
    assert not current.ema_params["power_0.1"]["stem"]["kernel"].is_fully_replicated
    writer, history = snapshots.Snapshots(folder, NAMES, step=0), []
    for t, key in enumerate(jax.random.split(jax.random.key(1), NUM_STEPS), start=1):
        current = step(current, key)
        history.append(flat(jax.device_get(current.params)))
        if t % EVERY == 0:
            writer.save(t, current)
    writer.finish()
    (folder / "config.json").write_text('{"stage": "walk"}')
    return types.SimpleNamespace(folder=folder, history=np.stack(history), state=current)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(np.float64)


def flat_file(path):
    return np.concatenate(
        [np.ravel(tensorfile.read(path, name)) for name in sorted(tensorfile.shapes(path))]
    ).astype(np.float64)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return walked(tmp_path_factory.mktemp("walk"))


@pytest.fixture
def copy(run, tmp_path):
    """The workdir's snapshots, to be damaged."""
    for one in snapshots.find(run.folder):
        path = tmp_path / one.path.relative_to(run.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.path.read_bytes())
    return tmp_path


def test_snapshots_are_the_power_averages_bit_for_bit(run):
    found = snapshots.find(run.folder)
    assert [(one.step, one.name) for one in found] == [
        (step, name) for step in range(EVERY, NUM_STEPS + 1, EVERY) for name in NAMES[1:]
    ]
    assert tensorfile.verify(found[-1].path)["ema"] == "power_0.1"
    np.testing.assert_array_equal(
        flat_file(found[-1].path), flat(jax.device_get(run.state.ema_params["power_0.1"]))
    )


@pytest.mark.parametrize("step", [NUM_STEPS, 64])
@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.03, 0.07, 0.2])
def test_reconstructed_parameters_are_the_closed_forms(run, tmp_path, sigma_rel, step):
    """To 1e-6 of their size where that width was kept; else within the error that is said."""
    path, fit = ema.reconstruct(run.folder, sigma_rel, step, tmp_path / "x.safetensors")
    wanted = profiles.profiles_of([sigma_rel], [step])
    want = profiles.weights(wanted, NUM_STEPS)[0] @ run.history
    made, size = flat_file(path), np.abs(run.history).max()
    if f"power_{sigma_rel}" in NAMES:
        np.testing.assert_allclose(made, want, rtol=0, atol=1e-6 * size)
        assert fit.error < 1e-6
    norm = np.sqrt(profiles.inner(wanted, wanted)[0, 0])
    bound = fit.error * norm * np.linalg.norm(run.history[:step] - want, axis=0)
    rounding = 1e-6 * size * np.abs(fit.coefficients).sum()
    assert np.all(np.abs(made - want) <= bound + rounding)
    metadata = tensorfile.verify(path)
    assert (metadata["ema"], metadata["step"]) == (f"power_{sigma_rel:g}", str(step))
    assert json.loads(metadata["config"]) == {"stage": "walk"}


def test_the_table_names_every_snapshot_and_what_can_be_made(run, capsys):
    assert ema.main(["list", "--workdir", str(run.folder)]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^power_0\.(05|1) ", out, re.M)) == 2 * NUM_STEPS // EVERY
    error = float(re.search(r"^0\.07 +(\S+)$", out, re.M)[1])
    assert error == pytest.approx(ema.fitted(snapshots.find(run.folder), 0.07, 96).error, rel=0.1)


def test_the_command_writes_a_file_and_says_where(run, capsys):
    command = ["reconstruct", "--workdir", str(run.folder), "--sigma_rel", "0.08"]
    assert ema.main(command) == 0
    path = run.folder / "averages" / "power_0.08_00000096.safetensors"
    assert capsys.readouterr().out.startswith(f"{path}: profile error 0.0")
    assert tensorfile.verify(path)
    assert len(snapshots.find(run.folder)) == 2 * NUM_STEPS // EVERY  # it is no snapshot


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sigma_rel", "0.5"], ["--sigma_rel = 0.5", "0.2886"]),
        (["--sigma_rel", "0.1", "--step", "60"], ["--step = 60", "56, 64"]),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_line(run, capsys, flags, words):
    assert ema.main(["reconstruct", "--workdir", str(run.folder), *flags]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert all(word in message for word in words)


def test_a_workdir_without_snapshots_is_told_how_to_get_some(tmp_path, capsys):
    assert ema.main(["list", "--workdir", str(tmp_path)]) == 2
    assert "train.snapshot_every" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        ema.reconstruct(tmp_path, 0.1)


def test_a_damaged_snapshot_is_named_and_the_others_do_without_it(copy):
    bad = next(one.path for one in snapshots.find(copy) if one.step == 48)
    content = bytearray(bad.read_bytes())
    content[-5] ^= 1
    bad.write_bytes(content)
    with pytest.raises(StorageError, match=rf"{re.escape(str(bad))}.*damaged.*delete"):
        ema.reconstruct(copy, 0.07)
    bad.unlink()
    assert ema.reconstruct(copy, 0.07)[1].error < 0.05


def test_going_on_from_a_step_drops_the_snapshots_past_it(copy):
    before = snapshots.find(copy)
    left_over = before[0].path.with_name(".00000008.safetensors.tmp")
    left_over.write_bytes(b"half")
    snapshots.Snapshots(copy, NAMES, step=50)
    assert [one.path for one in snapshots.find(copy)] == [o.path for o in before if o.step <= 50]
    assert not left_over.exists()


def test_a_disk_that_takes_no_more_is_said_at_the_next_snapshot(run, tmp_path):
    (tmp_path / "averages").mkdir()
    (tmp_path / "averages" / "power_0.05").write_bytes(b"")  # a file where a folder must be
    writer = snapshots.Snapshots(tmp_path, NAMES, step=0)
    writer.save(8, run.state)
    with pytest.raises(StorageError, match=r"00000008\.safetensors"):
        writer.finish()


def test_without_power_averages_nothing_is_written(run, tmp_path):
    writer = snapshots.Snapshots(tmp_path, ["decay_0.9"], step=0)
    writer.save(8, run.state)
    writer.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_its_reconstruction_and_pictures_of_it(tmp_path, monkeypatch):
    """Train, go on, make the average that was stored anew: its pictures are the stored one's."""
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    encoder, workdir = save_tiny(tmp_path / "t5"), tmp_path / "base64"
    kept = 'train.ema=("decay_0.9","power_0.05","power_0.1")'
    for num_steps in (4, 8):
        last = f"train.num_steps={num_steps}"
        assert runs.run(workdir, encoder, kept, last, "optim.learning_rate=0.03") == 0
    assert [(one.step, one.name) for one in snapshots.find(workdir)] == [
        (step, name) for step in (2, 4, 6, 8) for name in NAMES[1:]
    ]
    made = tmp_path / "made.safetensors"
    flags = ["--workdir", str(workdir), "--sigma_rel", "0.1", "--out", str(made)]
    assert ema.main(["reconstruct", *flags]) == 0

    def picture(name):
        out = tmp_path / Path(name).stem
        flags = ["--workdir", str(workdir), "--prompt", "a red apple", "--out", str(out)]
        assert sample.main([*flags, "--ema", name]) == 0
        return np.asarray(Image.open(out / "0000_seed0_16px.png"), np.int32)

    stored, same, live = (picture(name) for name in ("power_0.1", str(made), "live"))
    assert np.abs(stored - same).max() <= 1  # of 255
    assert np.abs(stored - live).max() > 3


@pytest.mark.slow
def test_two_processes_that_hold_half_of_each_average_write_it_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    kept = 'train.ema=("power_0.05","power_0.1")'
    flags = (kept, *MESH, "train.num_steps=4", "train.sample_every=0")
    ended = together(tmp_path / "run", save_tiny(tmp_path / "t5"), *flags)
    assert [code for code, _, _ in ended] == [0, 0], ended
    current, _ = saved(tmp_path / "run")
    found = snapshots.find(tmp_path / "run")
    assert [one.step for one in found] == [2, 2, 4, 4]
    for one in found[2:]:
        assert tensorfile.verify(one.path)
        np.testing.assert_array_equal(flat_file(one.path), flat(current.ema_params[one.name]))


def test_sampling_refuses_a_file_of_another_model(run, tmp_path):
    path, _ = ema.reconstruct(run.folder, 0.1, out=tmp_path / "x.safetensors")
    stem = {"stem": {"kernel": jnp.zeros((3, 3, 4, 8))}}
    network = Network(None, init=lambda key, *inputs: {"params": stem})
    task = Denoising("walk", network, (8, 8, 3))
    with pytest.raises(
        ConfigError, match=r"--ema.*mid/dense_0/bias is \(8,\) in the file and miss"
    ):
        places.params_of(base64.get_config("tiny"), Path("w"), task, str(path))


def test_a_workdir_of_one_unnamed_average_is_refused_in_a_line(tmp_path):
    (tmp_path / "config.json").write_text('{"stage": "base64", "train": {"ema_decay": 0.999}}')
    with pytest.raises(
        ConfigError, match=r"ema_decay'? = 0\.999.*train\.ema.*new workdir"
    ) as error:
        config.restore(tmp_path / "config.json")
    assert "\n" not in str(error.value)


def test_an_average_after_a_step_is_made_of_no_later_snapshot(copy, tmp_path):
    """What came after it had no part in it, and may have been trained otherwise."""
    with_later, fit = ema.reconstruct(copy, 0.07, 64, tmp_path / "a.safetensors")
    for one in snapshots.find(copy):
        if one.step > 64:
            one.path.unlink()
    alone, same = ema.reconstruct(copy, 0.07, 64, tmp_path / "b.safetensors")
    assert with_later.read_bytes() == alone.read_bytes()
    assert fit.error == same.error
