"""Runtime: one model's native engine and the programs that it has been given. Engine and Layer.__call__ stand on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring import _core
from gradring.errors import GradringError
from gradring.graph.batch import rows_contiguous
from gradring.graph.passes import predict_graph
from gradring.graph.plan import Plan, plan
from gradring.nn.store import flat_array

if TYPE_CHECKING:
    from gradring.ir import Graph
    from gradring.nn.function import Function
    from gradring.nn.layer import Layer
    from gradring.nn.store import Store

__all__ = ["Runtime"]

# What a program of this many FLOP takes, about 20 microseconds, is worth handing over Python's lock for.
_BRIEF_FLOPS = 2_000_000


class _NoOperation(Exception):
    """A model, such as Flatten or Dropout alone, hands its input on."""


class Runtime:
    """The native engine over a model's store, with programs made on demand for each mode and batch shape.

    ``states`` names the optimizer's arrays; None for a model that is not trained here.
    """

    stale = False

    def __init__(
        self,
        model: Layer,
        store: Store,
        *,
        states: Sequence[str] | None = None,
        lanes: int,
        accumulate: int = 1,
        seed: int = 0,
        check_finite: bool = True,
    ) -> None:
        self.model = model
        self.store = store
        store.runtimes.add(self)
        self.dtype = store.dtype
        item = np.dtype(store.dtype).itemsize
        # Reserved in full when it is made, so a model that is not trained gets none.
        self.grad_arena = _core.SharedArena(item * (1 if states is None else store.elements))
        self.state_arena = _core.SharedArena(item * max(len(states or ()) * store.elements, 1))
        self.native = _core.Engine(
            store.arena, self.grad_arena, self.state_arena, lanes, accumulate, seed, check_finite
        )
        self.plans: dict[tuple[str, int], Plan] = {}
        self.row_shape: tuple[int, ...] | None = None

    def ensure(self, mode: str, input_shape: tuple[int, ...], build: Callable[[], tuple[Graph, str | None]]) -> bool:
        """Make the program for this mode and batch shape if it is not there; True if it is new."""
        if self.row_shape != input_shape[1:]:
            # Another row shape than before: programs are found by their number of rows alone.
            self.clear()
            self.row_shape = input_shape[1:]
        if self.stale:
            self.clear()
        key = (mode, input_shape[0])
        if key in self.plans:
            return False
        graph, output = build()
        made = plan(graph, output, mode=mode)
        brief = made.flops < _BRIEF_FLOPS and not any(i.op == "callback" for i in made.instructions)
        barriers = self.native.add(
            mode, made.rows, made.dtype, list(made.buffers), made.native(), made.temp_bytes, made.fields, brief
        )
        # What is only printed is planned again when somebody asks: thousands of small models may be alive.
        losses = tuple(i for i in made.instructions if i.op == "cross_entropy")
        self.plans[key] = replace(made, instructions=losses, buffers=(), names=(), shapes={}, barriers=tuple(barriers))
        return True

    def clear(self) -> None:
        """Forget all programs; they are made again when next needed."""
        self.native.clear()
        self.stale = False
        self.plans.clear()

    def replace_state(self, names: Sequence[str], before: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Other memory for the optimizer's arrays, with the values that they had before, or zeros; its views."""
        store = self.store
        arena = _core.SharedArena(np.dtype(self.dtype).itemsize * max(len(names) * store.elements, 1))
        flat = flat_array(arena, self.dtype, max(len(names) * store.elements, 1))
        views: dict[str, NDArray[Any]] = {}
        for number, name in enumerate(names):
            part = flat[number * store.elements : (number + 1) * store.elements]
            views |= {f"{name}.{key}": view for key, view in store.views(part).items()}
        for name, view in views.items():
            if name in before:
                view[...] = before[name]
        self.native.set_state(arena)
        self.clear()
        self.state_arena = arena
        return views

    def forget_programs(self) -> None:
        """As ``clear``; where a program runs at the moment, as soon as the next one is asked for."""
        try:
            self.clear()
        except GradringError:
            self.stale = True

    def plan_of(self, mode: str, rows: int) -> Plan:
        """What is kept of a plan as it runs now: its shape, its barriers and the lanes chosen."""
        return replace(self.plans[mode, rows], lanes=self.native.program_lanes(mode, rows))

    def feed(self, fields: Sequence[tuple[NDArray[Any], str]], batch_size: int, **order: Any) -> Any:
        return _core.ArrayFeed(list(fields), batch_size, **order)

    def functions(self) -> list[Function]:
        from gradring.nn.function import Function

        return [layer for _, layer in self.model.walk() if isinstance(layer, Function)]

    def raise_callback(self) -> None:
        """Raise what a Python layer raised inside a program, if one did."""
        for function in self.functions():
            if function.failures:
                error = function.failures[0]
                function.failures.clear()
                raise error

    def predict(self, x: ArrayLike, batch_size: int) -> NDArray[Any]:
        """The model's outputs for all rows of ``x``."""
        array = rows_contiguous(x, "x", self.dtype)
        total = array.shape[0]
        if total == 0:
            graph, output = predict_graph(self.model, (1, *array.shape[1:]))
            return np.empty((0, *graph.values[output].shape[1:]), self.dtype)
        size = min(batch_size, total)
        outputs: dict[str, tuple[int, ...]] = {}

        def build(rows: int) -> Callable[[], tuple[Graph, str | None]]:
            def graph_for() -> tuple[Graph, str | None]:
                graph, output = predict_graph(
                    self.model, (rows, *array.shape[1:]), dtype=self.dtype, layout=self.store.layout
                )
                outputs["shape"] = graph.values[output].shape
                if not graph.nodes:
                    raise _NoOperation
                return graph, output

            return graph_for

        feed = self.feed([(array, self.dtype)], size)
        try:
            new = self.ensure("predict", (size, *array.shape[1:]), build(size))
        except _NoOperation:
            return np.array(array, self.dtype).reshape(total, *outputs["shape"][1:])
        if new:
            self.output_shape = outputs["shape"][1:]
        if total % size:
            self.ensure("predict", (total % size, *array.shape[1:]), build(total % size))
        out = np.empty((total, *self.output_shape), self.dtype)
        result: Mapping[str, Any] = self.native.predict(feed, out, out.itemsize * int(np.prod(self.output_shape)))
        if result["fault"] == "callback":
            self.raise_callback()
        return out
