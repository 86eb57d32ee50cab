"""Print what an epoch of ``Trainer.fit`` costs beside its steps, in microseconds: the smallest of several runs.

The network is 64-32-10, and the batches have 90 rows. An epoch of one step and an epoch of sixteen give the time of a step.
The rest of the epoch of one step is the cost of the epoch: order, feed, gate, history.

python scripts/measure_epoch.py [--tries 60]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import gradring as gr

BATCH, EPOCHS = 90, 100


def seconds_per_epoch(steps: int, tries: int) -> float:
    """The smallest mean over EPOCHS epochs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * steps, 64)).astype(np.float32)
    y = rng.integers(0, 10, BATCH * steps)
    model = gr.nn.Sequential(gr.nn.Linear(64, 32), gr.nn.ReLU(), gr.nn.Linear(32, 10)).init(0)
    trainer = gr.Trainer(model, optimizer=gr.optim.SGD(0.01), threads=1)
    times = []
    for _ in range(tries + 1):  # the first one plans
        began = time.perf_counter()
        trainer.fit((x, y), epochs=EPOCHS, batch_size=BATCH, verbose=False)
        times.append(time.perf_counter() - began)
    return min(times[1:]) / EPOCHS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=60)
    tries = parser.parse_args().tries
    one, sixteen = seconds_per_epoch(1, tries), seconds_per_epoch(16, tries)
    step = (sixteen - one) / 15
    print(
        f"an epoch of 1 step {one * 1e6:.1f} us, of 16 steps {sixteen * 1e6:.1f} us: a step takes {step * 1e6:.2f} us"
    )
    print(f"an epoch beside its steps {(one - step) * 1e6:.1f} us")


if __name__ == "__main__":
    main()
