"""Calls of ops on arrays in the memory of a CUDA device. Native code leaves such a call to ``call``.

A call is queued on the current stream (``gr.cuda.current_stream``), and its results belong to that stream. Nothing waits for
the device but what must look at numbers: ops with labels or ids, and losses that return a number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gradring import devices
from gradring.cuda import Array, as_array, copied, empty, is_device_array, streams
from gradring.cuda.array import assign
from gradring.cuda.layout import may_share, steps_over_itself
from gradring.errors import NotBuilt
from gradring.ops._convert import may_share as share_elements
from gradring.ops._eager import SCHEMAS, Binding

__all__ = ["call"]

_BAD_PLACES = {"totals": (2, 4), "fault": (0,)}  # words of a hidden result that are -1 unless the data are bad
_NEW_MEMORY = (
    "and this call needs new memory, which no graph can get: call it before the capture begins, or after it has ended; a "
    "capture can have what writes into an out= that shares no memory with the other arrays, if no array has gaps"
)
_HIDDEN_WORDS = 5  # csrc/ops/loss/loss.h: LossTotals


def call(
    made: Callable[..., Any], given: Mapping[str, Any], attributes: list[Any], unwanted: list[str], axis: Any, out: Any
) -> Any:
    """Run the op of an eager function. ``given`` has its arrays by operand, ``attributes`` all values in the schema's order."""
    binding: Binding = made.binding  # type: ignore[attr-defined]
    name: str = made.__name__
    shown = _shown_names(binding)
    arrays = _on_one_device(name, {shown.get(operand, operand): value for operand, value in given.items()}, out)
    arrays = {operand: arrays[shown.get(operand, operand)] for operand in given}
    if axis is not None and _other_axis(name, next(iter(arrays.values())), axis):
        raise NotBuilt(f"[{name}] axis={axis} on a device is planned: give the last axis, or views that have it last")
    names = list(shown.items())
    if len(binding.results) == 1:
        names.append((binding.results[0], "out"))
    native = streams.native().DeviceCall(binding.op, name, names, attributes)
    schema = {operand["name"]: operand for operand in SCHEMAS[binding.op]["operands"]}
    return _Call(made, binding, native, schema, arrays, dict(given)).run(attributes, unwanted, out)


