"""Threads share the rows of a matrix product.

Usual: a ``ThreadPoolExecutor`` over ``np.matmul``, which releases Python's lock. gradring: one call, whose threads
share the product and whose result has the same bits for any number of them.

python examples/gallery/08_threaded_products.py [full]
"""

import os

# Before NumPy is imported, because OpenBLAS's own threads would be in the way of those below.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from compare import difference, report, size, timed

import gradring as gr

ROWS, WIDTH = size(512, 2048), size(256, 1024)


def main() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((ROWS, WIDTH), np.float32)
    b = rng.standard_normal((WIDTH, WIDTH), np.float32)
    out, result = np.empty((ROWS, WIDTH), np.float32), np.empty((ROWS, WIDTH), np.float32)
    half = ROWS // 2
    with ThreadPoolExecutor(2) as threads:

        def usual() -> np.ndarray:
            parts = [slice(0, half), slice(half, ROWS)]
            list(threads.map(lambda part: np.matmul(a[part], b, out=out[part]), parts))
            return out

        usual_seconds, expected = timed(usual, 10)
    gr.ops.matmul(a, b, out=result)
    seconds, product = timed(lambda: gr.ops.matmul(a, b, out=result), 10)
    alone = gr.get_num_threads()
    gr.set_num_threads(1)
    assert np.array_equal(gr.ops.matmul(a, b), product)
    gr.set_num_threads(alone)
    report("threads over np.matmul", usual_seconds, seconds, difference(expected, product), 1e-5)


if __name__ == "__main__":
    main()
