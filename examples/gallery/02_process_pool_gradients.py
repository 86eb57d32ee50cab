"""A pool of processes computes the gradients of parts of each batch; the parent adds them up and makes the update.

Usual: ``multiprocessing.Pool.starmap``, which pickles weights, samples and gradients in every step. gradring:
replicas, which share the weights, and whose gradients never leave the memory in which they are made.

python examples/gallery/02_process_pool_gradients.py [full]
"""

import multiprocessing

import numpy as np
from classifier import RATE, again, data, gradient, model
from compare import difference, report, size, timed

import gradring as gr

STEPS, BATCH = size(20, 200), size(256, 2048)


def main() -> None:
    x, y = data(STEPS * BATCH)
    batches = [(x[at : at + BATCH], y[at : at + BATCH]) for at in range(0, len(x), BATCH)]

    with multiprocessing.get_context("spawn").Pool(2) as pool:

        def usual() -> np.ndarray:
            w = np.zeros((64, 10), np.float32)
            for xs, ys in batches:
                half = BATCH // 2
                parts = pool.starmap(gradient, [(w, xs[:half], ys[:half]), (w, xs[half:], ys[half:])])
                w -= np.float32(RATE / BATCH) * sum(parts)
            return w

        usual()  # the processes have started
        usual_seconds, expected = timed(usual, 2)

    trainer = gr.Trainer(model(), optimizer=gr.optim.SGD(RATE), replicas=2)
    again(trainer, x, y, BATCH)  # the first epoch plans the step
    seconds, weights = timed(lambda: again(trainer, x, y, BATCH))
    report("Pool.starmap", usual_seconds, seconds, difference(expected, weights), 1e-4)


if __name__ == "__main__":
    main()
