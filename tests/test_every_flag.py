"""Every flag of every command changes what the command does: none is read and forgotten.

Which flags there are is asked of the parsers. Each has a line in FLAGS with words that set it: what
the command then hands on, writes or prints must differ. What is dear, such as loading, sampling and
training, is replaced by stand-ins that note what they are given.
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffjax
from diffjax import checkpoint
from diffjax.evaluation.judging import page
from diffjax.generation import jobs
from diffjax.tasks.conditions import Class
from tests import stand as stand_lib
from tests import tiny_cascade
from tests.checkpoint.states import fill
from tests.evaluation.judging import made
from tests.stand import Stand

# What each command is asked without the flag in question. {here}: a folder of the test's own.
PLAIN = {
    "main": "--config base64:tiny --workdir w",
    "sample": "--prompt apple",
    "edit inpaint": "--picture {files}/a.png --mask {files}/m.png --prompt apple",
    "edit img2img": "--picture {files}/a.png --prompt apple",
    "edit vary": "--picture {files}/a.png",
    "edit interpolate": "--prompt apple --prompt pear",
    "edit variations": "--picture {files}/a.png",
    "edit diff": "--picture {files}/a.png --prompt apple --prompt pear",
    "edit ways": "--prompt apple",
    "edit upscale": "--picture {files}/a.png --prompt apple",
    "embed": "--captions {files}/c.txt --out cache",
    "ema list": "--workdir w",
    "ema reconstruct": "--workdir w --sigma_rel 0.1",
    "evaluate": "w",
    "judge make": "{files}/p.csv w --num 1",
    "judge page": "{files}/judged",
    "judge tally": "{files}/judged {files}/a.answers",
    "lora export": "w --out x.safetensors",
    "lora show": "x.safetensors",
    "lora prior": "--prompt apple --num 2 --out prior",
    "doctor": "",
    "serving": "--out serve",
    "app": "",
    "checkpoint list": "{files}/one",
    "checkpoint verify": "{files}/one",
    "checkpoint digest": "{files}/two",
    "checkpoint export": "{files}/two --what decay_0.9 --out x.safetensors",
    "checkpoint import": "new {files}/export.safetensors",
    "data check": "fake:3",
    "data prepare": "fake:3 prepared",
}
# "COMMAND FLAG" or "FLAG" -> words to add; or (words of both, words that set the flag). Words that
# begin with = stand in the place of all.
FLAGS = {
    **{flag: f"{flag} 0.5" for flag in jobs.SETTINGS},
    "--steps": "--steps 3",
    "--sampler": "--sampler heun",
    "--spacing": "--spacing karras",
    "--threshold": "--threshold none",
    "--percentile": "--percentile 50",
    "--workdir": "--workdir v",
    "--stages": "--stages a,b",
    "--out": "--out other",
    "--ema": "--ema live",
    "--verify": "--verify size",
    "--overwrite": ("--out {files}/taken", "--overwrite"),
    "--no-metadata": "--no-metadata",
    "--prompt": "--prompt cherry",
    "--negative": ("--guidance 3", "--negative pear"),
    "--seeds": "--seeds 3",
    "--picture": "--picture {files}/b.png",
    "--fit": "--fit pad",
    "--strength": "--strength 0.3",
    "--step": "--step 1",
    "--lora": "--lora a.safetensors:0.5",
    "main --config": "--config base64:demo",
    "main --mode": "--mode compile",
    "main --topology": ("--mode compile", "--topology v5e:2x2"),
    "main --dry_run": "--dry_run",
    "main --coordinator": "--coordinator host:1",
    "main --num_processes": "--num_processes 2",
    "main --process_id": "--process_id 1",
    "main --connect_s": ("--num_processes 2", "--connect_s 7"),
    "sample --prompts": "--prompts {files}/c.txt",
    "sample --class": "--class 1",
    "sample --and": "--and pear:0.5",
    "sample --guide-by": "--guide-by a@3",
    "sample --like": "--like {files}/like.png",
    "sample --as-written": "--as-written",
    "sample --anyway": ("--like {files}/like.png", "--anyway"),
    "sample --film": "--film",
    "sample --checkpoint": "--checkpoint {files}",
    "sample --size": "--size 32",
    "sample --vector": "--vector text",
    "sample words": "cherry",
    "sample --best-of": "--best-of 2",
    "sample --clip-guidance": "--clip-guidance 2",
    "sample --classifier-guidance": "--classifier-guidance 2",
    "sample --clip": ("--best-of 2", "--clip runs/clip"),
    "--guide-by": "--guide-by live",
    "--and": "--and pear:0.5",
    "edit inpaint --mask": "--mask {files}/n.png",
    "edit inpaint --resample": "--resample 3,2",
    "edit vary --guidance": ("--prompt apple", "--guidance 4"),
    "edit vary --negative": ("--prompt apple --guidance 3", "--negative pear"),
    "edit interpolate --picture": "--picture {files}/a.png --picture {files}/b.png",
    "edit interpolate --frames": "--frames 5",
    "edit interpolate --ms": "--ms 50",
    "edit interpolate --pace": "--pace prompt",
    "edit interpolate --bounce": "--bounce",
    "edit interpolate --png": "--png",
    "edit variations --sampler": "--sampler ddim,heun",
    "edit diff --sampler": "--sampler ddim,heun",
    "edit diff --prompt": "=--picture {files}/a.png --prompt apple --prompt cherry",
    "edit diff --theta": "--theta 0.25",
    "edit diff --frames": "--frames 5",
    "edit diff --ms": "--ms 50",
    "edit diff --bounce": "--bounce",
    "edit diff --png": "--png",
    "edit upscale --loose": "--loose",
    "edit upscale --factor": "--factor 2",
    "embed --captions": "--captions {files}/d.txt",
    "embed --data-set": "=--data-set fake/8 --out cache",
    "embed --field": "--field words",
    "embed --split": ("=--data-set fake/8 --out cache", "--split test"),
    "embed --caption-key": ("=--data-set fake/8 --out cache", "--caption-key notes"),
    "embed --data-dir": ("=--data-set fake/8 --out cache", "--data-dir d"),
    "embed --encoder": "--encoder t5-base",
    "embed --max-length": "--max-length 8",
    "embed --batch-size": "--batch-size 3",
    "embed --dtype": "--dtype bfloat16",
    "embed --storage": "--storage int8",
    "embed --shard-mib": "--shard-mib 2",
    "embed --process-index": ("--process-count 3", "--process-index 1"),
    "embed --process-count": ("--process-index 1", "--process-count 3"),
    "embed --every": "--every 2",
    "ema reconstruct --sigma_rel": "--sigma_rel 0.2",
    "evaluate where": "=v",
    "evaluate --num": "--num 3",
    "evaluate --seed": "--seed 5",
    "evaluate --split": "--split test",
    "evaluate --parts": "--parts stages",
    "evaluate --out": "--out other.json",
    "evaluate --overwrite": ("--out {files}/taken.json", "--overwrite"),
    "evaluate --classifier": "--classifier c.safetensors",
    "judge make prompts": "={files}/q.csv w --num 1",
    "judge make where": "={files}/p.csv w v --num 1",
    "judge make --names": "--names other",
    "judge make --num": "--num 2",
    "judge make --seed": "--seed 5",
    "judge page pictures": "={files}/judged2",
    "judge page --systems": "--systems b,c",
    "judge page --question": "--question Which?",
    "judge page --seed": "--seed 5",
    "judge page --overwrite": ("--out {files}/taken", "--overwrite"),
    "judge tally pictures": "={files}/judged2 {files}/a.answers",
    "judge tally answers": "={files}/judged {files}/b.answers",
    "judge tally --seed": "--seed 5",
    "judge tally --out": "--out other.json",
    "judge tally --overwrite": ("--out {files}/taken.json", "--overwrite"),
    "evaluate --extractor": "--extractor clip:somewhere",
    "evaluate --clip": "--clip emoji",
    "evaluate --against": "--against emoji/64",
    "evaluate --any-count": "--any-count",
    "evaluate --statistics": "--statistics made.safetensors",
    "evaluate --sweep": "--sweep guidance=1,2",
    "lora export workdir": "=v --out x.safetensors",
    "lora export --layout": "--layout kohya",
    "lora show file": "=y.safetensors",
    "lora prior --num": "--num 3",
    "doctor --wait_s": "--wait_s 4",
    "serving --batch": "--batch 2",
    "serving --platforms": "--platforms cpu,cuda",
    "edit inpaint --class": ("--class 1", "--class 2"),
    "edit img2img --class": ("--class 1", "--class 2"),
    "edit vary --class": "--class 1",
    "edit upscale --class": ("--class 1", "--class 2"),
    "app --host": "--host 0.0.0.0",
    "app --port": "--port 7000",
    "app --auth": "--auth a:b",
    "app --clip": "--clip runs/clip",
    "app --auth-file": "--auth-file {files}/auth.txt",
    "app --name": "--name draw.example.org",
    "checkpoint list workdir": "={files}/two",
    "checkpoint verify workdir": "={files}/two",
    "checkpoint digest workdir": "={files}/one",
    "checkpoint digest --arrays": "--arrays",
    "checkpoint export workdir": "={files}/one --what decay_0.9 --out x.safetensors",
    "checkpoint export --out": "--out y.safetensors",
    "checkpoint export --what": "--what live",
    "checkpoint export --dtype": "--dtype bfloat16",
    "checkpoint import workdir": "=other {files}/export.safetensors",
    "checkpoint import file": "=new {files}/state.safetensors",
    "data --split": "--split train[:2]",
    "data --captions": "--captions none",
    "data --image-key": "--image-key picture",
    "data --caption-key": "--caption-key title",
    "data --ground": "--ground black",
    "data --workers": "--workers 0",
    "data --encoder": "--encoder t5-base",
    "data check source": "=fake:4",
    "data check --limit": "--limit 2",
    "data check --sheet": "--sheet other.png",
    "data check --json": "--json report.json",
    "data check --max-tokens": "--max-tokens 3",
    "data prepare source": "=fake:4 prepared",
    "data prepare out": "=fake:3 other",
    "data prepare --size": "--size 8",
    "data prepare --aspect": "--aspect pad",
    "data prepare --validation": "--validation 0.2",
    "data prepare --max-tokens": ("--encoder t5-nano", "--max-tokens 3"),
}
# What a flag is where it is left out, if that is not nothing: promised to whoever writes scripts.
DEFAULTS = {
    "--out": "out",
    "--verify": "full",
    "--fit": "crop",
    "sample --best-of": 1,
    "edit --seeds": "0",
    "main --mode": "train",
    "main --connect_s": 300,
    "edit img2img --strength": 0.6,
    "edit vary --strength": 0.4,
    "edit interpolate --frames": 24,
    "edit interpolate --ms": 80,
    "edit interpolate --pace": "picture",
    "edit diff --theta": 0.5,
    "edit diff --frames": 24,
    "edit diff --ms": 80,
    "embed --field": "caption",
    "embed --split": "train",
    "embed --caption-key": "captions",
    "embed --encoder": "t5-nano",
    "embed --max-length": 96,
    "embed --batch-size": 64,
    "embed --dtype": "float32",
    "embed --storage": "bfloat16",
    "embed --shard-mib": 256,
    "embed --every": 30,
    "evaluate --out": "out/evaluation.json",
    "judge --seed": 0,
    "judge make --num": 8,
    "judge make --out": "judged",
    "judge page --out": "page",
    "judge page --question": "Which pictures fit the text better?",
    "judge tally --out": "tally.json",
    "evaluate --extractor": "lite0",
    "data --split": "train",
    "data --captions": "auto",
    "data --image-key": "image",
    "data --caption-key": "captions",
    "data --ground": "white",
    "data --max-tokens": 96,
    "data check --encoder": "t5-nano",
    "data check --sheet": "check.png",
    "data prepare --aspect": "centre",
    "lora export --layout": "diffusers",
    "lora prior --num": 64,
    "doctor --workdir": ".",
    "serving --batch": 1,
    "serving --platforms": "cpu",
    "app --host": "127.0.0.1",
    "app --port": 7860,
    "checkpoint export --what": "ema",
    "checkpoint export --dtype": "float32",
}
PACKAGE = Path(diffjax.__file__).parent


def commands():
    """Each module that is run as a command: its name -> the module."""
    alone = [path.stem for path in PACKAGE.glob("*.py") if "command.start(" in path.read_text()]
    folders = [path.parent.name for path in PACKAGE.glob("*/__main__.py")]
    modules = {**dict.fromkeys(alone, ""), **dict.fromkeys(folders, ".__main__")}
    return {name: importlib.import_module(f"diffjax.{name}{end}") for name, end in modules.items()}


def flags_of(parser, name):
    """("COMMAND", flag) of a parser and of the commands in it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for kind, inner in action.choices.items():
                yield from flags_of(inner, f"{name} {kind}")
        elif not isinstance(action, argparse._HelpAction):
            yield name, action.option_strings[0] if action.option_strings else action.dest, action


