"""Runs steps of a trainer and of its twins, and measures how far apart they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradring.parity.plain import PlainTwin
from gradring.parity.report import DEFAULTS, Record, Report, Tolerance
from gradring.parity.twin import Forward, Twin, torch_forward
from gradring.trainer import Trainer

if TYPE_CHECKING:
    from gradring.session import Session

__all__ = ["compare"]


def compare(
    trainer: Trainer | Session,
    batches: Iterable[tuple[Any, Any]],
    *,
    against: Literal["torch", "numpy"] = "torch",
    forward: Forward | None = None,
    gradients: bool = True,
    tolerance: Tolerance | None = None,
) -> Report:
    """Train on ``batches`` of (x, y) here and in another library, and compare after every step.

    ``against`` is ``"torch"``, or ``"numpy"`` for a plain implementation that needs nothing installed. ``trainer`` (or
    a session) must be fresh, without an update done, and this trains it. The other library runs twice, from the same
    weights: in float64, which is taken as the truth, and in the trainer's dtype, which shows what rounding alone does.
    The report compares the loss, every gradient (before clipping; running sums if gradients accumulate) and every
    parameter.

    ``forward(params, x)`` is the model in PyTorch, for one that :func:`torch_forward` cannot translate; ``params`` has
    tensors under our names and in our layout, (in, out) for a ``Linear``. ``tolerance`` is 1e-5 of a tensor's largest
    element, or 4 times the other's own error, for float32, and 1e-10 for float64.

    To compare gradients, the trainer must not fuse updates into the products that make them. ``gradients=False`` keeps
    the fusion, and compares only losses and parameters.

    Raises ``ImportError`` without PyTorch, ``ValueError`` for a trainer that has trained before.
    """
    session = trainer.session if isinstance(trainer, Trainer) else trainer
    if session.step_count:
        raise ValueError(f"[parity] the trainer has done {session.step_count} updates: it must be fresh")
    loss = session.loss
    options: dict[str, Any] = {
        "loss": loss,
        "optimizer": session.optimizer,
        "frozen": session.frozen,
        "clip_norm": session.clip_norm,
        "accumulate": session.accumulate,
    }
    start = {name: array.copy() for name, array in session.params.items()}
    if against not in ("torch", "numpy") or (against == "numpy" and forward is not None):
        raise ValueError(f"[parity] against must be 'torch', or 'numpy' without forward, got {against!r}")
    twins: list[Twin | PlainTwin] = []
    for dtype in ("float64", session.dtype):
        if against == "torch":
            twins.append(Twin(forward or torch_forward(session.model), start, dtype=dtype, **options))
        else:
            twins.append(PlainTwin(session.model, start, dtype=dtype, **options))
    truth, peer = twins
    grads = session.grads if gradients else {}
    report = Report(session.dtype, tolerance or DEFAULTS[session.dtype])
    seen: dict[tuple[str, str], float] = {}  # the peer's largest error on each tensor
    for step, (x, y) in enumerate(batches, 1):
        multiplied = session.loss_scale
        ours = session.step(x, y)
        mine = {("loss", ""): np.float64(ours), **_tensors(grads, session.params, multiplied)}
        right = _stepped(truth, x, y)
        theirs = _stepped(peer, x, y)
        for key, value in right.items():
            if key not in mine:
                continue
            scale = float(np.max(np.abs(value), initial=0.0))
            error = _distance(mine[key], value, scale)
            seen[key] = max(seen.get(key, 0.0), _distance(theirs[key], value, scale))
            report.records.append(Record(step, *key, error, seen[key], scale))
    return report


def _stepped(twin: Twin | PlainTwin, x: Any, y: Any) -> dict[tuple[str, str], Any]:
    loss = twin.step(np.asarray(x), np.asarray(y))
    params = twin.arrays() if isinstance(twin, Twin) else twin.params
    return {("loss", ""): np.float64(loss), **_tensors(twin.grads, params)}


def _tensors(grads: Any, params: Any, multiplied: float = 1.0) -> dict[tuple[str, str], NDArray[Any]]:
    """The arrays on the host; gradients without the loss's scale, by which they are ``multiplied``."""
    scale = np.float32(1 / multiplied)  # exact, because scales are powers of two
    found = {("gradient", name): np.asarray(array) * scale for name, array in grads.items()}
    return found | {("parameter", name): np.asarray(array) for name, array in params.items()}


def _distance(value: Any, truth: Any, scale: float) -> float:
    """max |value - truth| / scale; NaN in one but not in the other is NaN, which is no agreement."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(np.asarray(value, np.float64) - truth)
    gap = np.where((np.isnan(value) & np.isnan(truth)) | (np.asarray(value) == truth), 0.0, gap)
    largest = float(np.max(gap, initial=0.0))
    return largest / scale if scale else (0.0 if largest == 0.0 else float("inf"))
