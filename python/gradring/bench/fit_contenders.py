"""An epoch over Fashion-MNIST, per library: shuffled batches of 64, 784-256-128-10, SGD with momentum.

Peers run their own best loop: data preloaded in their tensors, one random permutation per epoch, batches sliced by
hand (no loader), loss read once at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .contender import Work
from .step_contenders import our_trainer


def data() -> tuple[np.ndarray, np.ndarray]:
    """Training images as float32 rows in [0, 1], and labels."""
    import gradring as gr

    (x, y), _ = gr.datasets.fashion_mnist()
    return np.ascontiguousarray(x.reshape(len(x), -1), np.float32), y.astype(np.int64)


def ours(case: dict[str, Any]) -> Work:
    """gradring: ``trainer.fit`` for one epoch."""
    import gradring as gr

    trainer = our_trainer(case)
    loader = gr.Loader(data(), case["batch"], shuffle=True, seed=0)
    return lambda: trainer.fit(loader, epochs=1)