WHOLE = [one for name, module in commands().items() for one in flags_of(module.parser(), name)]
ALL = [(name, flag) for name, flag, _ in WHOLE]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What flags may name: pictures, masks, captions, checkpoints."""
    folder = tmp_path_factory.mktemp("files")
    colours = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
    Image.fromarray(colours).save(folder / "a.png")
    Image.fromarray(colours[::-1].copy()).save(folder / "b.png")
    for name, first in (("m", 6), ("n", 9)):
        mask = np.zeros((20, 16), np.uint8)
        mask[first:12, 5:12] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    (folder / "auth.txt").write_text("ann:pass\n")
    (folder / "c.txt").write_text("a dog\n")
    (folder / "d.txt").write_text("a cat\n")
    (folder / "taken").mkdir()
    for px in (8, 16):
        Image.fromarray(colours[:px, :px]).save(folder / f"taken/0000_seed0_{px}px.png")
    (folder / "taken.json").write_text("{}")
    (folder / "taken/index.html").write_text("mine")
    (folder / "p.csv").write_text("Prompts,Category\na dog,Animals\n")
    (folder / "q.csv").write_text("Prompts,Category\na cat,Animals\n")
    judging(folder)
    fill(folder / "one/checkpoints", 1)
    fill(folder / "two/checkpoints", 1, 2)
    from diffjax.checkpoint import portable

    for name, what in (("export", "live"), ("state", "state")):
        step = checkpoint.choose(checkpoint.open_to_read(folder / "one/checkpoints"))
        out = folder / f"{name}.safetensors"
        portable.export(step, out, what=what, dtype="float32", config="")
    return folder


def judging(folder):
    """Two collections with a page of one hash, and answers of two persons."""
    page.write(made.pictures(folder / "judged", "abc"), folder / "page", ["a", "b"])
    made.pictures(folder / "judged2", "abd")
    key = made.key_of(folder / "judged")
    (folder / "judged2/pages").mkdir()
    renamed = json.dumps(key).replace('"b"', '"d"')
    (folder / f"judged2/pages/{key['page']}.json").write_text(renamed)
    for number, side in enumerate(("left", "right")):
        path = folder / f"{'ab'[number]}.answers"
        made.answers(path, key["page"], number, {"0": side, "1": "tie"})


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    """Two stages, the first of which is told a class too, of data with a style."""
    whole = tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))
    first = whole.stages[0]
    told = (*first.task.conditions, Class(3))
    first = dataclasses.replace(first, task=dataclasses.replace(first.task, conditions=told))
    styles = {"oil": "an oil painting of {}"}
    return dataclasses.replace(whole, stages=(first, whole.stages[1]), styles=styles)


# A folder whose name is the clock's, and the clock.
OF_THE_CLOCK = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+\.\d s|diffjax-app-\w+"


@pytest.fixture
def outcome(cascade, files, tmp_path, monkeypatch, capsys):
    """outcome(command, words) -> all that it does, as values that compare."""
    if not (files / "like.png").exists():
        with monkeypatch.context() as patch:
            stand_lib.of_sample(Stand(patch), cascade)
            commands()["sample"].main(["--prompt", "pear", "--out", str(files / "likes")])
        (files / "likes/0000_seed0_16px.png").rename(files / "like.png")
        capsys.readouterr()

    def run(number, name, line):
        here = tmp_path / str(number)
        here.mkdir()
        words = shlex.split(line.format(files=files))
        command, *kind = name.split()
        taken = {path: path.read_bytes() for path in files.rglob("taken*/*") if path.is_file()}
        with monkeypatch.context() as patch:
            patch.chdir(here)
            stand = Stand(patch)
            getattr(stand_lib, f"of_{command}")(stand, cascade)
            try:
                code = commands()[command].main([*kind, *words])
            except SystemExit as end:
                code = end.code
        said = capsys.readouterr()
        texts = [re.sub(OF_THE_CLOCK, "", text.replace(str(here), "")) for text in said]
        noted = re.sub(OF_THE_CLOCK, "", repr(stand.noted).replace(str(here), ""))
        written = {
            str(path.relative_to(here)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(here.rglob("*"))
            if path.is_file() and "checkpoints" not in path.parts
        }
        for path, content in taken.items():
            written[path.name] = path.read_bytes() != content
            path.write_bytes(content)
        return code, texts, noted, written

    return run


def words_of(name, flag):
    """(without the flag, with it); fails for a flag that nobody has said how to set."""
    command = name.split()[0]
    found = [FLAGS[key] for key in (f"{name} {flag}", f"{command} {flag}", flag) if key in FLAGS]
    if name not in PLAIN or not found:
        pytest.fail(
            f"{name} {flag} is new: say in PLAIN how the command is called, and in FLAGS what sets "
            "the flag; what the command does must then differ"
        )
    both, more = found[0] if isinstance(found[0], tuple) else ("", found[0])
    plain = both[1:] if both.startswith("=") else f"{PLAIN[name]} {both}"
    return plain, more[1:] if more.startswith("=") else f"{plain} {more}"


# These are wrong without the others of their row, so the command without them ends with a line.
ALONE = {"--process-index", "--process-count", "--overwrite"}


@pytest.mark.parametrize(("name", "flag"), ALL, ids=lambda part: part.replace(" ", "_"))
def test_a_flag_changes_what_the_command_does(name, flag, outcome):
    without, with_it = words_of(name, flag)
    before, after = outcome(0, name, without), outcome(1, name, with_it)
    assert before != after, f"{name} does the same with and without {flag}"
    assert after[0] in (0, 143), after[1]
    assert before[0] in (0, 143) or flag in ALONE, before[1]


@pytest.mark.parametrize("name", sorted({name for name, _ in ALL}))
def test_the_same_words_do_the_same(name, outcome):
    """So what differs above is the flag's doing."""
    assert outcome(0, name, PLAIN[name]) == outcome(1, name, PLAIN[name])


@pytest.mark.parametrize(("name", "flag", "action"), WHOLE, ids=lambda part: str(part)[:24])
def test_a_flag_that_is_left_out_is_what_it_has_been(name, flag, action):
    keys = (f"{name} {flag}", f"{name.split()[0]} {flag}", flag)
    wanted = next((DEFAULTS[key] for key in keys if key in DEFAULTS), None)
    left_out = action.default
    if left_out in (None, False, [], "") or action.required:
        return
    assert (str(left_out) if isinstance(left_out, Path) else left_out) == wanted
    said = re.search(r"(\S+) by default", action.help or "")
    assert said is None or said[1] == str(wanted)


def test_every_line_is_of_a_flag_that_there_is():
    known = {f"{name} {flag}" for name, flag in ALL} | {flag for _, flag in ALL}
    known |= {f"{name.split()[0]} {flag}" for name, flag in ALL}
    there = commands().keys()
    assert {key for key in FLAGS | DEFAULTS if key.split()[0] in there or key[0] == "-"} <= known
