"""Measure how long the README's first command takes: `pip install .` and the first training, in a fresh environment.

    python scripts/measure_install.py            # some minutes, on an idle machine; needs the package index

It prints the times and writes them to benchmarks/results/install.json, from which scripts/draw_figures.py tells the README.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def timed(what: str, *command: str | Path, cwd: Path) -> float:
    """Run a command without a compiler's cache; its seconds."""
    environment = {**os.environ, "CCACHE_DISABLE": "1"}
    begin = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    print(f"{what}: {seconds:.0f} s")
    return round(seconds, 1)


def main() -> None:
    """Print and write a time for each part of the command."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        python = work / "venv" / "bin" / "python"
        clone = work / "gradring"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        about = {"processors": os.cpu_count(), "load_average": os.getloadavg()[0]}
        print(about)
        seconds = {
            "venv": timed("python3 -m venv", sys.executable, "-m", "venv", work / "venv", cwd=work),
            "install": timed("pip install .", python, "-m", "pip", "install", clone, cwd=work),
            "train": timed("gradring train digits", python, "-m", "gradring", "train", "digits", cwd=work),
        }
    result = ROOT / "benchmarks" / "results" / "install.json"
    result.write_text(json.dumps({**about, "seconds": seconds}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
