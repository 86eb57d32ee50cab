"""Print how much memory `fit` on Fashion-MNIST adds to the data's own: resident pages now and at the peak.

python benchmarks/memory.py [EPOCHS]
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import gradring as gr


def resident() -> float:
    """MiB of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak() -> float:
    """The most MiB that were ever in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Load the data, note the memory, train, and print the difference."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    x, y = gr.datasets.fashion_mnist().train
    loader = gr.Loader((x, y), 64, shuffle=True)
    model = gr.nn.Sequential(
        gr.nn.Linear(784, 256), gr.nn.ReLU(), gr.nn.Linear(256, 128), gr.nn.ReLU(), gr.nn.Linear(128, 10)
    )
    trainer = gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.Adam(1e-3))
    # The peak so far belongs to the preparation above; writing 5 here makes Linux count from now on.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    trainer.fit(loader, epochs=1)
    first = resident()
    trainer.fit(loader, epochs=epochs - 1 or 1)
    print(f"data {(x.nbytes + y.nbytes) / 2**20:.0f} MiB, resident before fit {before:.0f} MiB")
    later = resident() - first
    print(
        f"fit added {first - before:.1f} MiB in its first epoch, {later:.1f} MiB later, peak {peak() - before:.1f} MiB"
    )


if __name__ == "__main__":
    main()
