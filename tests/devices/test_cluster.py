"""Which processes a process looks for, from flags and variables alone."""

import pytest

from diffjax.core.errors import ConfigError
from diffjax.devices import cluster as clusters
from diffjax.devices.cluster import Cluster

SRUN = {
    "SLURM_JOB_ID": "41234567",
    "SLURM_STEP_NODELIST": "gpu[003-004,009]",
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "3",
}
TPU = {"TPU_ML_PLATFORM": "JAX"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    ("environ", "flags", "cluster"),
    [
        ({}, {}, None),
        ({}, {"num_processes": 1}, None),
        (
            {},
            {"coordinator": "a:1", "num_processes": 2, "process_id": 0},
            Cluster("flags", "a:1", 2, 0),
        ),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "4",
                "JAX_PROCESS_ID": "3",
            },
            {},
            Cluster("flags", "a:1", 4, 3),
        ),
        (  # a job set's pods, whose address and port come apart
            {
                **POD,
                "JAX_COORDINATOR_ADDRESS": "job-0.job",
                "JAX_COORDINATOR_PORT": "77",
                "NNODES": "2",
            },
            {},
            Cluster("flags", "job-0.job:77", 2, 1),
        ),
        (SRUN, {}, Cluster("SLURM", f"gpu003:{20000 + 41234567 % 20000}", 3, 2)),
        ({**SRUN, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {}, None),
        ({k: v for k, v in SRUN.items() if k != "SLURM_STEP_NODELIST"}, {}, None),  # no srun
        (SRUN, {"num_processes": 1}, None),
        ({**SRUN, "JAX_NUM_PROCESSES": "1"}, {}, None),
        (  # two on each node: each has the GPU of its rank there
            {**SRUN, "SLURM_NTASKS": "6", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"},
            {},
            Cluster("SLURM", f"gpu003:{20000 + 41234567 % 20000}", 6, 5, (1,)),
        ),
        (TPU, {}, Cluster("Cloud TPU")),
        ({**TPU, "TPU_WORKER_HOSTNAMES": "a,b"}, {}, Cluster("Cloud TPU")),
        ({**TPU, "JAX_PLATFORMS": ""}, {}, Cluster("Cloud TPU")),
        ({**TPU, "TPU_WORKER_HOSTNAMES": "a"}, {}, None),
        (
            {**TPU, "TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
            {},
            Cluster("Cloud TPU"),
        ),
        ({**TPU, "TPU_VISIBLE_CHIPS": "0"}, {}, None),
        ({**TPU, "JAX_PLATFORMS": "cpu"}, {}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}, None),  # no TPU is attached
        ({"NNODES": "2"}, {}, None),  # a script's own
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}, None),  # a pod of no indexed job
    ],
)
def test_a_cluster_is_found_in_flags_variables_or_its_launchers_variables(environ, flags, cluster):
    assert clusters.find_cluster(environ, **flags) == cluster


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("n7", "n7"), ("n1,n2", "n1"), ("gpu[3-4]", "gpu3"), ("a-b[01,07-09],c2", "a-b01")],
)
def test_the_first_host_of_a_node_list_is_the_coordinator(nodes, host):
    found = clusters.slurm({**SRUN, "SLURM_STEP_NODELIST": nodes})
    assert found.coordinator.partition(":")[0] == host


def test_jobs_that_share_a_node_have_ports_of_their_own():
    ports = {
        clusters.slurm({**SRUN, "SLURM_JOB_ID": str(job)}).coordinator for job in range(50, 60)
    }
    assert len(ports) == 10


@pytest.mark.parametrize(
    ("environ", "flags", "words"),
    [
        ({}, {"coordinator": "a:1"}, "--num_processes = None"),
        ({}, {"coordinator": "a:1", "num_processes": 2}, "--process_id = None: .* 0 to 1"),
        ({}, {"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "--process_id = 2"),
        ({}, {"num_processes": 2, "process_id": 0}, "--coordinator = '': HOST:PORT"),
        ({}, {"process_id": 0}, "--num_processes"),
        ({"JAX_NUM_PROCESSES": "two"}, {}, "JAX_NUM_PROCESSES = 'two': must be a number"),
        (POD, {}, "JOB_COMPLETION_INDEX = '1': .* one of an indexed job"),
    ],
)
def test_flags_and_variables_that_are_missing_or_contradict_are_refused_in_one_line(
    environ, flags, words, monkeypatch
):
    monkeypatch.setattr(clusters.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=words) as caught:
        clusters.find_cluster(environ, **flags)
    assert "\n" not in str(caught.value)


def test_a_pod_with_the_kubernetes_client_asks_the_cluster(monkeypatch):
    monkeypatch.setattr(clusters.util, "find_spec", lambda name: object())
    assert clusters.find_cluster(POD) == Cluster("Kubernetes")
