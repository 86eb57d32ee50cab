"""Who races in `gradring bench allreduce`: the launchers' commands and settings of our library and of every peer."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

__all__ = ["UNFAIR", "Entrant", "entrants"]

_MODULE = "gradring.bench.allreduce_rank"


@dataclass(frozen=True)
class Entrant:
    """A contender: the launcher's command (with `{ranks}` and `{folder}` to fill in), the library, and its settings."""

    name: str
    launcher: tuple[str, ...]
    library: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    family: str = ""  # "ours", "gloo" or "mpi"
    links: dict[str, str] = field(default_factory=dict)  # files to link in the folder, by name
    tunes: str = ""  # the variable that chooses its algorithm, by number, if that is worth trying


def entrants(mpi_from: Sequence[Path] = ()) -> list[Entrant]:
    """Our contender, and every peer with the settings that may be its best. `mpi_from`: folders of further MPIs."""
    own = (sys.executable, "-m", "gradring", "run", "-n", "{ranks}", "--bind", "none", "-m", _MODULE)
    found = [
        Entrant("gradring", own, ("ours",), family="ours"),
        Entrant("gradring, NumPy arrays", own, ("ours", "numpy=1"), family="ours"),
        Entrant("gloo", own, ("gloo",), {"GLOO_SOCKET_IFNAME": "lo"}, family="gloo"),
    ]
    if mpich := shutil.which("mpiexec.mpich"):
        # Debian's library has another name than mpi4py's wheel expects.
        library = next(iter(sorted(Path("/usr/lib").glob("*/libmpich.so.12"))), None)
        found += _mpich("MPICH", mpich, {"libmpi.so.12": str(library)} if library else {}, "{folder}")
    if openmpi := shutil.which("mpirun.openmpi"):
        found += _open_mpi("Open MPI", openmpi, {}, ("--mca", "btl_vader_single_copy_mechanism", "none"))
    for folder in mpi_from:
        found += _from_folder(folder.absolute())
    if (root := _intel_mpi()) is not None:
        command = (str(root / "bin" / "mpiexec.hydra"), "-n", "{ranks}", *_PYTHON)
        base = {
            "MPI4PY_MPIABI": "mpich",
            "LD_LIBRARY_PATH": str(root / "lib"),
            "I_MPI_ROOT": str(root),
            "I_MPI_FABRICS": "shm",
            "I_MPI_PIN": "0",  # the ranks pin themselves
        }
        found += [
            Entrant("Intel MPI", command, ("mpi",), base, "mpi", tunes="I_MPI_ADJUST_ALLREDUCE"),
            Entrant("Intel MPI, POSIX heap", command, ("mpi",), {**base, "I_MPI_SHM_HEAP": "1"}, "mpi"),
        ]
    return found


_PYTHON = (sys.executable, "-m", _MODULE)


def _mpich(name: str, launcher: str, links: dict[str, str], libraries: str) -> list[Entrant]:
    base = {"MPI4PY_MPIABI": "mpich", "LD_LIBRARY_PATH": libraries}
    command = (launcher, "-n", "{ranks}", *_PYTHON)
    ways = {"": {}, ", CMA": {"UCX_TLS": "self,posix,cma"}, ", POSIX": {"UCX_TLS": "self,posix"}}
    return [Entrant(name + way, command, ("mpi",), {**base, **more}, "mpi", links) for way, more in ways.items()]


def _open_mpi(name: str, launcher: str, environment: dict[str, str], emulated: tuple[str, ...] = ()) -> list[Entrant]:
    start = (launcher, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none")
    ways = {"": (), ", no tuned": ("--mca", "coll", "^tuned")}
    if emulated:
        ways[", emulated copies"] = emulated
    base = {"MPI4PY_MPIABI": "openmpi", **environment}
    return [
        Entrant(name + way, (*start, *settings, "-n", "{ranks}", *_PYTHON), ("mpi",), base, "mpi")
        for way, settings in ways.items()
    ]


def _from_folder(folder: Path) -> list[Entrant]:
    """An MPI as its wheel lays it out."""
    libraries, launcher = folder / "lib", str(folder / "bin" / "mpiexec")
    name = f"{{}} of {folder.name}"
    if not os.access(launcher, os.X_OK):
        raise ValueError(f"[bench] --mpi-from: {folder} must have bin/mpiexec and lib/libmpi.so, as the wheel of an MPI has")
    if (libraries / "libmpi.so.40").exists():
        paths = {"LD_LIBRARY_PATH": str(libraries), "OPAL_PREFIX": str(folder)}
        return _open_mpi(name.format("Open MPI"), launcher, paths)
    return _mpich(name.format("MPICH"), launcher, {}, str(libraries))


def _intel_mpi() -> Path | None:
    """The folder of the wheel impi-rt, in this environment or in one that it extends."""
    try:
        files = metadata.files("impi-rt") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        root = Path(os.path.abspath(file.locate())).parent.parent
        if file.name == "mpiexec.hydra" and (root / "lib" / "libmpi.so.12").exists():
            return root
    return None


# Peers that cannot be called fairly from NumPy, and the reasons.
UNFAIR = {
    "oneCCL": "the wheel oneccl-cpu has a C++ library without headers, and no Python module: no call from NumPy arrays",
    "pypccl": "on Linux it has one wheel, for CPython 3.12, and it sends by TCP as gloo does",
}
