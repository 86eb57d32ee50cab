"""What the variables of foreign launchers say about this process: torchrun, Open MPI, MPICH and Intel MPI, SLURM. They
are hints only.

The ranks prove that they are on one host when they connect to each other (:mod:`gradring.launch.foreign`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gradring.launch.messages import LARGEST_WORLD

__all__ = ["Hints", "hints"]

# Larger step numbers of SLURM stand for batch scripts, interactive shells and the like.
_SLURM_LAST_STEP = 0xFFFFFFF0


@dataclass(frozen=True)
class Hints:
    """A rank as its launcher's variables describe it."""

    launcher: str
    variables: str  # the names of the variables for rank and size, for messages
    rank: int
    size: int
    job: str  # a text that only the ranks of this job share
    port: int = 0
    generation: int = 0
    local_size: int | None = None
    address: str | None = None

    def elsewhere(self) -> str | None:
        """A text that says why rank 0 must be on another host, if that is certain."""
        if self.address is None:
            return None
        try:
            found = socket.getaddrinfo(self.address, 0, type=socket.SOCK_STREAM)
        except OSError:
            return None
        for family, kind, protocol, _, where in found:
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.bind((where[0], 0, *where[2:]))
                return None
            except OSError:
                continue  # a host cannot bind another host's address
        return f"MASTER_ADDR {self.address} is no address of this host" if found else None


def hints(environment: Mapping[str, str] | None = None) -> Hints | None:
    """The rank that the variables describe, or None without any; `ValueError` if they contradict each other.

    >>> hints({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}).rank
    1
    >>> hints({}) is None
    True
    """
    env = os.environ if environment is None else environment
    found = [hint for hint in (_torchrun(env), _open_mpi(env), _hydra(env), _slurm(env)) if hint is not None]
    # A launcher that starts one process may have started another launcher.
    found = [hint for hint in found if hint.size > 1] or found
    for other in found[1:]:
        if (other.rank, other.size) != (found[0].rank, found[0].size):
            raise ValueError(
                f"[init] {found[0].launcher}'s variables ({found[0].variables}) say rank {found[0].rank} of "
                f"{found[0].size}, {other.launcher}'s ({other.variables}) say rank {other.rank} of {other.size}: unset "
                f"those of the launcher that did not start this process"
            )
    return found[0] if found else None


def _pair(env: Mapping[str, str], rank_name: str, size_name: str) -> tuple[int, int] | None:
    if rank_name not in env and size_name not in env:
        return None
    for name, other in ((rank_name, size_name), (size_name, rank_name)):
        if name not in env:
            raise ValueError(f"[init] {other} is set ({env[other]!r}), and {name} is not: set both, or neither")
    size = _number(env, size_name, 1, LARGEST_WORLD)
    return _number(env, rank_name, 0, size - 1), size


def _number(env: Mapping[str, str], name: str, low: int, high: int) -> int:
    text = env[name].strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and low <= int(text) <= high):
        raise ValueError(f"[init] {name} must be an integer from {low} to {high}, got {env[name][:40]!r}")
    return int(text)


def _optional(env: Mapping[str, str], name: str, high: int) -> int | None:
    return _number(env, name, 0, high) if name in env else None


def _torchrun(env: Mapping[str, str]) -> Hints | None:
    pair = _pair(env, "RANK", "WORLD_SIZE")
    if pair is None:
        return None
    if pair[1] > 1 and "MASTER_PORT" not in env:
        raise ValueError(
            "[init] RANK and WORLD_SIZE are set, and MASTER_PORT is not: set it to one number for all ranks of this job, "
            "which no other job on this host uses"
        )
    address = env.get("MASTER_ADDR", "localhost")
    port = _optional(env, "MASTER_PORT", 65535) or 0
    return Hints(
        "torchrun",
        "RANK, WORLD_SIZE",
        *pair,
        job=f"torchrun {env.get('TORCHELASTIC_RUN_ID', '')} {address}",
        port=port,
        generation=_optional(env, "TORCHELASTIC_RESTART_COUNT", 1 << 30) or 0,
        local_size=_optional(env, "LOCAL_WORLD_SIZE", LARGEST_WORLD),
        address=address,
    )


def _open_mpi(env: Mapping[str, str]) -> Hints | None:
    pair = _pair(env, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
    if pair is None:
        return None
    return Hints(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE",
        *pair,
        job=f"openmpi {env.get('PMIX_NAMESPACE') or env.get('OMPI_MCA_ess_base_jobid') or _starter('prterun', 'mpirun')}",
        local_size=_optional(env, "OMPI_COMM_WORLD_LOCAL_SIZE", LARGEST_WORLD),
    )


def _hydra(env: Mapping[str, str]) -> Hints | None:
    pair = _pair(env, "PMI_RANK", "PMI_SIZE")
    if pair is None:
        return None
    # Hydra gives its ranks no name of the job. Use its proxy, which starts all ranks of a host, as the name.
    return Hints(
        "MPICH or Intel MPI",
        "PMI_RANK, PMI_SIZE",
        *pair,
        job=f"hydra {env.get('PMI_JOBID', '')} {_starter('hydra_pmi_proxy')}",
        local_size=_optional(env, "MPI_LOCALNRANKS", LARGEST_WORLD),
    )


def _slurm(env: Mapping[str, str]) -> Hints | None:
    # Batch shells have SLURM_PROCID and SLURM_NTASKS too; only a real step has a step's number and tasks.
    if not {"SLURM_PROCID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"} <= env.keys():
        return None
    step = _number(env, "SLURM_STEP_ID", 0, 0xFFFFFFFF)
    if step >= _SLURM_LAST_STEP:
        return None
    size = _number(env, "SLURM_STEP_NUM_TASKS", 1, LARGEST_WORLD)
    nodes = _optional(env, "SLURM_STEP_NUM_NODES", 1 << 20) or 1
    return Hints(
        "SLURM",
        "SLURM_PROCID, SLURM_STEP_NUM_TASKS",
        _number(env, "SLURM_PROCID", 0, size - 1),
        size,
        job=f"slurm {env.get('SLURM_JOB_ID', '')}.{step}",
        local_size=size if nodes == 1 else max(size // nodes, 1),
    )


def _starter(*names: str) -> str:
    """The nearest ancestor with one of these names, or else the parent: its pid and when it began."""
    pid = os.getppid()
    chosen = pid
    while pid > 1:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name in names:
                chosen = pid
                break
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            break
    try:
        began = Path(f"/proc/{chosen}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        began = "?"
    return f"{chosen} {began}"
