"""python -m diffjax.main --config configs/base64.py --workdir runs/base64 [--config.KEY=VALUE ...]

Trains the stage (or, with configs/cascade.py, the stages one after the other) that the config
names. A non-empty workdir resumes. With --mode=compile nothing runs: the training step (or with
--mode=compile-sample the sampler) is compiled for the devices at hand, or for the TPUs that
--topology names, and its memory, FLOPs and collectives are printed. With --dry_run nothing is
compiled either, and nothing written: tables, a batch, sizes and FLOPs. On several machines the same
command runs on each; Cloud TPU, SLURM (srun) and Kubernetes say which is which, elsewhere
--coordinator, --num_processes and --process_id do. Exit codes: 0 done, 1 other workers are missing,
2 bad config or input, 3 does not fit in memory, 4 diverged, 5 the disk is full, 143 terminated
after saving.
"""

import argparse
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from diffjax.build import config
from diffjax.core import command, signals
from diffjax.core.errors import EXIT_TERMINATED, EXIT_TOO_BIG, require

MODES = ("train", "compile", "compile-sample")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("main", __doc__)
    flags.add_argument(
        "--config", required=True, help="FILE.py or FILE.py:PRESET; or a name, as base64:demo"
    )
    flags.add_argument("--workdir", type=command.path, help="where the run lives; for training")
    flags.add_argument("--mode", choices=MODES, default=MODES[0])
    flags.add_argument("--topology", default="", help="compile for TPUs, such as v5e:16x16")
    flags.add_argument("--dry_run", action="store_true", help="show what would be done")
    flags.add_argument("--coordinator", default="", help="HOST:PORT of process 0 of several")
    flags.add_argument("--num_processes", type=int, help="how many; 1: do not look for others")
    flags.add_argument("--process_id", type=int, help="which of them this is, from 0")
    flags.add_argument("--connect_s", type=int, default=300, help="seconds to wait for the others")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags, train, and say in the exit code how it went."""
    return command.run_command(parser(), work, arguments, unknown="overrides")


def work(flags: argparse.Namespace) -> int:
    """What the flags ask for: train, compile, or show."""
    options = config.load(flags.config)
    config.override(options, flags.overrides)
    if flags.dry_run:
        require(flags.mode == "train", "--mode", flags.mode, "not with --dry_run")
        if flags.topology:  # what is shown needs none of the machines
            return show(options, flags.workdir, flags.topology)
        return together(flags, functools.partial(show, options, flags.workdir))
    if flags.mode != "train":
        return compile_only(options, flags.mode, flags.topology)
    require(flags.workdir is not None, "--workdir", "", "needed to train")
    require(not flags.topology, "--topology", flags.topology, "only with --mode=compile")
    return together(flags, functools.partial(run, options, flags.workdir))


def together(flags: argparse.Namespace, work: Callable[[], int]) -> int:
    """Meet the other processes, if there are any, and work with them."""
    from diffjax.devices import processes

    cluster = processes.find_cluster(
        os.environ,
        coordinator=flags.coordinator,
        num_processes=flags.num_processes,
        process_id=flags.process_id,
    )
    if cluster is None:
        return work()
    # until the others are there this is one call of C, and nothing is unsaved
    with signals.signals() as watch, watch.meanwhile(lambda: EXIT_TERMINATED):
        processes.initialize(cluster, flags.connect_s)
    code = 1
    try:
        code = command.exit_code_of(work)
    except Exception:  # the others wait: say what it was, and leave at once
        traceback.print_exc()
    return processes.end_if_failed(code)


def show(options: ConfigDict, workdir: Path | None, topology: str = "") -> int:
    """Print what a run of every stage of the config would do."""
    if topology:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from diffjax.build.planning import dry_run_of

    for name in options.get("stages", ("",)):
        place = workdir / name if workdir else None
        for part in dry_run_of(options[name] if name else options, place, topology):
            print(part, flush=True)
    return 0


def run(options: ConfigDict, workdir: Path) -> int:
    """Train what the config names; heavy imports wait until its syntax is known to be right."""
    from diffjax.build.check import check
    from diffjax.build.training import run_of
    from diffjax.devices import mesh
    from diffjax.training.loop import train

    mesh.keep_compilations()
    stages = [(options, workdir)]
    if "stages" in options:
        stages = [(options[name], workdir / name) for name in options.stages]
    for stage_options, _ in stages:
        check(stage_options)
    for stage_options, stage_workdir in stages:
        if len(stages) > 1:
            print(f"\n== {stage_options.stage} -> {stage_workdir}", flush=True)
        train(run_of(stage_options, stage_workdir))
    return 0


def compile_only(options: ConfigDict, mode: str, topology: str) -> int:
    """Print the plan of every stage of the config; 3 if one of them does not fit."""
    if topology:  # what compiles is libtpu; the machine's own devices stay untouched
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    from diffjax.build.planning import plan_of
    from diffjax.planning import plan

    # a program from the cache would say nothing of the time to compile it
    jax.config.update("jax_enable_compilation_cache", False)
    code = 0
    for name in options.get("stages", ("",)):
        try:
            step = "sample" if mode == "compile-sample" else "train"
            print(plan.report(plan_of(options[name] if name else options, step, topology)))
        except plan.TooBig as error:
            print(f"{name or options.stage} {error}", file=sys.stderr)
            code = EXIT_TOO_BIG
    return code


if __name__ == "__main__":
    command.start(main)
