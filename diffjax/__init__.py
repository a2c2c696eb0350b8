"""diffjax: Imagen-style text-to-image diffusion cascades in JAX."""

import itertools
import sys

__version__ = "0.1.0"


def _leave_on_signals() -> None:
    """Let a signal end a command while its imports take their seconds.

    Else Python raises a KeyboardInterrupt inside of them, which jax loses, or crashes on.
    """
    words = sys.orig_argv
    ours = any(a == "-m" and b.split(".")[0] == "diffjax" for a, b in itertools.pairwise(words))
    if ours and sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module to run
        from diffjax.core import signals

        signals.leave_on_signals()


_leave_on_signals()
