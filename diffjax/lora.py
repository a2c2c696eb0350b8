"""python -m diffjax.lora export | show | prior, each with --help

    python -m diffjax.lora export runs/lora --out glyphs.safetensors
    python -m diffjax.sample --lora glyphs.safetensors --prompt "a sks drawing of a cat face"

export: write what a run of configs/lora.py has trained as a file of few megabytes.
show: print what is in such a file, or in one of another program.
prior: draw pictures of a class with the base, for lora.prior of configs/lora.py.
Exit codes: 0 done, 2 bad input, 5 storage, 143 terminated.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from diffjax.core import command
from diffjax.core.errors import require

LAYOUTS = ("diffusers", "kohya")
TABLE = "metadata.jsonl"


def parser() -> argparse.ArgumentParser:
    """The flags of the three commands."""
    flags = command.parser("lora", __doc__)
    commands = flags.add_subparsers(dest="command", required=True)
    one = commands.add_parser("export", help="write what a run has trained as a file")
    one.add_argument("workdir", type=command.path, metavar="WORKDIR", help="of configs/lora.py")
    one.add_argument("--out", type=command.path, required=True, metavar="FILE.safetensors")
    one.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="names of the layers")
    one.add_argument("--step", type=int, help="default: the newest complete step")
    one.add_argument("--ema", help="a name of train.ema, or live; default: the one sampled with")
    one = commands.add_parser("show", help="print what is in a file")
    one.add_argument("file", type=command.path, metavar="FILE.safetensors")
    one = commands.add_parser("prior", help="draw pictures of a class with the base")
    command.add_stages(one)
    one.add_argument("--prompt", action="append", required=True, help="may be given many times")
    one.add_argument("--num", type=int, default=64, help="pictures in all; 64 by default")
    one.add_argument("--out", type=command.path, required=True, help="a new folder")
    command.add_parameters(one)
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags and does what they ask for; returns the exit code."""
    return command.run_command(parser(), lambda flags: print(run(flags)), arguments)


def run(flags: argparse.Namespace) -> str:
    """Runs the command that was named; returns what is printed at the end."""
    if flags.command == "prior":
        return prior(flags)
    import jax

    from diffjax.build.stages import loras

    jax.config.update("jax_platforms", "cpu")  # a trainer may be using the accelerator
    if flags.command == "show":
        return "\n".join(loras.described(loras.read([loras.Given(flags.file, None)])[0]))
    return loras.export(flags.workdir, flags.out, flags.layout, flags.ema, flags.step)


def prior(flags: argparse.Namespace) -> str:
    """Draws the class pictures of the first stage, with a table of their prompts."""
    from diffjax.build.stages import loading
    from diffjax.core.files import storing, write_whole
    from diffjax.devices import mesh
    from diffjax.generation import jobs, rows
    from diffjax.images import png
    from diffjax.logs.progress import Progress

    prompts = [jobs.check_prompt("--prompt", prompt) for prompt in flags.prompt]
    out: Path = flags.out
    free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    require(free, "--out", str(out), "is there already; name a new folder")
    first = loading.stage_dirs(flags.workdir, flags.stages)[:1]
    mesh.keep_compilations()
    cascade = loading.load(first, flags.ema, flags.verify)
    cascade.text_reader()
    todo = [jobs.Job(prompts[i % len(prompts)], i // len(prompts)) for i in range(flags.num)]
    table = []
    with storing(out), Progress(len(todo), warm=rows.rows_per_call()) as progress:
        out.mkdir(parents=True, exist_ok=True)
        for i, (job, pictures) in enumerate(zip(todo, rows.make(cascade, todo), strict=True)):
            png.write(out / f"{i:05d}.png", pictures[-1], None)
            table.append(json.dumps({"file_name": f"{i:05d}.png", "text": job.prompt}))
            progress.tick()
        write_whole(out / TABLE, ("\n".join(table) + "\n").encode())
    return f"{out}: {len(todo)} pictures; train with --config.lora.prior=folder:{out}"


if __name__ == "__main__":
    command.start(main)
