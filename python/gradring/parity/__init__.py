"""Checks that a trainer trains as PyTorch does: runs both side by side on the same weights and batches, and compares every
loss, every gradient and every parameter after every step.

::

    model = gr.nn.Sequential(gr.nn.Linear(64, 32), gr.nn.ReLU(), gr.nn.Linear(32, 10))
    trainer = gr.Trainer(model, optimizer=gr.optim.AdamW(1e-3))
    (x, y), _ = gr.datasets.digits()
    report = gr.parity.compare(trainer, [(x[i : i + 32], y[i : i + 32]) for i in range(0, 1600, 32)])
    print(report)
    report.check()

It needs PyTorch, which gradring itself does not.
"""

from gradring.parity.compare import compare
from gradring.parity.plain import PlainTwin
from gradring.parity.report import Mismatch, Report, Tolerance
from gradring.parity.twin import Twin, torch_forward

__all__ = ["Mismatch", "PlainTwin", "Report", "Tolerance", "Twin", "compare", "torch_forward"]
