"""Print what a training step takes on one replica of several threads, on as many replicas of one thread each, and on these
with shards.

Two networks: 784-1024-1024-10 with 256 rows per batch, and 784-128-10 with 128 rows, with AdamW in float32. The ways take
turns, and the time of each is the median over the rounds. The parts of a step are what ``timings()`` says of them.

python scripts/measure_replicas.py [--ranks 2] [--shards 8] [--rounds 9]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import numpy as np

import gradring as gr

NETWORKS = (((784, 1024, 1024, 10), 256, 40), ((784, 128, 10), 128, 1000))
WARM_UP = 3  # rounds in which programs are planned, and the number of lanes is tried out


class Way:
    """A trainer and its data, and the time that its steps have taken."""

    def __init__(
        self, sizes: tuple[int, ...], rows: int, steps: int, *, shards: int | None = None, **ranks: int
    ) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((rows * steps, sizes[0])).astype(np.float32)
        self.y = rng.integers(0, sizes[-1], rows * steps)
        layers: list[gr.nn.Layer] = []
        for before, after in itertools.pairwise(sizes):
            layers += [gr.nn.Linear(before, after), gr.nn.ReLU()]
        model = gr.nn.Sequential(*layers[:-1]).init(0)
        self.trainer = gr.Trainer(model, optimizer=gr.optim.AdamW(1e-4), shards=shards, **ranks)
        self.rows, self.steps, self.times = rows, steps, list[float]()

    def run(self) -> None:
        """One round."""
        began = time.perf_counter()
        self.trainer.fit((self.x, self.y), epochs=1, batch_size=self.rows, verbose=False)
        self.times.append((time.perf_counter() - began) / self.steps)

    @property
    def median(self) -> float:
        """Seconds per step."""
        return statistics.median(self.times[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help="how many replicas, and how many threads beside")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    for sizes, rows, steps in NETWORKS:
        ways = {
            f"1 replica of {given.ranks} threads": Way(sizes, rows, steps, replicas=1, threads=given.ranks),
            f"{given.ranks} replicas of 1 thread": Way(sizes, rows, steps, replicas=given.ranks, threads=given.ranks),
            f"{given.ranks} replicas, {given.shards} shards": Way(
                sizes, rows, steps, shards=given.shards, replicas=given.ranks, threads=given.ranks
            ),
        }
        for _ in range(WARM_UP + given.rounds):
            for way in ways.values():
                way.run()
        print(f"{'-'.join(map(str, sizes))}, {rows} rows per batch, AdamW, float32")
        first = next(iter(ways.values()))
        for name, way in ways.items():
            speed = f"{way.median * 1e3:8.3f} ms per step, {first.median / way.median:.2f} times the first's speed"
            print(f"  {name:24} {speed}; {way.trainer.timings()}")


if __name__ == "__main__":
    main()
