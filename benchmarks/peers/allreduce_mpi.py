"""The MPIs that race in ``gradring bench allreduce``: those of Debian, those of wheels, and Intel MPI, called by mpi4py."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from allreduce_tuning import tuned

from gradring.bench.allreduce_entrants import RANK, Entrant
from gradring.bench.allreduce_libraries import AllReduce, Array, Library

_FOLDER = str(Path(__file__).parent)
_PYTHON = (sys.executable, "-m", RANK)
_INTEL, _CHOICE = "Intel MPI", "I_MPI_ADJUST_ALLREDUCE"


def entrants(mpi_from: Sequence[Path], ranks: int, cores: list[int], sizes: Sequence[int]) -> list[Entrant]:
    """Every MPI that is found, with the settings that may be its best for sums of these sizes, in bytes. ``mpi_from``:
    folders of further MPIs, with bin/mpiexec and lib/libmpi.so."""
    found = mpis(mpi_from)
    return found + [best for one in found if one.name == _INTEL for best in tuned(one, _CHOICE, ranks, cores, sizes)]


def mpis(mpi_from: Sequence[Path] = ()) -> list[Entrant]:
    """Every MPI that is found, with the settings that do not depend on the sizes."""
    found: list[Entrant] = []
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
            _entrant(_INTEL, command, base),
            _entrant("Intel MPI, POSIX heap", command, {**base, "I_MPI_SHM_HEAP": "1"}),
        ]
    return found


def _entrant(
    name: str, command: tuple[str, ...], environment: dict[str, str], links: dict[str, str] | None = None
) -> Entrant:
    return Entrant(name, command, ("allreduce_mpi:library",), environment, "mpi", links or {}, _FOLDER)


def _mpich(name: str, launcher: str, links: dict[str, str], libraries: str) -> list[Entrant]:
    base = {"MPI4PY_MPIABI": "mpich", "LD_LIBRARY_PATH": libraries}
    command = (launcher, "-n", "{ranks}", *_PYTHON)
    ways = {"": {}, ", CMA": {"UCX_TLS": "self,posix,cma"}, ", POSIX": {"UCX_TLS": "self,posix"}}
    return [_entrant(name + way, command, {**base, **more}, links) for way, more in ways.items()]


def _open_mpi(name: str, launcher: str, environment: dict[str, str], emulated: tuple[str, ...] = ()) -> list[Entrant]:
    start = (launcher, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none")
    ways = {"": (), ", no tuned": ("--mca", "coll", "^tuned")}
    if emulated:
        ways[", emulated copies"] = emulated
    base = {"MPI4PY_MPIABI": "openmpi", **environment}
    return [_entrant(name + way, (*start, *settings, "-n", "{ranks}", *_PYTHON), base) for way, settings in ways.items()]


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


def library(rank: int, size: int, folder: str, **options: str) -> Library:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if (world.Get_rank(), world.Get_size()) != (rank, size):
        raise RuntimeError(f"MPI says rank {world.Get_rank()} of {world.Get_size()}")

    def empty(count: int) -> Array:
        return np.empty(count, np.float32)

    def bind(array: Array) -> AllReduce:
        # mpi4py's documentation advises this form for speed, because it need not look up a dtype.
        buffer = [array, array.size, MPI.FLOAT]
        call, in_place = world.Allreduce, MPI.IN_PLACE
        return lambda _: call(in_place, buffer)

    return Library(empty, bind, MPI.Get_library_version().splitlines()[0][:60].strip("\0"))