class _Call:
    def __init__(
        self, made: Any, binding: Binding, native: Any, schema: Any, arrays: dict[str, Array], given: dict[str, Any]
    ) -> None:
        self.made, self.binding, self.native, self.schema = made, binding, native, schema
        self.arrays, self.given = arrays, given
        self.lies = dict(arrays)  # where the arguments and results that were given lie, though the kernel may get copies
        self.name: str = made.__name__
        self.device = next(iter(arrays.values())).device_number
        self.back: list[tuple[Array, Array]] = []  # results that the kernel writes elsewhere, and where they belong

    def run(self, attributes: list[Any], unwanted: list[str], out: Any) -> Any:
        for operand, array in self.arrays.items():
            self._give(operand, array)
        changed: list[str] = []
        for operand, array in self.lies.items():
            if self.schema[operand]["access"] == "update":
                reads = [other for other in self.lies if self.schema[other]["access"] != "update"]
                self._require_apart(operand, operand, array, [*reads, *changed])
                changed.append(operand)
        if not self.native.ranks_fit and self.binding.other_ranks is not None:
            raise NotBuilt(f"[{self.name}] stacks of matrices on a device are planned: give each matrix alone")
        self.native.check()
        binding = self.binding
        reduction = self._reduction(attributes)
        number = binding.outcome is not None and reduction not in (None, "sample")
        if number and out is not None:
            raise ValueError(
                f"[{self.name}] out is given: the mean and the sum are numbers, out is for reduction='sample'"
            )
        outs = self._outs(out)
        results = {}
        for place, result in enumerate(binding.results):
            if result in unwanted or (number and result == binding.outcome):
                continue
            results[result] = self._result(result, outs[place])
        for operand, array in list(self.arrays.items()):
            if self.schema[operand]["access"] == "write" and operand not in results:
                self._result(operand, array)
        hidden = self._hidden()
        self._run()
        for array, home in self.back:
            assign(home, array, array.strides)
        totals = None if hidden is None else hidden.numpy()
        if totals is not None:
            self._verify(totals)
        values = [
            self.native.number(binding.hidden, totals)
            if number and result == binding.outcome
            else self._returned(results.get(result), out, outs[place])
            for place, result in enumerate(binding.results)
        ]
        return None if not values else values[0] if len(values) == 1 else tuple(values)

    def _run(self) -> None:
        self.native.run(self.device, devices.products_library(), streams.current_stream())

    def _require_memory(self) -> None:
        streams.require_no_capture(self.name, _NEW_MEMORY)

    def _give(self, operand: str, array: Array) -> None:
        changes = self.schema[operand]["access"] != "read"
        if changes and array.read_only:
            raise ValueError(f"[{self.name}] {operand} is read-only, and the op writes to it")
        allowed = self.schema[operand]["dtypes"]
        if array.dtype == np.uint8 and "int64" in allowed and "uint8" not in allowed:
            from gradring.ops.cast import cast

            array = cast(array, "int64")  # type: ignore[assignment]
        if not self._set(operand, array):
            self._require_memory()
            dense = copied(array)
            if changes:
                self.back.append((dense, array))
            self._set(operand, dense)

    def _set(self, operand: str, array: Array) -> bool:
        self.arrays[operand] = array
        done: bool = self.native.set(operand, array.address, array.dtype.name, list(array.shape), list(array.strides))
        return done

    def _outs(self, out: Any) -> list[Any]:
        count = len(self.binding.results)
        if out is None or count == 1:
            return [out] * max(count, 1)
        if not isinstance(out, tuple) or len(out) != count:
            raise TypeError(f"[{self.name}] out must be a tuple ({', '.join(self.binding.results)}) of arrays or None")
        return list(out)

    def _result(self, result: str, home: Any) -> Array:
        shape, dtype = self.native.result(result)
        if home is None:
            self._require_memory()
            array = _made(tuple(shape), dtype, self.device, self.given.values())
            self._set(result, array)
            return array
        target = as_array(home, f"{self.name}: out", self.device)
        if target.shape != tuple(shape) or target.dtype.name != dtype:
            raise ValueError(
                f"[{self.name}] out is {target.shape} of dtype {target.dtype}: must be {tuple(shape)} of dtype {dtype}"
            )
        if target.read_only:
            raise ValueError(f"[{self.name}] out is read-only")
        given = "out" if len(self.binding.results) == 1 else result
        if target.size and not steps_over_itself(target):
            raise ValueError(
                f"[{self.name}] {given} may have several elements in one place (its strides are {target.strides}): give it "
                "memory for each of them"
            )
        apart = self.native.is_apart(result)
        others = [other for other in self.lies if apart or self.schema[other]["access"] == "write"]
        self._require_apart(result, given, target, others)
        self.lies[result] = target
        inputs = [array for operand, array in self.arrays.items() if operand != result]
        shares = any(may_share(target, array) for array in inputs)
        if shares or not target.contiguous or not self._set(result, target):
            self._require_memory()
            array = empty(tuple(shape), dtype, self.device)  # so that the op reads all before anything is overwritten
            self._set(result, array)
            self.back.append((array, target))
        return target

    def _require_apart(self, operand: str, name: str, array: Array, others: Iterable[str]) -> None:
        """The rule of ``csrc/bindings/eager_op.cc`` for arrays of the host."""
        for other in others:
            if other != operand and _share(array, self.lies[other]):
                shown = _shown_names(self.binding).get(other, other)
                raise ValueError(f"[{self.name}] {name} shares memory with {shown}: give it memory of its own")

    def _hidden(self) -> Array | None:
        hidden = self.binding.hidden
        if hidden is None:
            return None
        self._require_memory()
        array = empty((_HIDDEN_WORDS,), "int64", self.device)
        shape, _ = self.native.result(hidden)
        self.native.set(hidden, array.address, "int64", list(shape), [8] * len(shape))
        return array

    def _verify(self, totals: Any) -> None:
        """If the data are bad, run the op on the CPU, which names the culprit."""
        places = _BAD_PLACES[self.binding.hidden or ""]
        if self.binding.hidden == "totals" and not any(n in self.given for n in ("sample_weight", "class_weight")):
            places = places[:1]
        if not any(totals[place] >= 0 for place in places):
            return
        shown = {
            t: param
            for param, kind, _, targets in self.binding.parameters
            if kind in ("operand", "factor")
            for t in targets
        }
        read = {n: v for n, v in self.arrays.items() if n in self.given and self.schema[n]["access"] == "read"}
        self.made(**{shown.get(n, n): v.numpy() for n, v in read.items()})

    def _reduction(self, attributes: list[Any]) -> str | None:
        for place, attribute in enumerate(SCHEMAS[self.binding.op]["attributes"]):
            if attribute["name"] == "reduction":
                return str(attribute["choices"][attributes[place]])
        return None

    @staticmethod
    def _returned(array: Array | None, out: Any, own: Any) -> Any:
        return (
            own
            if out is not None and own is not None
            else (array if array is None or array.shown is None else array.shown)
        )


