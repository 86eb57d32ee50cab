"""Kill ranks of a training at random, restart them, and compare the final parameters with those of an undisturbed run.

    python scripts/kill_ranks.py

`gradring run --max-restarts` restarts all ranks after each kill, and they go on from the newest checkpoint. After 200 kills at
random moments, rank 1 dies 20 times inside an update, by a failpoint of a libgradring.so that was built with tests.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAINING = Path(__file__).resolve().parent.parent / "tests" / "faults" / "training.py"
LIBRARY = Path(os.environ.get("GRADRING_BUILD", "build/dev")) / "csrc"
# A rank updates its half of the parameters in 4 blocks. It dies in the 14th step of its generation, after four epochs of three
# steps, when it has updated two blocks.
PASSES = 13 * 4 + 2


def started(
    folder: Path, epochs: int, pause: int, restarts: int, environment: dict[str, str]
) -> subprocess.Popen[str]:
    """A training of two ranks, which sleep for ``pause`` milliseconds after each epoch."""
    command = [sys.executable, "-m", "gradring", "run", "-n", "2", "--bind", "none", "--max-restarts", str(restarts)]
    command += [str(TRAINING), str(folder / "state.safetensors"), str(epochs), str(pause)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def ranks_of(launcher: int) -> list[int]:
    """The processes of the ranks."""
    try:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        return [int(pid) for pid in children if str(TRAINING).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []


def ended(job: subprocess.Popen[str]) -> tuple[int, str]:
    """The generation in which a training has ended, and the digest of its parameters."""
    try:
        out, errors = job.communicate(timeout=600)
    except BaseException:
        job.kill()
        raise
    if job.returncode:
        raise SystemExit(f"the training ended with {job.returncode}:\n{errors}")
    generation, digest = out.split()
    return int(generation), digest


def undisturbed(epochs: int) -> str:
    """The digest of the parameters after a training that nothing disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        return ended(started(Path(folder), epochs, 0, 0, {}))[1]


def campaign(kills: int, each: int, seed: int, library: Path | None) -> None:
    """Train again and again, with so many ``kills`` in all and ``each`` in one training: at random or, with a ``library``,
    inside updates."""
    chance, done, number = random.Random(seed), 0, 0
    wanted: dict[int, str] = {}  # by the number of epochs; all trainings of that length end with it
    while done < kills:
        number += 1
        most = min(each, kills - done)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            epochs, pause = (4 * most + 1, 0) if library is not None else (50 * most, 50)
            if epochs not in wanted:
                wanted[epochs] = undisturbed(epochs)
            environment = {}
            if library is not None:
                place = f"within update,1,{PASSES},{int(signal.SIGKILL)}"
                environment = {"LD_LIBRARY_PATH": str(library.resolve()), "GRADRING_FAILPOINT": place}
            job = started(folder, epochs, pause, 10 * most, environment)
            killed = 0
            while library is None and killed < most and job.poll() is None:
                time.sleep(chance.uniform(0.5, 4.0))
                if ranks := ranks_of(job.pid):
                    os.kill(chance.choice(ranks), signal.SIGKILL)
                    killed += 1
            generation, digest = ended(job)
        if digest != wanted[epochs]:
            raise SystemExit(f"training {number}: the parameters differ after {generation} restarts (seed {seed})")
        if not generation:
            raise SystemExit(f"training {number}: it ended before a rank was killed")
        done += generation
        where = "at random" if library is None else "inside updates"
        print(
            f"training {number}: {generation} restarts, the parameters of an undisturbed run ({done} kills {where})", flush=True
        )


def main() -> None:
    """Kill, and compare."""
    parser = argparse.ArgumentParser(description="Kill ranks of a training, and compare the parameters.")
    parser.add_argument("--kills", type=int, default=200, help="kills at random (default: 200)")
    parser.add_argument("--within", type=int, default=20, help="kills inside updates (default: 20)")
    parser.add_argument("--each", type=int, default=10, help="kills of one training (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", type=Path, default=LIBRARY, help=f"folder of the library (default: {LIBRARY})")
    given = parser.parse_args()
    library = given.library / "libgradring.so"
    if given.within and not (library.exists() and b"GRADRING_FAILPOINT" in library.read_bytes()):
        raise SystemExit(
            f"{library} has no failpoints, which kill a rank inside an update: build it, from the sources that are installed, "
            "by cmake --preset dev && cmake --build build/dev --target gradring, or give --library or --within 0"
        )
    campaign(given.kills, given.each, given.seed, None)
    campaign(given.within, given.each, given.seed, given.library)


if __name__ == "__main__":
    main()
