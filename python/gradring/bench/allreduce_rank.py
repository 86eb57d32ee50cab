"""One rank of one library in `gradring bench allreduce`: it waits at a socket for requests, and times its own calls.

    python -m gradring.bench.allreduce_rank FOLDER RANKS LIBRARY [OPTION=VALUE ...]

The rank's number comes from its launcher's variables, or from gradring's launcher.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

# Do this before NumPy is imported: one processor, and one thread.
_CORES = [int(cpu) for cpu in os.environ.get("GRADRING_BENCH_CORES", "").split(",") if cpu]
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")

__all__ = ["main"]


def _own_rank() -> int:
    from gradring.launch.inherited import inherited

    own = inherited()
    if own is not None:
        return own.rank
    return int(next(os.environ[name] for name in _RANK_VARIABLES if name in os.environ))


class _Meeting:
    """A barrier that lets all ranks begin at the same moment: ranks spin on words in a shared file, one per cache
    line."""

    def __init__(self, path: Path, rank: int, ranks: int) -> None:
        import mmap

        with open(path, "r+b") as file:
            self._words: Any = memoryview(mmap.mmap(file.fileno(), 64 * ranks)).cast("Q")
        self._mine = 8 * rank
        self._others = [8 * other for other in range(ranks) if other != rank]
        self._crowded = ranks > len(_CORES)
        self._turn = 0

    def wait(self) -> None:
        words = self._words
        self._turn = turn = self._turn + 1
        words[self._mine] = turn
        for other in self._others:
            while words[other] < turn:
                if self._crowded:
                    os.sched_yield()

    def rest(self) -> None:
        """Wait, if ranks share processors, until all have returned from their calls.

        If a rank checked its result at once, or polled here, it would keep its processor for a slice of the scheduler. That
        is longer than the call, and the time of another rank that waits for this processor would include it.
        """
        if not self._crowded:
            return
        words = self._words
        self._turn = turn = self._turn + 1
        words[self._mine] = turn
        for other in self._others:
            while words[other] < turn:
                time.sleep(5e-5)


class _Case:
    """Arrays of one size, rewritten before every use, and checked after it.

    Their elements are integers small enough for a float32 sum to be exact in any order. They come from few bytes: to read as
    many as an array has would drive half of a warm array out of the cache before the call.
    """

    _WIDTH = 2048  # elements in a row of an array; each row has the elements of the row before, moved by one place

    def __init__(self, library: Any, rank: int, ranks: int, elements: int, arrays: int) -> None:
        import numpy as np

        width = min(elements, self._WIDTH)
        rows = elements // width
        if rows * width != elements:
            raise ValueError(f"{elements} elements: must be at most {width}, or a multiple of it")
        numbers = [np.random.default_rng(100 + r).integers(-1000, 1000, rows + width - 1) for r in range(ranks)]
        bases = [np.lib.stride_tricks.sliding_window_view(each.astype(np.float32), width) for each in numbers]
        total = np.sum(numbers, axis=0).astype(np.float32)
        self._own, self._sum, self._ranks, self._rank = (
            bases[rank],
            np.lib.stride_tricks.sliding_window_view(total, width),
            ranks,
            rank,
        )
        stride = max(elements, 32)  # two cache lines, which are fetched together
        memory = library.empty(stride * arrays)
        self.arrays = [memory[stride * i : stride * i + elements] for i in range(arrays)]
        self.calls = [library.bind(array) for array in self.arrays]
        self._turn = 0

    def rewrite(self) -> None:
        import numpy as np

        self._turn += 1
        for i, array in enumerate(self.arrays):
            number = np.float32((self._turn * 7 + i * 3 + self._rank) % 1000)
            np.add(self._own, number, out=array.reshape(self._own.shape))

    def check(self) -> None:
        import numpy as np

        for i, array in enumerate(self.arrays):
            added = sum((self._turn * 7 + i * 3 + rank) % 1000 for rank in range(self._ranks))
            if not np.array_equal(array.reshape(self._sum.shape), self._sum + np.float32(added)):
                raise ArithmeticError(f"a wrong sum in turn {self._turn}")


def _time(case: _Case, meeting: _Meeting, sweeps: int, *, each: bool) -> dict[str, Any]:
    """Nanoseconds per call: of each call, or of all calls of a sweep together, which is for calls shorter than a clock."""
    took: list[float] = []
    cpu = 0.0
    pairs = list(zip(case.calls, case.arrays, strict=True))
    now, used = time.perf_counter_ns, time.process_time
    for _ in range(sweeps):
        case.rewrite()
        if each:
            for call, array in pairs:
                meeting.wait()
                cpu_before = used()
                before = now()
                call(array)
                took.append(now() - before)
                cpu += used() - cpu_before
                meeting.rest()
        else:
            meeting.wait()
            cpu_before = used()
            before = now()
            for call, array in pairs:
                call(array)
            took.append((now() - before) / len(pairs))
            cpu += (used() - cpu_before) / len(pairs)
            meeting.rest()
        case.check()
    return {"nanoseconds": took, "cpu_seconds": cpu / len(took)}


def main(arguments: list[str]) -> int:
    """Serve turns until the socket closes."""
    folder, ranks, name, *options = arguments
    rank = _own_rank()
    if _CORES:
        os.sched_setaffinity(0, [_CORES[rank % len(_CORES)]])
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(os.path.join(folder, "turns"))
        lines = link.makefile("rw")

        def say(**fields: Any) -> None:
            lines.write(json.dumps({"rank": rank, **fields}) + "\n")
            lines.flush()

        try:
            from gradring.bench.allreduce_libraries import LIBRARIES
            from gradring.bench.contender import load

            make = LIBRARIES.get(name) or load(name)
            library = make(rank, int(ranks), folder, **dict(option.split("=") for option in options))
            meeting = _Meeting(Path(folder) / "meeting", rank, int(ranks))
        except Exception as error:
            say(missing=f"{type(error).__name__}: {error}")
            return 1
        say(about=library.about)
        case: Any = None
        for line in lines:
            turn = json.loads(line)
            try:
                if turn["do"] == "prepare":
                    case = None
                    case = _Case(library, rank, int(ranks), turn["elements"], turn["arrays"])
                    _time(case, meeting, 1, each=True)
                    say(ready=True)
                else:
                    say(**_time(case, meeting, turn["sweeps"], each=turn["each"]))
            except Exception as error:
                say(error=f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
