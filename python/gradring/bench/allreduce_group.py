"""The ranks of one library in the race. Their own launcher starts them; they run when the race asks, and sleep in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["UNFAIR", "Entrant", "Ranks", "entrants"]

_START_SECONDS = 90.0
_TURN_SECONDS = 240.0
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


def entrants() -> list[Entrant]:
    """Our contender, and every peer with the settings that may be its best."""
    own = (sys.executable, "-m", "gradring", "run", "-n", "{ranks}", "--bind", "none", "-m", _MODULE)
    found = [
        Entrant("gradring", own, ("ours",), family="ours"),
        Entrant("gradring, NumPy arrays", own, ("ours", "numpy=1"), family="ours"),
        Entrant("gloo", own, ("gloo",), {"GLOO_SOCKET_IFNAME": "lo"}, family="gloo"),
    ]
    python = (sys.executable, "-m", _MODULE)
    if mpich := shutil.which("mpiexec.mpich"):
        # Debian's library has another name than mpi4py's wheel expects.
        library = next(iter(sorted(Path("/usr/lib").glob("*/libmpich.so.12"))), None)
        links = {"libmpi.so.12": str(library)} if library else {}
        base = {"MPI4PY_MPIABI": "mpich", "LD_LIBRARY_PATH": "{folder}"}
        command = (mpich, "-n", "{ranks}", *python)
        found += [
            Entrant("MPICH", command, ("mpi",), base, "mpi", links),
            Entrant("MPICH, CMA", command, ("mpi",), {**base, "UCX_TLS": "self,posix,cma"}, "mpi", links),
            Entrant("MPICH, POSIX", command, ("mpi",), {**base, "UCX_TLS": "self,posix"}, "mpi", links),
        ]
    if openmpi := shutil.which("mpirun.openmpi"):
        start = (openmpi, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none")
        base = {"MPI4PY_MPIABI": "openmpi"}
        for name, settings in {
            "Open MPI": (),
            "Open MPI, emulated copies": ("--mca", "btl_vader_single_copy_mechanism", "none"),
            "Open MPI, no tuned": ("--mca", "coll", "^tuned"),
        }.items():
            found.append(Entrant(name, (*start, *settings, "-n", "{ranks}", *python), ("mpi",), base, "mpi"))
    if (root := _intel_mpi()) is not None:
        command = (str(root / "bin" / "mpiexec.hydra"), "-n", "{ranks}", *python)
        base = {
            "MPI4PY_MPIABI": "mpich",
            "LD_LIBRARY_PATH": str(root / "lib"),
            "I_MPI_ROOT": str(root),
            "I_MPI_FABRICS": "shm",
            "I_MPI_PIN": "0",  # the ranks pin themselves
        }
        found += [
            Entrant("Intel MPI", command, ("mpi",), base, "mpi"),
            Entrant("Intel MPI, POSIX heap", command, ("mpi",), {**base, "I_MPI_SHM_HEAP": "1"}, "mpi"),
        ]
    return found


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
    "oneCCL": "the wheel oneccl-cpu has a C++ interface alone: no call from NumPy arrays",
    "pypccl": "its wheel is for CPython 3.12 on Linux alone, and it goes over TCP/IP as gloo does",
}


class Ranks:
    """The processes of a contender."""

    def __init__(self, entrant: Entrant, ranks: int, cores: list[int]) -> None:
        self.entrant, self.ranks = entrant, ranks
        self.missing: str | None = None
        self.about = ""
        # The folder is under /tmp, because a socket's path must be short.
        self._folder = tempfile.TemporaryDirectory(prefix="gradring-bench-", dir="/tmp")
        folder = self._folder.name
        Path(folder, "meeting").write_bytes(bytes(64 * ranks))
        for name, target in entrant.links.items():
            os.symlink(target, os.path.join(folder, name))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.join(folder, "turns"))
        listener.listen(ranks)
        listener.settimeout(0.5)

        def fill(text: str) -> str:
            return text.replace("{ranks}", str(ranks)).replace("{folder}", folder)

        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        settings = {name: fill(value) for name, value in entrant.environment.items()}
        environment = {**os.environ, **one, "GRADRING_BENCH_CORES": ",".join(map(str, cores)), **settings}
        command = [*map(fill, entrant.launcher), folder, str(ranks), *entrant.library]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        self._links: dict[int, Any] = {}
        with listener:
            self._await_ranks(listener)
        if self.missing:
            self.close()

    def _await_ranks(self, listener: socket.socket) -> None:
        deadline = time.monotonic() + _START_SECONDS
        files: list[Any] = []
        while len(files) < self.ranks and time.monotonic() < deadline and self._process.poll() is None:
            with suppress(TimeoutError):
                link, _ = listener.accept()
                link.settimeout(_START_SECONDS)
                files.append(link.makefile("rw"))
                link.close()  # the file object keeps the socket open
        try:
            for file in files:
                reply = json.loads(file.readline() or '{"rank": -1, "missing": "a rank ended"}')
                self.missing = self.missing or reply.get("missing")
                self.about = reply.get("about", self.about)
                self._links[reply["rank"]] = file
        except (TimeoutError, OSError):
            self.missing = "its ranks did not answer"
        if len(files) < self.ranks:
            self.missing = self.missing or f"its ranks did not start: {self._said()}"

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-300:]

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """Makes all ranks run a turn, and returns their answers; an answer may be an `error`."""
        try:
            for file in self._links.values():
                file.write(json.dumps(request) + "\n")
                file.flush()
            answers = [json.loads(file.readline() or '{"error": "a rank ended"}') for file in self._links.values()]
        except (OSError, ValueError) as error:
            answers = [{"error": f"a rank does not answer: {error}"}]
        if any("error" in answer for answer in answers):
            self.close()  # the others may wait for the one that failed
        return answers

    def close(self) -> None:
        """Ends the processes."""
        for file in self._links.values():
            with suppress(OSError):
                file.close()
        self._links = {}
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._errors.close()
        with suppress(OSError):
            self._folder.cleanup()
