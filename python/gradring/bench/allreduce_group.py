"""The ranks of one library in the race. Their own launcher starts them; they run when the race asks, and sleep in between."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .allreduce_entrants import Entrant

__all__ = ["Ranks"]

_START_SECONDS = 90.0
_TURN_SECONDS = 240.0


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
        paths = [entrant.folder, os.environ.get("PYTHONPATH", "")] if entrant.folder else []
        one |= {"PYTHONPATH": os.pathsep.join(filter(None, paths))} if paths else {}
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
        links: list[socket.socket] = []
        files: list[Any] = []
        while len(files) < self.ranks and time.monotonic() < deadline and self._process.poll() is None:
            with suppress(TimeoutError):
                link, _ = listener.accept()
                link.settimeout(_START_SECONDS)
                links.append(link)
                files.append(link.makefile("rw"))
        try:
            for file in files:
                reply = json.loads(file.readline() or '{"rank": -1, "missing": "a rank ended"}')
                self.missing = self.missing or reply.get("missing")
                self.about = reply.get("about", self.about)
                self._links[reply["rank"]] = file
        except (TimeoutError, OSError):
            self.missing = "its ranks did not answer"
        for link in links:
            link.settimeout(_TURN_SECONDS)
            link.close()  # the file object keeps the socket open
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
