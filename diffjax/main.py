"""python -m diffjax.main --config configs/base64.py --workdir runs/base64 [--config.KEY=VALUE ...]

Trains the stage (or, with configs/cascade.py, the stages one after the other) that the config
names. A non-empty workdir resumes. Exit codes: 0 done, 2 bad config or input, 4 diverged,
143 terminated after saving.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffjax import config


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags, train, and say in the exit code how it went."""
    parser = argparse.ArgumentParser(
        prog="python -m diffjax.main",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="FILE.py or FILE.py:PRESET")
    parser.add_argument("--workdir", required=True, type=Path, help="where the run lives")
    known, overrides = parser.parse_known_args(arguments)
    try:
        options = config.load(known.config)
        config.override(options, overrides)
        return run(options, known.workdir)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def run(options, workdir: Path) -> int:
    """Train what the config names; heavy imports wait until its syntax is known to be right."""
    from diffjax import build, parallel
    from diffjax.train import Diverged, Terminated, train

    parallel.keep_compilations()
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
    except Terminated as stop:
        print(stop, file=sys.stderr)
        return 143
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
