"""Independent tasks, one for each batch: here, the predictions for a large array.

Usual: a ``ProcessPoolExecutor`` to which each batch is submitted. gradring: ``predict``, whose threads share each
batch, and which any number of Python threads may call at the same time.

python examples/gallery/05_tasks_on_batches.py [full]
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from compare import difference, report, size, timed

import gradring as gr

SAMPLES, BATCH = size(4_096, 65_536), 512


def predict(parameters: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    hidden = np.maximum(x @ parameters["0.weight"] + parameters["0.bias"], 0)
    return hidden @ parameters["2.weight"] + parameters["2.bias"]


def main() -> None:
    x = np.random.default_rng(0).standard_normal((SAMPLES, 64), np.float32)
    net = gr.nn.Sequential(gr.nn.Linear(64, 128), gr.nn.ReLU(), gr.nn.Linear(128, 10)).init(0)
    parameters = {name: np.array(array) for name, array in net.params.items()}
    batches = [x[at : at + BATCH] for at in range(0, SAMPLES, BATCH)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:

        def usual() -> np.ndarray:
            tasks = [pool.submit(predict, parameters, batch) for batch in batches]
            return np.concatenate([task.result() for task in tasks])

        usual()  # the processes have started
        usual_seconds, expected = timed(usual)
    trainer = gr.Trainer(net)
    trainer.predict(x)
    seconds, outputs = timed(lambda: trainer.predict(x))
    report("ProcessPoolExecutor.submit", usual_seconds, seconds, difference(expected, outputs), 1e-5)


if __name__ == "__main__":
    main()
