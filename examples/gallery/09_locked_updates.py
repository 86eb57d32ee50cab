"""Threads train on batches of their own and update the same weights under a lock.

Usual: ``threading`` with a ``Lock`` around the update. gradring: ``parallel="locked"``; ``"atomic"`` and
``"hogwild"`` update without locks.

The order of asynchronous updates is not fixed, so this program trains on a task in which it does not matter: all
targets are far above the predictions, the gradient of the mean absolute error is then the same whatever the weights
are, and its numbers are integers times a power of two. So both ways must end with equal bits, and any update that was
lost would show.

python examples/gallery/09_locked_updates.py [full]
"""

import threading

import numpy as np
from classifier import again
from compare import difference, report, size, timed

import gradring as gr

WORKERS, BATCH, SAMPLES, FEATURES = 2, 64, size(8_192, 131_072), 256
RATE = 2.0**-6


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (SAMPLES, FEATURES)).astype(np.float32)
    y = np.full((SAMPLES, 1), 1e6, np.float32)

    def usual() -> np.ndarray:
        w, lock, starts = np.zeros((FEATURES, 1), np.float32), threading.Lock(), iter(range(0, SAMPLES, BATCH))

        def work() -> None:
            while True:
                with lock:
                    at = next(starts, None)
                    snapshot = w.copy()
                if at is None:
                    return
                xs, ys = x[at : at + BATCH], y[at : at + BATCH]
                gradient = xs.T @ np.sign(xs @ snapshot - ys) / np.float32(BATCH)
                with lock:
                    w.__isub__(np.float32(RATE) * gradient)

        threads = [threading.Thread(target=work) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return w

    usual_seconds, expected = timed(usual)

    def trainer(parallel: str) -> gr.Trainer:
        model = gr.nn.Sequential(gr.nn.Linear(FEATURES, 1, bias=False)).init(0)
        sgd = gr.optim.SGD(RATE)
        return gr.Trainer(model, "mae", sgd, metrics=(), replicas=WORKERS, threads=WORKERS, parallel=parallel)

    locked, atomic = trainer("locked"), trainer("atomic")
    again(locked, x, y, BATCH)  # the first epoch plans the step
    seconds, weights = timed(lambda: again(locked, x, y, BATCH))
    assert np.array_equal(again(atomic, x, y, BATCH), weights)
    report("threads and a Lock", usual_seconds, seconds, difference(expected, weights), 0.0)


if __name__ == "__main__":
    main()
