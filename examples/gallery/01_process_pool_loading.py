"""A pool of processes makes samples; the parent stacks them into batches.

Usual: ``multiprocessing.Pool.imap``, which pickles every sample to the parent. gradring: worker processes that write
their samples straight into the memory of the batch.

python examples/gallery/01_process_pool_loading.py [full]
"""

import multiprocessing

import numpy as np
from compare import difference, report, size, timed

import gradring as gr

SAMPLES, BATCH = size(256, 4096), 32


def sample(i: int) -> np.ndarray:
    """A picture that costs some Python: 64 × 64 numbers, shifted and scaled."""
    picture = (np.arange(64 * 64, dtype=np.float32).reshape(64, 64) * (i + 1)) % 251
    for shift in range(4):
        picture = np.roll(picture, shift + i, axis=shift % 2)
    return picture / np.float32(251)


def main() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(sample, range(2))  # the processes have started

        def usual() -> list[np.ndarray]:
            samples = list(pool.imap(sample, range(SAMPLES), chunksize=8))
            return [np.stack(samples[at : at + BATCH]) for at in range(0, SAMPLES, BATCH)]

        usual_seconds, expected = timed(usual)

    source = gr.sources.Callable(sample, SAMPLES, workers="processes", num_workers=2)
    with gr.Loader(source, batch_size=BATCH) as loader:
        next(iter(loader))  # the processes have started
        seconds, batches = timed(lambda: [np.array(batch) for batch in loader])
    report("multiprocessing.Pool.imap", usual_seconds, seconds, difference(expected, batches), 0.0)


if __name__ == "__main__":
    main()
