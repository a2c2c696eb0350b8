"""Shared set-up: 8 virtual devices, a compile cache, and checked shapes in every call."""

import gc
import os
from pathlib import Path

from tests.quick import XLA_FLAGS

CACHE = Path(__file__).resolve().parent.parent / ".cache"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        XLA_FLAGS,
    ]
).strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

import tests.typecheck  # noqa: E402, F401  the hook looks it up by name

gc.set_threshold(50_000, 20, 20)  # tracing makes many small objects: looking them over costs 5 %
flags.FLAGS.mark_as_parsed()  # Grain's workers ask for parsed absl flags
install_import_hook("diffjax", "tests.typecheck.check")


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs():
    """A file's compiled programs go with it: kept, they cost gigabytes and slow each collection."""
    yield
    jax.clear_caches()


# The files that take longest, first: else one process would end with them while the others wait.
LONGEST = ("test_end_to_end", "test_step", "test_counts", "test_loop", "test_level", "test_plan")


def pytest_collection_modifyitems(items):
    """Files keep their order otherwise, and tests theirs within a file."""
    place = {f"{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))
