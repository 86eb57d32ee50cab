"""A layer in Python."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring import _core
from gradring.arguments import flag
from gradring.arrays import as_ndarray
from gradring.errors import NotBuilt
from gradring.ir import Value
from gradring.nn.layer import Layer

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["Function"]

Array = NDArray[Any]


class Function(Layer):
    """A layer whose forward and backward pass are Python functions of arrays.

    ``forward(x) -> y`` and ``vjp(dy, x, y) -> dx``. ``shape`` gives the output's shape from the input's (both with the
    batch axis first); without it they are equal. A field of integers that the function reads directly has dtype int64;
    everything else has the model's dtype. The arrays are copies, which you may change and keep. An exception of a function
    ends the step before any parameter changes, and ``fit`` raises it.

    Replicas call ``forward`` and ``vjp`` from several threads, one call at a time; with ``thread_safe=True`` calls may overlap.
    Between a ``forward`` and its ``vjp`` there may be calls for other parts of the batch, so what ``vjp`` needs must come from
    its arguments.

    >>> import numpy as np
    >>> from gradring import nn
    >>> square = nn.Function(lambda x: x * x, lambda dy, x, y: 2 * x * dy)
    >>> square(np.array([[3.0]], dtype=np.float32))
    array([[9.]], dtype=float32)
    """

    def __init__(
        self,
        forward: Callable[[Array], ArrayLike],
        vjp: Callable[[Array, Array, Array], ArrayLike],
        *,
        shape: Callable[[tuple[int, ...]], Sequence[int]] | None = None,
        name: str | None = None,
        thread_safe: bool = False,
        parameters: None = None,
    ) -> None:
        if parameters is not None:
            raise NotBuilt(
                "[Function] parameters= is planned: put gr.nn.Linear or a layer of your own before the function, or give "
                "gradients of your own, gr.Trainer(step=..., params=...)"
            )
        for argument, function in (("forward", forward), ("vjp", vjp)):
            if not callable(function):
                raise TypeError(f"[Function] {argument} must be callable, got {type(function).__name__}")
        self.forward = forward
        self.vjp = vjp
        self.output_shape = shape
        self.thread_safe = flag("Function", "thread_safe", thread_safe)
        self.name = name or getattr(forward, "__name__", "function")
        self.failures: list[BaseException] = []
        self._callbacks: dict[Any, Any] = {}
        self._turn = threading.RLock()

    _native = (*Layer._native, "_callbacks", "_turn", "failures")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.failures, self._callbacks, self._turn = [], {}, threading.RLock()
        super().__setstate__(state)

    def trace(self, tracer: Builder, x: str) -> str:
        shape = tracer.shape(x)
        out = shape if self.output_shape is None else tuple(int(n) for n in self.output_shape(shape))
        if not out or out[0] != shape[0]:
            raise ValueError(f"[Function] {self}: shape gives {out} for {shape}: the batch axis must stay")
        answer = Value("answer", (1,), dtype="int64")  # whether the function succeeded, for all lanes to read
        return tracer.node(
            "function",
            {"x": x},
            out,
            {"function": self},
            effects=f"call {tracer.path('forward')}",
            also={"answer": answer},
            integers=("x",),
        )

    def callback(self, op: str, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> Any:
        """The native callback for arrays of these shapes and dtypes; the last one is the output."""
        key = (op, tuple(shapes), tuple(dtypes))
        if key not in self._callbacks:
            function: Callable[..., ArrayLike] = self.forward if op == "function" else self.vjp
            self._callbacks[key] = _core.Callback(self._wrapped(function, op, list(shapes), list(dtypes)))
        return self._callbacks[key]

    def _wrapped(
        self, function: Callable[..., ArrayLike], op: str, shapes: list[tuple[int, ...]], dtypes: list[str]
    ) -> Callable[[tuple[int, ...]], bool]:
        what = "forward" if op == "function" else "vjp"
        turn = nullcontext() if self.thread_safe else self._turn
        # The native callback must not hold this layer, because the garbage collector cannot see what it holds.
        layer, failures = str(self), self.failures

        def array(address: int, shape: tuple[int, ...], dtype: str) -> Array:
            real = np.dtype(dtype)
            memory = (ctypes.c_char * (int(np.prod(shape)) * real.itemsize)).from_address(address)
            flat: Array = np.frombuffer(memory, real)  # type: ignore[call-overload]
            return flat.reshape(shape)

        def call(addresses: tuple[int, ...]) -> bool:
            try:
                # Pass copies, because a program reuses its memory, and may free it while a function still holds its
                # array.
                inputs = [array(*one).copy() for one in zip(addresses[:-1], shapes[:-1], dtypes[:-1], strict=True)]
                with turn:
                    result = function(*inputs)
                if type(result) is not np.ndarray:
                    result = as_ndarray("Function", f"{layer}: the result of {what}", result)
                if result.shape != shapes[-1]:
                    raise ValueError(f"[Function] {layer}: {what} returned {result.shape}, must be {shapes[-1]}")
                array(addresses[-1], shapes[-1], dtypes[-1])[...] = result
                return True
            except BaseException as error:  # raised again when the native step has ended
                failures.append(error)
                return False

        return call

    def __repr__(self) -> str:
        return f"Function({self.name})"
