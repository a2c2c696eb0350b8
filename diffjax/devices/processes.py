"""How several processes that train together find each other, wait for each other and stop.

A single process needs none of this. On a TPU pod, or with a process on each GPU node, every
process runs the same command. They meet at JAX's coordination service, which the first process
hosts. After that, `jax.devices()` lists the devices of all processes.
"""

import contextlib
import functools
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import util

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.distributed import global_state  # JAX's public barriers need a program on the devices

from diffjax.core.errors import EXIT_MISSING, EXIT_TERMINATED, ConfigError, Ending

CONNECT_S = 300  # how long the other processes may take to start
REMIND_S = 30  # how often a waiting process prints a line
# Environment variables of the same meaning: JAX's, then those of Kubernetes job sets (xpk).
COUNT_NAMES = ("JAX_NUM_PROCESSES", "NNODES")
INDEX_NAMES = ("JAX_PROCESS_ID", "NODE_RANK", "JOB_COMPLETION_INDEX")


class WorkersMissing(Ending, RuntimeError):
    """The other processes of the run cannot be reached; ends with exit code 1."""

    exit_code = EXIT_MISSING


@dataclass(frozen=True)
class Cluster:
    """How this process finds the others. JAX finds out itself about fields that are None.

    kind: where this was read, such as "SLURM". coordinator: host:port of the first process.
    local_device_ids: the GPUs of this process, if a node runs several processes.
    """

    kind: str
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """A description for messages."""
        if self.num_processes is None:
            return f"processes of {self.kind}"
        return (
            f"process {self.process_id} of {self.num_processes} ({self.kind}), "
            f"coordinator {self.coordinator}"
        )


def find_cluster(
    environ: Mapping[str, str],
    *,
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
) -> Cluster | None:
    """Looks for a cluster in the flags, then the environment, SLURM, Cloud TPU and Kubernetes.

    Returns None if this process works alone, which is so whenever there is only one process.

    Raises:
      ConfigError: flags or variables contradict each other, or some are missing.
    """
    told = coordinator or process_id is not None
    # NNODES counts only beside an address: a script may use that name for something else
    names = COUNT_NAMES if _address(environ) else COUNT_NAMES[:1]
    count = num_processes if num_processes is not None else _number(environ, names)
    if count is not None or told:
        if count == 1:
            return None
        index = process_id if process_id is not None else _number(environ, INDEX_NAMES)
        return _explicit(coordinator or _address(environ), count, index)
    if (cluster := slurm(environ)) is not None:
        return cluster if cluster.num_processes != 1 else None
    if on_tpu_vm(environ):
        # GKE sets these variables; elsewhere JAX asks the machine's metadata server
        hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES", "")
        slices = int(environ.get("MEGASCALE_NUM_SLICES") or 1)
        alone = hosts and "," not in hosts and slices == 1
        return None if alone else Cluster("Cloud TPU")
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        if util.find_spec("kubernetes") is None:
            raise ConfigError(
                "JOB_COMPLETION_INDEX",
                environ["JOB_COMPLETION_INDEX"],
                "this pod is one of an indexed job: set JAX_COORDINATOR_ADDRESS and "
                "JAX_NUM_PROCESSES, or pip install 'jax[k8s]'; JAX_NUM_PROCESSES=1 for a pod alone",
            )
        return Cluster("Kubernetes")
    return None


def _explicit(coordinator: str, count: int | None, index: int | None) -> Cluster:
    for flag, value, holds, want in (
        ("--num_processes", count, count is not None and count > 1, "how many processes, above 1"),
        (
            "--process_id",
            index,
            index is not None and count is not None and 0 <= index < count,
            f"which process this is, from 0 to {(count or 1) - 1}",
        ),
        (
            "--coordinator",
            coordinator,
            re.fullmatch(r".+:\d+", coordinator) is not None,
            "HOST:PORT of process 0",
        ),
    ):
        if not holds:
            raise ConfigError(flag, value, f"{want}; or JAX_NUM_PROCESSES and its like, see README")
    return Cluster("flags", coordinator, count, index)


def _number(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        if name in environ:
            if not environ[name].isdigit():
                raise ConfigError(name, environ[name], "must be a number")
            return int(environ[name])
    return None


def _address(environ: Mapping[str, str]) -> str:
    address = environ.get("JAX_COORDINATOR_ADDRESS", "")
    if address and ":" not in address:
        return f"{address}:{environ.get('JAX_COORDINATOR_PORT', '1234')}"
    return address


def slurm(environ: Mapping[str, str]) -> Cluster | None:
    """The processes that `srun` started, or None if it did not start this one.

    If a node runs one task, the task has all its GPUs. If it runs several, each has one GPU, by
    its rank on the node.
    """
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if any(name not in environ for name in names):
        return None
    job, nodes, tasks, rank, local_rank = (environ[name] for name in names)
    # the first host of "node007", "node1,node2" or "gpu[003-004,009]"
    first = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    assert first is not None
    step_tasks = environ.get("SLURM_STEP_NUM_TASKS", tasks)
    num_nodes = int(environ.get("SLURM_STEP_NUM_NODES", environ.get("SLURM_NNODES", "1")))
    several = int(step_tasks) > num_nodes
    # each job has its own port, so that two jobs may share a node
    port = environ.get("JAX_COORDINATOR_PORT", 20000 + int(job) % 20000)
    return Cluster(
        "SLURM",
        f"{first[1]}{first[2] or ''}:{port}",
        int(step_tasks),
        int(rank),
        (int(local_rank),) if several else None,
    )


def on_tpu_vm(environ: Mapping[str, str]) -> bool:
    """Whether JAX has found TPU chips on this machine and may use all of them."""
    some = any(name in environ for name in ("TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"))
    platforms = environ.get("JAX_PLATFORMS") or "tpu"
    # importing JAX sets this variable if and only if a TPU is attached
    return environ.get("TPU_ML_PLATFORM") == "JAX" and "tpu" in platforms and not some


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


def end_if_failed(code: int) -> int:
    """Returns the exit code, but ends the process at once if it failed and there are others.

    A normal exit would wait for the other processes, which are waiting for this one.
    """
    if code not in (0, EXIT_TERMINATED) and jax.process_count() > 1:
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
