"""The forward pass that ``model(x)`` and ``predict`` run."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring import _core, devices, hooks
from gradring.cuda import Array
from gradring.errors import GradringError
from gradring.float32_products import get_float32_products
from gradring.graph.faults import id_error
from gradring.graph.passes import predict_graph
from gradring.graph.products import with_products
from gradring.ir import Input
from gradring.session.arenas import Arenas
from gradring.session.batch import require_one_place, rows_contiguous
from gradring.session.culprits import as_given
from gradring.session.device_feed import array_feed
from gradring.session.programs import Programs

if TYPE_CHECKING:
    from gradring.ir import Graph
    from gradring.nn.layer import Layer
    from gradring.nn.store import Store

__all__ = ["Forward"]

_LARGEST_BATCH = 1024
_FLOAT32 = np.dtype("float32")


class _NoOperation(Exception):
    """The model, such as Flatten or Dropout alone, returns its input."""


class Forward:
    """A model's forward pass, from any number of threads at the same time: each call that runs has programs and
    temporaries of its own, kept for the batch shapes seen."""

    def __init__(
        self, model: Layer, store: Store | None = None, lanes: int | None = None, operands: str | None = None
    ) -> None:
        """Products read ``operands``, a dtype of 16 bits or ``"tf32"``, if it is given."""
        self.store = model.store if store is None else store
        self._model, self._lanes = model, _core.usable_cores() if lanes is None else lanes
        self._operands = operands
        self._inside: set[int] = set()  # the threads
        self._free: list[_Pass] = []  # a list's methods are atomic, so a thread that removes one is its only user

    def __call__(
        self, *inputs: ArrayLike, batch_size: int = _LARGEST_BATCH, called: Callable[[int], object] = int
    ) -> NDArray[Any]:
        """The outputs for all samples, ``batch_size`` at a time; ``called`` names a sample in errors by its row."""
        names = self._model.input_names
        if len(inputs) != len(names):
            raise TypeError(
                f"[predict] {self._model} takes {len(names)} inputs, ({', '.join(names)}), got {len(inputs)}"
            )
        if self.store.device != devices.CPU:
            devices.require_no_capture(self.store.device, "predict")
        me = threading.get_ident()
        if me in self._inside:
            raise GradringError(
                "[predict] it is running already, further up this thread's stack: a layer cannot call the model it is in"
            )
        try:
            one = self._free.pop()
        except IndexError:
            one = _Pass(self._model, self.store, self._lanes, self._operands)
        try:
            self._inside.add(me)
            try:
                return one.predict(inputs, batch_size, called)
            finally:
                self._inside.discard(me)
                self._free.append(one)
        except BaseException:  # A signal's handler may have raised it anywhere above.
            self._inside.discard(me)
            raise


class _Pass:
    """Programs of the forward pass, for one thread at a time."""

    def __init__(self, model: Layer, store: Store, lanes: int, operands: str | None) -> None:
        tf32 = operands == "tf32"
        self._operands = None if tf32 else operands
        self._programs = Programs(model, Arenas(store), lanes=lanes, tf32=tf32)
        self._output: tuple[int, ...] = ()  # the shape of a row
        self._dtypes: tuple[str, ...] = ()  # the dtypes in which the programs read the inputs
        self._ready: tuple[object, ...] = ()  # the last call's look, if the programs are ready for another of the same

    def predict(self, inputs: Sequence[ArrayLike], batch_size: int, called: Callable[[int], object]) -> NDArray[Any]:
        """The model's outputs for all rows of the inputs."""
        # A server gives one row at a time, so what depends on the shape alone is done at the first call.
        x = inputs[0]
        if type(x) is not np.ndarray or len(inputs) > 1 or x.dtype is not _FLOAT32 or not x.flags.c_contiguous:
            self._ready = ()
            return self._predict(inputs, batch_size, called)
        look = (x.shape, batch_size, _core.get_float32_products())
        if look == self._ready and not self._programs.stale:
            feed = _core.ArrayFeed([(x, self._dtypes[0])], min(batch_size, len(x)))
            return self._run(feed, inputs, len(x), called)
        self._ready = ()
        result = self._predict(inputs, batch_size, called)
        self._ready = look if len(x) and self._programs.plans else ()
        return result

    def _predict(self, inputs: Sequence[ArrayLike], batch_size: int, called: Callable[[int], object]) -> NDArray[Any]:
        programs, dtype, names = self._programs, self._programs.dtype, self._programs.model.input_names
        arrays = [rows_contiguous(x, name, dtype) for name, x in zip(names, inputs, strict=True)]
        total = len(arrays[0])
        for name, array in zip(names, arrays, strict=True):
            if len(array) != total:
                raise ValueError(f"[predict] {names[0]} has {total} samples, {name} has {len(array)}: must be equal")
        if total == 0:
            graph, output = predict_graph(programs.model, _inputs(names, arrays, 1))
            return np.empty((0, *graph.values[output].shape[1:]), dtype)
        size = min(batch_size, total)
        looks = [(array.shape[1:], array.dtype.kind in "iu") for array in arrays]
        if not programs.expect(signature := (looks, get_float32_products())):
            self._dtypes = (dtype,) * len(names)
            programs.expected(signature)
        try:
            self._ensure(_inputs(names, arrays, size))
        except _NoOperation:
            return np.array(np.asarray(arrays[0]), dtype).reshape(total, *self._output)
        parts = list(zip(arrays, self._dtypes, strict=True))
        require_one_place(names, arrays)
        on_device = isinstance(arrays[0], Array)
        feed = array_feed(parts, size, programs.store.device) if on_device else _core.ArrayFeed(parts, size)
        if total % size:
            self._ensure(_inputs(names, arrays, total % size))
        return self._run(feed, arrays, total, called)

    def _run(self, feed: Any, arrays: Sequence[Any], total: int, called: Callable[[int], object]) -> NDArray[Any]:
        programs, dtype = self._programs, self._programs.dtype
        out = np.empty((total, *self._output), dtype)
        result = programs.native.predict(feed, out, out.itemsize * math.prod(self._output))
        if result["fault"] == "callback":
            programs.raise_callback()
        if result["fault"] == "id":
            place = result["position"] + result["row"]
            result = {**result, "value": as_given(result["value"], place, arrays)}
            raise id_error(result, programs.plans.values(), called(place))
        return out

    def _ensure(self, inputs: Mapping[str, Input]) -> None:
        programs = self._programs

        def build() -> tuple[Graph, str | None]:
            layout, operands = programs.store.layout, self._operands
            on_cpu = programs.store.device == devices.CPU
            graph, output = predict_graph(
                programs.model, inputs, dtype=programs.dtype, layout=layout, operands=operands, on_cpu=on_cpu
            )
            self._output = graph.values[output].shape[1:]
            self._dtypes = tuple(graph.values[name].dtype for name in inputs)
            if not graph.nodes:
                raise _NoOperation
            return with_products(graph, get_float32_products() if on_cpu else "fma"), output

        programs.ensure("predict", next(iter(inputs.values())).shape[0], build)


def _inputs(names: Sequence[str], arrays: Sequence[NDArray[Any]], rows: int) -> dict[str, Input]:
    return {
        name: Input((rows, *array.shape[1:]), array.dtype.kind in "iu", slot)
        for slot, (name, array) in enumerate(zip(names, arrays, strict=True))
    }


hooks.forward.register(Forward)
