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

from diffjax.build import config
from diffjax.core import signals
from diffjax.core.errors import EXIT_MISSING, EXIT_TERMINATED, ConfigError, require

MODES = ("train", "compile", "compile-sample")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags, train, and say in the exit code how it went."""
    parser = argparse.ArgumentParser(
        prog="python -m diffjax.main",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="FILE.py or FILE.py:PRESET")
    parser.add_argument("--workdir", type=Path, help="where the run lives; needed to train")
    parser.add_argument("--mode", choices=MODES, default=MODES[0])
    parser.add_argument("--topology", default="", help="compile for TPUs, such as v5e:16x16")
    parser.add_argument("--dry_run", action="store_true", help="show what would be done")
    parser.add_argument("--coordinator", default="", help="HOST:PORT of process 0 of several")
    parser.add_argument("--num_processes", type=int, help="how many; 1: do not look for others")
    parser.add_argument("--process_id", type=int, help="which of them this is, from 0")
    parser.add_argument("--connect_s", type=int, default=300, help="seconds to wait for the others")
    known, overrides = parser.parse_known_args(arguments)
    try:
        options = config.load(known.config)
        config.override(options, overrides)
        if known.dry_run:
            require(known.mode == "train", "--mode", known.mode, "not with --dry_run")
            if known.topology:  # what is shown needs none of the machines
                return show(options, known.workdir, known.topology)
            return together(known, functools.partial(show, options, known.workdir))
        if known.mode != "train":
            return compile_only(options, known.mode, known.topology)
        require(known.workdir is not None, "--workdir", "", "needed to train")
        require(not known.topology, "--topology", known.topology, "only with --mode=compile")
        return together(known, functools.partial(run, options, known.workdir))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def together(flags: argparse.Namespace, work: Callable[[], int]) -> int:
    """Meet the other processes, if there are any, and work with them."""
    from diffjax.devices import processes

    cluster = processes.find(
        os.environ,
        coordinator=flags.coordinator,
        num_processes=flags.num_processes,
        process_id=flags.process_id,
    )
    if cluster is None:
        return work()
    try:
        # until the others are there this is one call of C, and nothing is unsaved
        with signals.signals() as watch, watch.meanwhile(lambda: EXIT_TERMINATED):
            processes.initialize(cluster, flags.connect_s)
    except processes.WorkersMissing as error:
        print(error, file=sys.stderr)
        return EXIT_MISSING
    code = 1
    try:
        code = work()
    except ConfigError as error:
        print(error, file=sys.stderr)
        code = 2
    except Exception:  # the others wait: say what it was, and leave at once
        traceback.print_exc()
    return processes.leave(code)


def show(options, workdir: Path | None, topology: str = "") -> int:
    """Print what a run of every stage of the config would do; 2 if it could not begin."""
    if topology:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from diffjax.planning import dry_run

    for name in options.get("stages", ("",)):
        place = workdir / name if workdir else None
        for part in dry_run.parts(options[name] if name else options, place, topology):
            print(part, flush=True)
    return 0


def run(options, workdir: Path) -> int:
    """Train what the config names; heavy imports wait until its syntax is known to be right."""
    from diffjax.build import build
    from diffjax.core.errors import BadData, Diverged, OutOfTime, StorageError, Terminated
    from diffjax.devices import mesh
    from diffjax.encoders.cache.cache import Damaged
    from diffjax.training.loop import train

    mesh.keep_compilations()
    stages = [(options, workdir)]
    if "stages" in options:
        stages = [(options[name], workdir / name) for name in options.stages]
    for stage_options, _ in stages:
        build.check(stage_options)
    try:
        for stage_options, stage_workdir in stages:
            if len(stages) > 1:
                print(f"\n== {stage_options.stage} -> {stage_workdir}", flush=True)
            train(stage_options, stage_workdir)
    except OutOfTime as stop:  # the stages behind it wait, too
        print(stop, flush=True)
        return 0
    except Terminated as stop:
        print(stop, file=sys.stderr)
        return 143
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 4
    except BadData as error:
        print(error, file=sys.stderr)
        return 2
    except (StorageError, Damaged) as error:
        print(error, file=sys.stderr)
        return 5
    return 0


def compile_only(options, mode: str, topology: str) -> int:
    """Print the plan of every stage of the config; 3 if one of them does not fit."""
    if topology:  # what compiles is libtpu; the machine's own devices stay untouched
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    from diffjax.planning import plan

    # a program from the cache would say nothing of the time to compile it
    jax.config.update("jax_enable_compilation_cache", False)
    code = 0
    for name in options.get("stages", ("",)):
        try:
            step = "sample" if mode == "compile-sample" else "train"
            print(plan.report(plan.plan(options[name] if name else options, step, topology)))
        except plan.TooBig as error:
            print(f"{name or options.stage} {error}", file=sys.stderr)
            code = 3
    return code


if __name__ == "__main__":
    signals.leave_on_signals()
    sys.exit(main())
