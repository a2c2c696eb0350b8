import json
import os

import jax
import jax.numpy as jnp
import pytest

from diffjax import embed, main
from diffjax.build import planning
from diffjax.build.inputs.texts import encoder_of, text_width_of
from diffjax.build.options import config
from diffjax.build.training import training_of
from diffjax.core.errors import ConfigError
from diffjax.data.sources import fake
from diffjax.devices import mesh
from diffjax.planning import dry_run, liveness, shapes
from tests.tiny_t5 import save_tiny


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


def flags(encoder, *more, preset="base64.py:tiny"):
    return ["--config", f"configs/{preset}", f"--config.text.encoder={encoder}", *more]


def test_a_dry_run_tells_everything_and_writes_nothing(tmp_path, encoder, capsys):
    workdir = tmp_path / "run"
    small = ["--config.model.mults=(1,)", "--config.model.attention_levels=(0,)"]
    more = ["--dry_run", "--workdir", str(workdir), "--config.mesh.fsdp=4", *small]
    assert main.main(flags(encoder, *more)) == 0
    out = capsys.readouterr().out
    for words in (
        "dry run of base64: 8 x cpu, mesh data 2 x fsdp 4 x tensor 1",
        "image        uint8 (8, 16, 16, 3), (1, 16, 16, 3) on a device",
        "params/stem/kernel",
        "bytes per device",
        "FLOPs: ",
        "memory of a device: state ",
        "a checkpoint: ",
        "16 records, 2 steps an epoch",
        "image        uint8 (8, 16, 16, 3), from ",
        "text         float32 (8, 96, 16), from ",
        "caption      'a",
    ):
        assert words in out, words
    assert not workdir.exists()
    assert os.listdir(tmp_path) == []  # nor the cache of embeddings


@pytest.mark.slow
def test_its_figures_are_those_of_the_compiled_plan(encoder):
    options = config.load("configs/base64.py:tiny")
    options.text.encoder = encoder
    made = planning.plan_of(options)
    text = "\n".join(planning.dry_run_of(options))
    assert f"{made.parameters:,} parameters" in text
    assert f"FLOPs: {made.model_flops:.3g} an image" in text
    work = shapes.training(training_of(options, text_width_of(options)))
    least = liveness.peak(liveness.on_a_device(work.trace().jaxpr))
    print("estimate", least, "XLA", made.bytes["temporaries"])
    assert 0.5 * least < made.bytes["temporaries"] < 2 * dry_run.SLACK * least


def test_embeddings_of_a_named_cache_are_shown_and_what_it_lacks_is_said(tmp_path, encoder, capsys):
    (tmp_path / "captions.txt").write_text("a red circle on white\n")
    out = ["--out", str(tmp_path / "made"), "--captions", str(tmp_path / "captions.txt")]
    assert embed.main([*out, "--encoder", encoder]) == 0
    options = config.load("configs/base64.py:tiny")
    options.text.encoder, options.data.embeddings = encoder, str(tmp_path / "made")
    records, loaded = fake.Shapes(1, 16), encoder_of(options)
    known = "a red circle on white"
    one = [dict(records[0], captions=(known,))]
    table = planning.batch_table(options, one, loaded)
    assert "text         bfloat16 (8, 96, 16), from " in table
    assert f"caption      '{known}'" in table
    with pytest.raises(ConfigError, match="no caption"):
        planning.batch_table(options, [dict(records[0], captions=("unheard of",))], loaded)


def test_a_mistake_is_one_line_and_2_after_what_could_be_shown(encoder, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "costs", lambda *_: "")  # what takes longest
    assert main.main(flags(encoder, "--dry_run", "--config.data.name=fake/none")) == 2
    out, err = capsys.readouterr()
    assert "parameters and where they lie" in out
    assert "data.name = 'fake/none'" in err
    assert err.count("\n") == 1
    assert main.main(flags(encoder, "--dry_run", "--mode=compile")) == 2


def test_weights_to_begin_with_are_looked_for(capsys):
    """Before anything else is loaded, such as the weights of a perceptual distance."""
    for preset in ("glide_inpaint.py:tiny", "autoencoder.py:fine"):
        named = ["--config", f"configs/{preset}", "--config.start.base=nowhere", "--dry_run"]
        assert main.main(named) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("config error: start.base = 'nowhere': ")


@pytest.mark.slow
def test_all_stages_of_a_cascade_are_shown(tmp_path, capsys):
    arguments = ["--config", "configs/cascade.py:tiny", "--dry_run", "--workdir", str(tmp_path)]
    assert main.main(arguments) == 0
    out = capsys.readouterr().out
    assert "dry run of base64" in out
    assert "dry run of sr256" in out
    assert not list(tmp_path.glob("*/checkpoints"))
    assert json.dumps(out)


def test_the_disk_holds_the_checkpoints_that_are_kept_and_the_one_being_written(tmp_path):
    state = {"a": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}
    assert dry_run.disk(3, state, None) == "a checkpoint: 4.0 MiB; up to 16 MiB on the disk"
    assert dry_run.disk(1, state, tmp_path / "new").endswith(f" are free at {tmp_path}: enough")
    vast = {"a": jax.ShapeDtypeStruct((2**50,), jnp.float32)}
    assert "TOO LITTLE: make room or lower train.keep" in dry_run.disk(1, vast, tmp_path)


def test_the_arithmetic_of_an_image_is_that_of_the_rows_by_their_number():
    """A product of two 64 x 64 matrices, 2 x 64^3 operations, that stands for 4 rows of 8."""
    place = mesh.replicated(mesh.make_mesh(devices=jax.devices()[:1]))
    square = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=place)
    product = lambda a, b: a @ b  # noqa: E731
    plain = jax.make_jaxpr(product)(jnp.zeros((64, 64)), jnp.zeros((64, 64)))
    work = shapes.Work(jax.jit(product), (square, square), 8, place.mesh, {"w": square}, plain, 4)
    said = dry_run.costs(work, jax.devices()[0])
    assert "4,096 parameters" in said
    assert "FLOPs: 1.31e+05 an image, 1.05e+06 a step" in said
    assert "state 16 KiB, batch 16 KiB" in said
