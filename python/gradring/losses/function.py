"""A loss in Python."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring import _core
from gradring.arguments import flag
from gradring.arrays import as_ndarray, is_array_like
from gradring.errors import reason
from gradring.losses.base import Loss, Native, Reduction

__all__ = ["Function"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Function(Loss):
    """A loss whose value and derivative are Python functions of arrays.

    ``forward(outputs, targets)`` gives one loss for each sample, an array (N,), and ``vjp(dlosses, outputs, targets)`` the
    gradient with respect to the outputs, from ``dlosses`` (N,), the one with respect to the losses. Weights, means over a
    batch, accumulated batches or an evaluation, work as with every other loss. Targets may have any shape with a row for
    each sample; integers stay integers (int64), all else has the model's dtype. The arrays are copies, which you may
    change and keep. An exception of a function ends the step before any parameter changes, and ``fit`` raises it. Replicas
    call the functions from several threads, one call at a time; with ``thread_safe=True`` calls may overlap.

    >>> import gradring as gr
    >>> cubic = Function(
    ...     lambda p, t: (np.abs(p - t) ** 3).mean(axis=1),
    ...     lambda d, p, t: d[:, None] * 3 * (p - t) * np.abs(p - t) / p.shape[1],
    ... )
    >>> trainer = gr.Trainer(gr.nn.Linear(4, 2), loss=cubic, optimizer=gr.optim.SGD(0.1))
    >>> x, y = np.eye(4, dtype=np.float32), np.zeros((4, 2), np.float32)
    >>> first = trainer.step(x, y)
    >>> bool(trainer.step(x, y) < first)
    True
    """

    forward: Callable[[Array, Array], ArrayLike]
    vjp: Callable[[Array, Array, Array], ArrayLike]
    reduction: Reduction = "mean"
    thread_safe: bool = False
    failures: list[BaseException] = field(default_factory=list, init=False, repr=False)
    _callbacks: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    kind: ClassVar[str] = "function_loss"
    counts_right: ClassVar[bool] = False
    named: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, function in (("forward", self.forward), ("vjp", self.vjp)):
            if not callable(function):
                raise TypeError(f"[losses.Function] {name} must be callable, got {type(function).__name__}")
        self._check_reduction(self.reduction)
        flag("losses.Function", "thread_safe", self.thread_safe)

    def native(self) -> Native:
        attributes: dict[str, Any] = {"function": self}
        if self.reduction == "sum":
            attributes["reduction"] = "sum"
        return Native("function_loss", attributes, {})

    def target(
        self, outputs: tuple[int, ...], dtype: str, given: tuple[tuple[int, ...], str] | None = None
    ) -> tuple[tuple[int, ...], str]:
        return (outputs, dtype) if given is None else ((*outputs[:1], *given[0]), given[1])

    def terms(self, outputs: tuple[int, ...]) -> int:
        return 1

    def take_failure(self) -> BaseException | None:
        failure = self.failures[0] if self.failures else None
        self.failures.clear()
        return failure

    def target_dtype(self, dtype: str, y: Any = None) -> str:
        return "int64" if y is not None and y.dtype.kind in "iu" else dtype

    def callback(self, op: str, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> Any:
        """The native callback for outputs and targets of these shapes and dtypes, the first two."""
        key = (tuple(shapes[:2]), tuple(dtypes[:2]))
        if key not in self._callbacks:
            turn = nullcontext() if self.thread_safe else self._callbacks.setdefault("turn", threading.RLock())
            self._callbacks[key] = _core.Callback(self._wrapped(*key, turn))
        return self._callbacks[key]

    def _wrapped(
        self, shapes: tuple[tuple[int, ...], ...], dtypes: tuple[str, ...], turn: AbstractContextManager[Any]
    ) -> Callable[[tuple[int, ...]], bool]:
        # The native callback must not hold this loss, because the garbage collector cannot see what it holds.
        forward, vjp, failures = self.forward, self.vjp, self.failures
        (outputs_shape, targets_shape), (real, kind) = shapes, dtypes
        samples = outputs_shape[:1]

        def call(addresses: tuple[int, ...]) -> bool:
            try:
                # Pass copies, because a program reuses its memory, and may free it while a function still holds its
                # array.
                outputs = _array(addresses[0], outputs_shape, real).copy()
                targets = _array(addresses[1], targets_shape, kind).copy()
                with turn:
                    made = forward(outputs, targets)
                losses = _result("forward", made, samples, "one loss for each sample")
                _array(addresses[3], samples, real)[...] = losses
                if len(addresses) > 4:
                    dlosses = _array(addresses[2], samples, real).copy()
                    with turn:
                        made = vjp(dlosses, outputs, targets)
                    gradient = _result("vjp", made, outputs_shape, "the gradient with respect to the outputs")
                    _array(addresses[4], outputs_shape, real)[...] = gradient
                return True
            except BaseException as error:  # raised again when the native step has ended
                failures.append(error)
                return False

        return call

    def __str__(self) -> str:
        return str(getattr(self.forward, "__name__", "function"))


def _array(address: int, shape: tuple[int, ...], dtype: str) -> Array:
    real = np.dtype(dtype)
    memory = (ctypes.c_char * (int(np.prod(shape)) * real.itemsize)).from_address(address)
    flat: Array = np.frombuffer(memory, real)  # type: ignore[call-overload]
    return flat.reshape(shape)


def _result(function: str, given: Any, shape: tuple[int, ...], what: str) -> Array:
    try:
        looks = is_array_like(given) and type(given) is not np.ndarray
        result: Array = as_ndarray("losses.Function", "it", given) if looks else np.asarray(given)
    except (TypeError, ValueError) as error:  # such as rows of unequal lengths
        raise type(error)(
            f"[losses.Function] {function} returned no array of shape {shape}, {what}: {reason(error)}"
        ) from error
    if result.shape != shape:
        hint = "; the mean over the samples is taken for you" if function == "forward" else ""
        raise ValueError(f"[losses.Function] {function} returned {result.shape}: must be {shape}, {what}{hint}")
    if result.dtype.kind not in "fiub":
        raise TypeError(f"[losses.Function] {function} returned {result.dtype}: must be real numbers, {what}")
    return result
