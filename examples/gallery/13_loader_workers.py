"""Loader workers, with batches in pinned memory for a GPU.

Usual: PyTorch's ``DataLoader`` with worker processes and ``pin_memory=True``. gradring: a loader with native threads.

A later version pins the loader's memory once it feeds a GPU. Until then it runs unpinned, and so does PyTorch on a
machine without a GPU.

pip install torch
python examples/gallery/13_loader_workers.py [full]
"""

import warnings

import numpy as np
import torch
from compare import difference, report, size, timed

import gradring as gr

SAMPLES, BATCH = size(2_048, 32_768), 64


def main() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((SAMPLES, 784), np.float32), rng.integers(0, 10, SAMPLES)
    samples = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    pinned = torch.cuda.is_available()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that it cannot pin
        loader = torch.utils.data.DataLoader(
            samples, BATCH, num_workers=2, pin_memory=True, persistent_workers=True, multiprocessing_context="fork"
        )
        next(iter(loader))  # the processes have started
        usual_seconds, expected = timed(lambda: [batch.numpy().copy() for batch, _ in loader])

    with gr.Loader((x, y), batch_size=BATCH, num_threads=2) as ours:
        next(iter(ours))
        seconds, batches = timed(lambda: [np.array(batch) for batch, _ in ours])
    print(
        f"gradring's batches are not pinned in this version; PyTorch's {'are' if pinned else 'are not either: there is no GPU'}"
    )
    report("DataLoader with workers", usual_seconds, seconds, difference(expected, batches), 0.0)


if __name__ == "__main__":
    main()
