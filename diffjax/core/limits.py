"""The limits of numbers that more than one module takes, and those of the flags of all commands.

The limits of config keys are in build/check.py, those of sampling settings in tasks/settings.py,
and those of the page's requests in app/limits.py. All of them take what they share from here.
"""

import argparse
import math
from collections.abc import Mapping

from diffjax.core.errors import require

Limits = tuple[float, float]

MAX_SEED = 2**31 - 1
MAX_TOKENS = 2**16  # of a text; the paper's have 128
MAX_BLOCKS = 1024  # of a network, one after the other: tracing takes time for each
COUNT = (1, 2**31 - 1)
SOME = (0, 2**31 - 1)
SECONDS = (0, 1e9)
# By the name in the parsed flags; both ends are allowed.
FLAGS: Mapping[str, Limits] = {
    "seed": (0, MAX_SEED),
    "best_of": (1, 1_000),
    "num": COUNT,
    "step": SOME,
    "limit": SOME,
    "batch": (1, 2**16),
    "batch_size": (1, 2**24),
    "max_tokens": (1, MAX_TOKENS),
    "max_length": (1, MAX_TOKENS),
    "shard_mib": (1, 2**20),
    "process_index": (0, 2**20),
    "process_count": (1, 2**20),
    "num_processes": (1, 2**20),
    "process_id": (0, 2**20),
    "connect_s": (1, 10**6),
    "wait_s": SECONDS,
    "every": SECONDS,
    "workers": (0, 512),
    "size": (0, 2**16),
    "validation": (0, 0.99),
    "port": (1, 65535),
    "strength": (0, 1),
    "theta": (0, 1),
    "frames": (2, 1000),
    "ms": (10, 10_000),
    "factor": (1, 64),
    "sigma_rel": (1e-6, 1),
}
# Flags are written with hyphens, but for these and those that end with _s.
UNDERSCORED = ("num_processes", "process_id", "sigma_rel")


def check_flags(parsed: argparse.Namespace) -> None:
    """Checks every number among the flags.

    Raises:
      ConfigError: one is not within its limits; names the flag and the limits.
    """
    for name, value in vars(parsed).items():
        if name in FLAGS and isinstance(value, int | float):
            low, high = FLAGS[name]
            fits = math.isfinite(value) and low <= value <= high
            flag = f"--{_spelt(name)}"
            allowed = f"from {low:{_form(low)}} to {high:{_form(high)}}"
            if high >= MAX_SEED:
                allowed = f"at least {low:{_form(low)}}"
            require(fits, flag, value, f"must be {allowed}")


def _form(end: float) -> str:
    return "d" if isinstance(end, int) else "g"


def _spelt(name: str) -> str:
    """A flag as it is written: those of embed and data have hyphens."""
    return name if name.endswith("_s") or name in UNDERSCORED else name.replace("_", "-")
