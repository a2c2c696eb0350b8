"""A person's own pictures: the commands of docs/data.md and of the README, as they stand there.

The slow tests run them, on networks that compile soon; the fast ones read their flags and configs.
"""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from diffjax import main, sample
from diffjax.build.check import check
from diffjax.build.inputs import reading
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.data.record import captions_at
from diffjax.images import png
from tests.data.sources import made

ROOT = Path(__file__).resolve().parent.parent
README, PAGE = (ROOT / "README.md").read_text(), (ROOT / "docs/data.md").read_text()
COMMANDS = re.findall(r"^python -m diffjax\.(.*)$", PAGE, re.M)
OF_README = re.findall(r"^python -m diffjax\.main (.*)$", README, re.M)[2]  # its third command
# A network that compiles soon, and a few steps; `train.num_steps` is that of each run.
SMALL = (
    "data.size_px=16", "data.batch_size=8", "model.width=16", "model.head_width=16",
    "model.token_width=16", "model.canvas=0", "model.patch=4", "model.mults=(1,)",
    "model.attention_levels=()", "train.log_every=1", "train.sample_every=2",
    "train.save_every=2", "sample.num_steps=2", "sample.num_images=2", "optim.warmup_steps=0",
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder, beside our configs, and a cache of one's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def small(steps, told):
    """The flags of a small run; told: the sections of what the network is told."""
    wanted = [*SMALL, f"train.num_steps={steps}"]
    if "text" not in told:  # without text there is no grid that is computed from it
        wanted = [one for one in wanted if not one.startswith("model.canvas")]
    return [f"--config.{one}" for one in wanted]


def options_of(words):
    """The config that a command of diffjax.main trains."""
    options = config.load(words[words.index("--config") + 1])
    config.override(options, [word for word in words if word.startswith("--config.")])
    check(options)
    return options


def told(options):
    return {name for name in ("text", "classes") if name in options}


def trained(capsys, *more, steps=2, told=("text",)):
    """What the README's command prints, small."""
    assert main.main([*shlex.split(OF_README), *small(steps, told), *more]) == 0
    return capsys.readouterr().out


KINDS = {
    "four ways": (made.four_ways, {"text"}),
    "none": (lambda root: made.folder(root, None, count=40), set()),
    "classes": (lambda root: made.folder(root, "classes", count=40), {"classes"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_readmes_command_has_a_config_for_each_kind_of_folder(here, kind):
    make, wanted = KINDS[kind]
    make(here / "photos")
    options = options_of(shlex.split(OF_README))
    assert told(options) == wanted
    assert (options.data.size_px, options.data.batch_size) == (
        16 if kind != "four ways" else 32,
        16,
    )
    assert options_of([*shlex.split(OF_README), *small(2, wanted)]).data.batch_size == 8
    records = reading.source_of(options)
    count = 200 if kind == "four ways" else 40
    assert 0.85 * count < len(records) <= count
    if kind == "four ways":
        texts = {text for i in range(len(records)) for text in captions_at(records, i)}
        assert len(texts) > 140
        assert {"a red thing", "a green thing", "a blue thing"} < texts
        assert all(captions_at(records, i) for i in range(len(records)))


def test_every_command_of_the_page_has_flags_and_keys_that_there_are(here):
    make_what_the_page_names(here)
    kinds = []
    for line in COMMANDS:
        command, *words = shlex.split(line)
        kinds.append(command)
        if command == "main":
            options_of(words)
            assert words[words.index("--workdir") + 1].startswith("runs/")
        else:
            end = ".__main__" if command == "data" else ""
            importlib.import_module(f"diffjax.{command}{end}").parser().parse_args(words)
    assert sorted(kinds) == ["data", "data", "data", "main", "main", "main", "sample"]
    for key in re.findall(r"`(data\.\w+)(?:=\S+)?`", PAGE):
        section, name = key.split(".")
        assert name in options_of(["--config", "configs/base64.py"])[section], key


def make_what_the_page_names(here):
    made.folder(here / "photos", "txt", count=40)
    made.tars(here / "shards")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_of_the_page_does_what_it_says(here, capsys):
    make_what_the_page_names(here)
    for line in COMMANDS:
        command, *words = shlex.split(line)
        run = importlib.import_module(
            f"diffjax.{command}{'.__main__' if command == 'data' else ''}"
        )
        if command == "main":
            words += small(2, told(options_of(words)))
        assert run.main(words) == 0, (line, capsys.readouterr().err)
    assert {path.name for path in here.iterdir()} >= {"check.png", "report.json", "sheet.png"}
    assert json.loads((here / "report.json").read_text())["usable"] == made.COUNT
    for name in ("photos", "mine", "prepared"):
        assert (here / "runs" / name / "samples/0000002.png").exists()
    assert len(list((here / "out").glob("*_seed*.png"))) == 4
    assert (here / "prepared/embeddings").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_captions_in_four_ways_train_resume_and_sample(here, capsys):
    made.four_ways(here / "photos")
    assert "all can be used" in trained(capsys)
    again = trained(capsys, steps=4)
    assert "resuming from step 2 in runs/photos" in again
    assert "looked at" not in again  # the pictures were looked at when the run began
    losses = [
        json.loads(line) for line in Path("runs/photos/metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [line["step"] for line in losses] == [1, 2, 3, 4]
    assert (
        sample.main(["--workdir", "runs/photos", "--prompt", made.caption(3), "--steps", "2"]) == 0
    )
    assert png.read(Path("out/0000_seed0_16px.png")).std() > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pictures_without_captions_train_a_model_that_is_told_nothing(here, capsys):
    made.folder(here / "photos", None, count=40)
    trained(capsys, told=())
    assert "resuming from step 2" in trained(capsys, steps=4, told=())
    asked = ["--workdir", "runs/photos", "--seeds", "0-1", "--steps", "2"]
    assert sample.main(asked) == 0
    assert len(list(Path("out").glob("*_seed*_16px.png"))) == 2
    capsys.readouterr()
    assert sample.main([*asked, "--prompt", "a cat"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_folders_of_classes_train_a_model_of_classes(here, capsys):
    made.folder(here / "photos", "classes", count=40)
    trained(capsys, told=("classes",))
    assert "resuming from step 2" in trained(capsys, steps=4, told=("classes",))
    asked = ["--workdir", "runs/photos", "--steps", "2"]
    assert sample.main([*asked, "--class", "red_things", "--class", "0"]) == 0
    labels = [
        png.read_metadata(Path(f"out/{number:04d}_seed0_16px.png"))["label"] for number in (0, 1)
    ]
    assert labels == [2, 0]
    capsys.readouterr()
    assert sample.main([*asked, "--class", "red_thing"]) == 2
    assert "did you mean red_things?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_tenth_of_the_pictures_may_be_broken_and_the_run_says_which(here, capsys):
    """More than that ends it with exit code 2 before anything is compiled."""
    made.folder(here / "photos", "txt", count=40)
    for name, content in (
        ("p000.png", b""),
        ("p002.png", b"<html>"),
        ("more/p005.png", b"\x89PNG"),
    ):
        (here / "photos" / name).write_bytes(content)
    out = trained(capsys)
    assert "3 cannot be used" in out
    listed = [
        json.loads(line) for line in Path("runs/photos/left_out.jsonl").read_text().split("\n")[:-1]
    ]
    assert [line["name"] for line in listed] == ["more/p005.png", "p000.png", "p002.png"]
    assert all("not a picture" in line["reason"] for line in listed)
    words = [*shlex.split(OF_README.replace("runs/photos", "runs/strict")), *small(2, ("text",))]
    assert main.main([*words, "--config.data.max_bad_fraction=0.03"]) == 2
    said = capsys.readouterr()
    assert "more than data.max_bad_fraction allows, 2 of" in said.err
    assert "compiling" not in said.out
    assert not list(Path("runs/strict").glob("checkpoints/*"))


def test_a_folder_that_is_not_there_is_one_line(here):
    with pytest.raises(ConfigError, match="there is no such folder") as caught:
        config.load("configs/folder.py:nowhere")
    assert "\n" not in str(caught.value)
