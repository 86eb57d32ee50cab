"""Several models are trained on parts of the data, and their weights are averaged in the end.

Usual: one process for each part, because NumPy's small operations hold Python's lock. gradring: one thread for each
part; ``fit`` runs without the lock.

python examples/gallery/04_subsets_averaged.py [full]
"""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from classifier import RATE, again, data, gradient, model
from compare import difference, report, size, timed

import gradring as gr

PARTS, BATCH, SAMPLES = 2, 64, size(4_096, 65_536)


def train_usually(part: int) -> np.ndarray:
    x, y = (array[part::PARTS] for array in data(SAMPLES))
    w = np.zeros((64, 10), np.float32)
    for at in range(0, len(x), BATCH):
        xs, ys = x[at : at + BATCH], y[at : at + BATCH]
        w -= np.float32(RATE / len(xs)) * gradient(w, xs, ys)
    return w


def main() -> None:
    with multiprocessing.get_context("spawn").Pool(PARTS) as pool:
        pool.map(train_usually, range(PARTS))  # the processes have started
        usual_seconds, expected = timed(lambda: np.mean(pool.map(train_usually, range(PARTS)), axis=0))
    trainers = [gr.Trainer(model(), optimizer=gr.optim.SGD(RATE), threads=1) for _ in range(PARTS)]

    def train(part: int) -> np.ndarray:
        x, y = (array[part::PARTS] for array in data(SAMPLES))
        return again(trainers[part], x, y, BATCH)

    with ThreadPoolExecutor(PARTS) as threads:
        list(threads.map(train, range(PARTS)))
        seconds, weights = timed(lambda: np.mean(list(threads.map(train, range(PARTS))), axis=0))
    report("Pool.map over subsets", usual_seconds, seconds, difference(expected, weights), 1e-4)


if __name__ == "__main__":
    main()
