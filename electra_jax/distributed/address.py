"""Find out from the environment whether this process is one of several, and where the others are.

The environment is read in this order (docs/outgrowing.md has the commands):

    JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES, JAX_PROCESS_ID    an explicit address
    JAX_NUM_PROCESSES=1                                                     alone, whatever else is set
    a step of SLURM with several tasks; an Indexed Job of Kubernetes; a Cloud TPU slice, also under GKE
    ELECTRA_JOIN_SECONDS                                                    how long to wait for the others: 300
"""

import os
from typing import NamedTuple

from electra_jax.errors import UserError


class ProcessAddress(NamedTuple):
    """The coordinator's HOST:PORT, the number of processes, this process's index, and the devices it may use."""

    coordinator: str
    count: int
    index: int
    local_devices: list[int] | None


def cluster() -> str | None:
    """Return the platform by which the environment makes this one of several processes; None if it is alone."""
    if os.environ.get("JAX_NUM_PROCESSES") == "1":
        return None
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        return "JAX_COORDINATOR_ADDRESS"
    # The shell of a batch script, without srun, is not a step: it is alone.
    if "SLURM_STEP_NODELIST" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        return "SLURM"
    if "JOB_COMPLETION_INDEX" in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ:
        return "Kubernetes"
    from jax._src import cloud_tpu_init

    # JAX looked for the chips when it was imported.
    return "Cloud TPU" if cloud_tpu_init.running_in_cloud_tpu_vm else None


def find_address() -> ProcessAddress | None:
    """Return this process's address among several, or None if it is alone.

    Raises:
        UserError: if the environment holds only a part of the address.
    """
    found_by = cluster()
    if found_by is None:
        return None
    # JAX's own detection, which reads the missing parts from SLURM's variables, the pod's Job or the TPU's metadata.
    from jax._src.clusters import ClusterEnv

    coordinator, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
        os.environ.get("JAX_COORDINATOR_ADDRESS"),
        integer_variable("JAX_NUM_PROCESSES"),
        integer_variable("JAX_PROCESS_ID"),
        None,
        None,
        wait_seconds(),
    )
    if found_by == "Cloud TPU" and (coordinator is None or count == 1):
        return None
    missing = [
        variable
        for variable, value in (
            ("JAX_COORDINATOR_ADDRESS=HOST:PORT", coordinator),
            ("JAX_NUM_PROCESSES", count),
            ("JAX_PROCESS_ID", index),
        )
        if value is None
    ]
    if missing:
        hint = " (or install the package kubernetes, and let the pod read its Job)" if found_by == "Kubernetes" else ""
        raise UserError(
            f"this is one of several processes ({found_by}), and the rest cannot be determined: set "
            f"{', '.join(missing)}{hint}; or JAX_NUM_PROCESSES=1 if it runs alone"
        )
    if not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"JAX_COORDINATOR_ADDRESS is {coordinator!r}: it must be HOST:PORT of process 0")
    if not 0 <= index < count:
        raise UserError(f"JAX_PROCESS_ID is {index}: of {count} processes it must be from 0 to {count - 1}")
    return ProcessAddress(coordinator, count, index, None if devices is None else list(devices))


def integer_variable(name: str) -> int | None:
    """Read an integer from the environment; None if the variable is not set.

    Raises:
        UserError: if the variable is not a whole number.
    """
    text = os.environ.get(name)
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise UserError(f"{name} is {text!r}: it must be a whole number") from error


def wait_seconds() -> int:
    """Return how long processes wait for one another at the start."""
    return integer_variable("ELECTRA_JOIN_SECONDS") or 300