class _Look:
    """Where an array lies, for NumPy, which never reads it."""

    def __init__(self, array: Array) -> None:
        self.__array_interface__ = {
            "version": 3,
            "data": (array.address, True),
            "shape": array.shape,
            "strides": array.strides,
            "typestr": f"|V{array.itemsize}",
        }


def _share(first: Array, second: Array) -> bool:
    """Whether two arrays share an element."""
    return may_share(first, second) and share_elements(np.asarray(_Look(first)), np.asarray(_Look(second)))


def _shown_names(binding: Binding) -> dict[str, str]:
    """The parameter's name for each operand that is given."""
    arrays = [one for one in binding.parameters if one[1] in ("operand", "factor")]
    return {targets[0]: parameter for parameter, _, _, targets in arrays}


def _on_one_device(name: str, values: Mapping[str, Any], out: Any) -> dict[str, Array]:
    """The arrays by argument, which must all be on one device."""
    arrays: dict[str, Array] = {}
    first = ""
    every = dict(values)
    outs = out if isinstance(out, tuple) else (out,)
    every |= {f"out[{place}]" if len(outs) > 1 else "out": one for place, one in enumerate(outs) if one is not None}
    for argument, value in every.items():
        if is_device_array(value):
            arrays[argument] = as_array(value, f"{name}: {argument}")
            first = first or argument
    for argument, value in every.items():
        here, there = arrays[first].device, arrays[argument].device if argument in arrays else "in the host's memory"
        if here != there:
            there = f"on {there}" if argument in arrays else there
            raise ValueError(
                f"[{name}] {first} is on {here}, {argument} ({type(value).__name__}) is {there}: all arrays must be on one "
                "device; copy one of them"
            )
    return {argument: arrays[argument] for argument in values}


def _other_axis(name: str, array: Array, axis: Any) -> bool:
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"[{name}] axis is {axis!r}: must be an integer")
    if not -array.ndim <= axis < max(array.ndim, 1):
        raise ValueError(f"[{name}] axis is {axis}: must be between {-array.ndim} and {array.ndim - 1}")
    return bool(axis % max(array.ndim, 1) != array.ndim - 1)


def _made(shape: tuple[int, ...], dtype: str, device: int, inputs: Any) -> Array:
    """A new result: of CuPy's pool if one of the inputs is CuPy's."""
    cupy = sys.modules.get("cupy")
    kind = getattr(cupy, "ndarray", None)
    if kind is None or not any(isinstance(value, kind) for value in inputs):
        return empty(shape, _core_dtype(dtype), device)
    shown = cupy.empty(shape, dtype)  # type: ignore[union-attr]
    array = as_array(shown)
    array.shown = shown
    return array


def _core_dtype(dtype: str) -> Any:
    if dtype != "bfloat16":
        return np.dtype(dtype)
    from gradring.ops._convert import learn_bfloat16

    return learn_bfloat16()
