"""How several processes that train together connect, wait for each other and stop.

A single process needs none of this. On a TPU pod, or with a process on each GPU node, every
process runs the same command. They meet at JAX's coordination service, which the first process
hosts. After that, `jax.devices()` lists the devices of all processes.
"""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.distributed import global_state  # JAX's public barriers need a program on the devices

from diffjax.core.errors import EXIT_MISSING, EXIT_TERMINATED, Ending
from diffjax.devices.cluster import Cluster

CONNECT_S = 300  # how long the other processes may take to start
REMIND_S = 30  # how often a waiting process prints a line
LAST_WORDS_S = 2  # between an error of the first process and its end


class WorkersMissing(Ending, RuntimeError):
    """The other processes of the run cannot be reached; ends with exit code 1."""

    exit_code = EXIT_MISSING


def initialize(cluster: Cluster | None, timeout_s: int = CONNECT_S) -> None:
    """Connects to the other processes of the cluster; without a cluster, does nothing.

    To be called before any array is made. Afterwards only the first process prints. If not all
    processes start within `timeout_s` seconds, this one says so and exits with code 1.

    Raises:
      WorkersMissing: the connection failed.
    """
    if cluster is None:
        return
    # JAX's preemption service would replace the training loop's handler of SIGTERM
    jax.config.update("jax_enable_preemption_service", False)
    # after its own limit JAX aborts with a C++ stack trace, so our limit is shorter
    connect = functools.partial(jax.distributed.initialize, initialization_timeout=timeout_s + 60)
    if cluster.coordinator is not None:
        connect = functools.partial(
            connect,
            coordinator_address=cluster.coordinator,
            num_processes=cluster.num_processes,
            process_id=cluster.process_id,
            local_device_ids=cluster.local_device_ids,
            cluster_detection_method="deactivate",
        )
    try:
        with _time_limit(cluster, timeout_s):
            connect()
    except RuntimeError as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkersMissing(f"{cluster}: cannot meet the other workers: {first_line}") from None
    silence_all_but_first()
    print(
        f"processes: {jax.process_count()} ({cluster.kind}), this is {jax.process_index()}, with "
        f"{jax.local_device_count()} of {jax.device_count()} devices",
        flush=True,
    )


@contextlib.contextmanager
def _time_limit(cluster: Cluster, timeout_s: float) -> Iterator[None]:
    """Prints a line every REMIND_S while we wait; ends the process after `timeout_s`."""
    done = threading.Event()

    def watch() -> None:
        start = time.monotonic()
        left = float(timeout_s)
        while not done.wait(min(REMIND_S, max(left, 0))):
            waited = time.monotonic() - start
            left = timeout_s - waited
            print(
                f"{cluster}: the other workers did not come up within {waited:.0f} s. Was it "
                "started on one worker only? The same command must run on all of them",
                file=sys.stderr,
                flush=True,
            )
            if left <= 0:
                os._exit(EXIT_MISSING)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def is_first() -> bool:
    """Whether this is process 0, the only one that prints and writes logs."""
    return jax.process_index() == 0


def silence_all_but_first() -> None:
    """Drops what other processes than the first print on stdout; stderr stays."""
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def wait_for_all(name: str, timeout_s: int = 3600) -> None:
    """Waits until every process has called this with the same name; a name serves once.

    Needed before the first step: processes take different times to compile, and in their first
    exchange CPUs wait for each other for 30 s only.
    """
    if jax.process_count() > 1:
        client = global_state.client
        assert client is not None, "initialize has connected this process"
        client.wait_at_barrier(name, timeout_s * 1000)


def told_by_all(name: str, mine: str, timeout_s: int = 3600) -> list[str]:
    """What each process says under this name, in their order; a name serves once.

    Waits until every process has called this. mine: what this process says.
    """
    if jax.process_count() == 1:
        return [mine]
    client = global_state.client
    assert client is not None, "initialize has connected this process"
    folder = f"diffjax/{name}/"
    client.key_value_set(f"{folder}{jax.process_index()}", mine)
    wait_for_all(f"{name}: told", timeout_s)
    said = {int(key.rpartition("/")[2]): text for key, text in client.key_value_dir_get(folder)}
    wait_for_all(f"{name}: heard", timeout_s)  # what is told goes with the first process
    return [said[index] for index in range(jax.process_count())]


def end_if_failed(code: int) -> int:
    """Returns the exit code, but ends the process at once if it failed and there are others.

    A normal exit would wait for the other processes, which are waiting for this one. The first
    process, without which JAX ends the others, leaves them LAST_WORDS_S to say what is wrong.
    """
    if code not in (0, EXIT_TERMINATED) and jax.process_count() > 1:
        if is_first():
            time.sleep(LAST_WORDS_S)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    return code


class Agreement:
    """Whether any process has been told to stop; all processes learn it at the same step.

    Every process calls this once a step. With several processes the answer is one step old, so
    that the call need not wait for the step that has just been sent to the devices.
    """

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._before: jax.Array | None = None
        if not self._alone:
            mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
            everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            self._split = everywhere.update(spec=jax.sharding.PartitionSpec("all"))
            self._any = jax.jit(jnp.any, out_shardings=everywhere)

    def __call__(self, told: bool) -> bool:
        """told: whether this process has been told to stop."""
        if self._alone:
            return told
        mine = np.full(jax.local_device_count(), told)
        now = self._any(jax.make_array_from_process_local_data(self._split, mine))
        before, self._before = self._before, now
        return before is not None and bool(before)
