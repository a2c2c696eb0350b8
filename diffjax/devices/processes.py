"""Several processes that train as one: how they find each other, and how they agree to stop.

A machine with one process needs none of this. On a TPU pod, or with a process for each GPU node,
every process runs the same command; jax's coordination service, which the first process hosts,
tells them of each other, and from then on `jax.devices()` are the devices of all.
"""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.distributed import global_state  # what jax shows to users meets on devices alone

from diffjax.core.errors import EXIT_MISSING, ConfigError, Ending

CONNECT_S = 300  # how long the others may take to come up
REMIND_S = 30
# What launchers call the same thing: ours, then those of Kubernetes job sets (xpk).
COUNT_NAMES = ("JAX_NUM_PROCESSES", "NNODES")
INDEX_NAMES = ("JAX_PROCESS_ID", "NODE_RANK", "JOB_COMPLETION_INDEX")


class WorkersMissing(Ending, RuntimeError):
    """The other processes of a run cannot be met; ends with exit code 1."""

    exit_code = EXIT_MISSING


@dataclass(frozen=True)
class Cluster:
    """How this process finds the others; what is None, jax asks of the cluster itself.

    kind: who said so. coordinator: host:port of the first process. local_device_ids: the GPUs of
    this process, where a node runs several.
    """

    kind: str
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """As a user is told."""
        if self.num_processes is None:
            return f"processes of {self.kind}"
        return (
            f"process {self.process_id} of {self.num_processes} ({self.kind}), "
            f"coordinator {self.coordinator}"
        )


def find(
    environ: Mapping[str, str],
    *,
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
) -> Cluster | None:
    """The cluster that flags, variables, SLURM, Cloud TPU or Kubernetes tell of, in this order.

    None: this process works alone, as it does wherever `num_processes` is 1.

    Raises:
      ConfigError: flags or variables that contradict or lack each other.
    """
    told = coordinator or process_id is not None
    # NNODES alone may be a script's own
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
        # on GKE the names are here; elsewhere the machine's own metadata knows, which jax asks
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
    """The processes that `srun` started; None outside of it.

    One task on a node has all its GPUs; several have one each, by their rank on the node.
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
    # another port for each job, so that two may share a node
    port = environ.get("JAX_COORDINATOR_PORT", 20000 + int(job) % 20000)
    return Cluster(
        "SLURM",
        f"{first[1]}{first[2] or ''}:{port}",
        int(step_tasks),
        int(rank),
        (int(local_rank),) if several else None,
    )


def on_tpu_vm(environ: Mapping[str, str]) -> bool:
    """Whether jax has found TPU chips here and is to use all of them."""
    some = any(name in environ for name in ("TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"))
    platforms = environ.get("JAX_PLATFORMS") or "tpu"
    # jax, as it is imported, sets this where a TPU is attached, and nowhere else
    return environ.get("TPU_ML_PLATFORM") == "JAX" and "tpu" in platforms and not some


def initialize(cluster: Cluster | None, timeout_s: int = CONNECT_S) -> None:
    """Meet the other processes; to be called before any array is made. None: nothing to do.

    From then on the first process alone prints.

    If they do not all come up within `timeout_s` seconds, the process says so and ends with 1.

    Raises:
      WorkersMissing: they cannot be met at all.
    """
    if cluster is None:
        return
    # its handler of SIGTERM would take the place of the training loop's own
    jax.config.update("jax_enable_preemption_service", False)
    given: dict[str, Any] = {}
    if cluster.coordinator is not None:
        given = dict(
            coordinator_address=cluster.coordinator,
            num_processes=cluster.num_processes,
            process_id=cluster.process_id,
            local_device_ids=cluster.local_device_ids,
            cluster_detection_method="deactivate",
        )
    try:
        with _patience(cluster, timeout_s):
            # past its own limit jax aborts with a trace of its C++: ours comes first
            jax.distributed.initialize(initialization_timeout=timeout_s + 60, **given)
    except RuntimeError as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkersMissing(f"{cluster}: cannot meet the other workers: {first_line}") from None
    hush()
    print(
        f"processes: {jax.process_count()} ({cluster.kind}), this is {jax.process_index()}, with "
        f"{jax.local_device_count()} of {jax.device_count()} devices",
        flush=True,
    )


@contextlib.contextmanager
def _patience(cluster: Cluster, timeout_s: float) -> Iterator[None]:
    """A line every half minute while the others are waited for; at the end of it, the process."""
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
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def hush() -> None:
    """Let the first process alone print; errors are heard from all."""
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def meet(name: str, timeout_s: int = 3600) -> None:
    """Wait until all processes are here. A name serves once.

    Before the first step: processes compile for unequal times, and in their first exchange CPUs
    wait no more than 30 s for each other.
    """
    if jax.process_count() > 1:
        client: Any = global_state.client
        client.wait_at_barrier(name, timeout_s * 1000)


def leave(code: int) -> int:
    """The exit code; where it is an error's and others wait for this process, it ends at once.

    A process that fails alone would otherwise stay to say goodbye to those that wait for it.
    """
    if code not in (0, 143) and jax.process_count() > 1:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    return code


class Agreement:
    """Whether any process has been told to stop: all learn it at the same step.

    Each process calls it once a step. With several, the answer is that of the step before, so that
    nobody waits for a step that has just been sent to the devices.
    """

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._before: Any = None
        if not self._alone:
            mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
            everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            self._split = everywhere.update(spec=jax.sharding.PartitionSpec("all"))
            self._any = jax.jit(jnp.any, out_shardings=everywhere)

    def __call__(self, told: bool) -> bool:
        """told: whether this process has been."""
        if self._alone:
            return told
        mine = np.full(jax.local_device_count(), told)
        now = self._any(jax.make_array_from_process_local_data(self._split, mine))
        before, self._before = self._before, now
        return before is not None and bool(before)
