"""Print how long the README's first command takes: `pip install .` and the first training, in a fresh environment.

python scripts/measure_install.py            # some minutes, on an idle machine; needs the package index
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def timed(what: str, *command: str | Path, cwd: Path) -> None:
    """Run a command without a compiler's cache, and print its time."""
    environment = {**os.environ, "CCACHE_DISABLE": "1"}
    begin = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"{what}: {time.perf_counter() - begin:.0f} s")


def main() -> None:
    """Print a time for each part of the command."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        python = work / "venv" / "bin" / "python"
        clone = work / "gradring"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}")
        timed("python3 -m venv", sys.executable, "-m", "venv", work / "venv", cwd=work)
        timed("pip install .", python, "-m", "pip", "install", clone, cwd=work)
        timed("gradring train digits", python, "-m", "gradring", "train", "digits", cwd=work)


if __name__ == "__main__":
    main()
