"""Finds out how a process can meet the others, from flags, the environment and the launcher."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util

from diffjax.core.errors import ConfigError

# Environment variables of the same meaning: JAX's, then those of Kubernetes job sets (xpk).
COUNT_NAMES = ("JAX_NUM_PROCESSES", "NNODES")
INDEX_NAMES = ("JAX_PROCESS_ID", "NODE_RANK", "JOB_COMPLETION_INDEX")


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
