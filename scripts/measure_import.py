"""Print how long `import gradring` takes in a fresh interpreter: the median of 11, without Python's own start.

python scripts/measure_import.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

CODE = "import time; begin = time.perf_counter(); import gradring; print(time.perf_counter() - begin)"


def main() -> None:
    """Print the median and the spread."""
    times = []
    for _ in range(11):
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
        times.append(1e3 * float(done.stdout))
    print(f"import gradring: {statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})")


if __name__ == "__main__":
    main()
