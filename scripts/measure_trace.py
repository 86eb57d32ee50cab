"""Measure what a trace costs while it is recorded: the seconds of an epoch with ``gr.callbacks.Trace`` and without.

Run it on an idle machine: ``python scripts/measure_trace.py``. Runs alternate, and the medians are compared; the step of
the network takes about 300 us on two cores of 2020. What is written when a run ends is not part of an epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np

import gradring as gr

EPOCHS = 5


def epoch_seconds(data: tuple[np.ndarray, np.ndarray], hidden: int, threads: int | str, trace: Path | None) -> float:
    """The median seconds of an epoch; the first one settles how many threads a step uses."""
    layers = (
        gr.nn.Linear(64, hidden),
        gr.nn.ReLU(),
        gr.nn.Linear(hidden, hidden),
        gr.nn.ReLU(),
        gr.nn.Linear(hidden, 10),
    )
    trainer = gr.Trainer(gr.nn.Sequential(*layers), optimizer=gr.optim.AdamW(1e-3), threads=threads)
    callbacks = [] if trace is None else [gr.callbacks.Trace(trace)]
    history = trainer.fit(data, EPOCHS, batch_size=64, callbacks=callbacks, verbose=False)
    return statistics.median(history.metrics["seconds"][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--threads", default="auto")
    options = parser.parse_args()
    threads = options.threads if options.threads == "auto" else int(options.threads)
    rng = np.random.default_rng(0)
    steps = 200
    data = rng.standard_normal((64 * steps, 64), dtype=np.float32), rng.integers(0, 10, 64 * steps)
    ratios, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            off = epoch_seconds(data, options.hidden, threads, None)
            on = epoch_seconds(data, options.hidden, threads, Path(folder) / "trace.json")
            ratios.append(on / off)
            plain.append(off / steps)
    print(f"a step takes {statistics.median(plain) * 1e6:.0f} us without a trace")
    print(f"with one {statistics.median(ratios) - 1:+.1%} (from {min(ratios) - 1:+.1%} to {max(ratios) - 1:+.1%})")


if __name__ == "__main__":
    main()
