"""python -m diffjax.main --config configs/base64.py --workdir runs/base64 [--config.KEY=VALUE ...]

Trains the stage that the config describes, or with configs/cascade.py its stages one after the
other. If the workdir holds a run already, the run is continued.

--dry_run reports what a run would do: parameters, a batch, FLOPs, sizes. Nothing is compiled,
trained or written. --mode=compile compiles the training step (--mode=compile-sample the sampler)
for the devices of this machine, or for the TPUs of --topology, and prints its memory, FLOPs and
collectives.

On several machines, run the same command on each. Cloud TPU, SLURM (srun) and Kubernetes tell each
process its number; elsewhere give --coordinator, --num_processes and --process_id. Exit codes: 0
done, 1 other workers are missing, 2 bad config or input, 3 does not fit in memory, 4 diverged, 5
the disk is full, 143 terminated after saving.
"""

import argparse
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from diffjax.build.options import config
from diffjax.core import command, signals
from diffjax.core.errors import EXIT_TERMINATED, EXIT_TOO_BIG, require

MODES = ("train", "compile", "compile-sample")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("main", __doc__)
    flags.add_argument(
        "--config", required=True, help="FILE.py or FILE.py:PRESET, or a name such as base64:demo"
    )
    flags.add_argument(
        "--workdir", type=command.path, help="the folder of the run; needed to train"
    )
    flags.add_argument("--mode", choices=MODES, default=MODES[0])
    flags.add_argument("--topology", default="", help="compile for TPUs, such as v5e:16x16")
    flags.add_argument("--dry_run", action="store_true", help="only report what a run would do")
    flags.add_argument("--coordinator", default="", help="HOST:PORT of process 0 of several")
    flags.add_argument(
        "--num_processes", type=int, help="number of processes; 1: this one is alone"
    )
    flags.add_argument("--process_id", type=int, help="the number of this process, from 0")
    flags.add_argument("--connect_s", type=int, default=300, help="seconds to wait for the others")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags and does what they ask for; returns the exit code."""
    return command.run_command(parser(), work, arguments, unknown="overrides")


def work(flags: argparse.Namespace) -> int:
    """Trains, compiles or makes a dry run, as the flags say; returns the exit code."""
    options = config.load(flags.config)
    config.override(options, flags.overrides)
    if flags.dry_run:
        require(flags.mode == "train", "--mode", flags.mode, "not with --dry_run")
        if flags.topology:  # no other machine is needed to report on TPUs that are not here
            return dry_run(options, flags.workdir, flags.topology)
        return with_other_processes(flags, functools.partial(dry_run, options, flags.workdir))
    if flags.mode != "train":
        return compile_only(options, flags.mode, flags.topology)
    require(flags.workdir is not None, "--workdir", "", "needed to train")
    require(not flags.topology, "--topology", flags.topology, "only with --mode=compile")
    return with_other_processes(flags, functools.partial(run, options, flags.workdir))


def with_other_processes(flags: argparse.Namespace, work: Callable[[], int]) -> int:
    """Connects to the other processes, if there are any, and then does the work."""
    from diffjax.devices import processes
    from diffjax.devices.cluster import find_cluster

    cluster = find_cluster(
        os.environ,
        coordinator=flags.coordinator,
        num_processes=flags.num_processes,
        process_id=flags.process_id,
    )
    if cluster is None:
        return work()
    # connecting is one call of C, which no Python handler can interrupt; nothing is unsaved yet
    with signals.signals() as watch, watch.meanwhile(lambda: EXIT_TERMINATED):
        processes.initialize(cluster, flags.connect_s)
    code = 1
    try:
        code = command.exit_code_of(work)
    except Exception:  # the others wait for this process, so it must end at once
        traceback.print_exc()
    return processes.end_if_failed(code)


def dry_run(options: ConfigDict, workdir: Path | None, topology: str = "") -> int:
    """Prints what a run of every stage of the config would do; returns the exit code."""
    if topology:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from diffjax.build.planning import dry_run_of

    for name in options.get("stages", ("",)):
        place = workdir / name if workdir else None
        for part in dry_run_of(options[name] if name else options, place, topology):
            print(part, flush=True)
    return 0


def run(options: ConfigDict, workdir: Path) -> int:
    """Trains every stage of the config; returns the exit code.

    The imports are here because they take seconds, and a mistake in a flag should be told at once.
    """
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
    """Prints the plan of every stage of the config; returns 3 if one of them does not fit."""
    if topology:  # libtpu compiles; the machine's own devices are not used
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    from diffjax.build.planning import plan_of
    from diffjax.planning import plan

    # a program from the cache would tell nothing about the time to compile it
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
