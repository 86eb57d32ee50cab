"""The native table by which one launch updates all parameters of a group, and the arrays that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gradring import devices
from gradring.cuda import Array, streams
from gradring.ops._eager import SCHEMAS
from gradring.optim import Optimizer

__all__ = ["Table"]


class Table:
    """Parameters and optimizer state of a user's own step on a CUDA device, by groups of one rule and dtype."""

    def __init__(
        self,
        device: int,
        params: Mapping[str, Any],
        rules: Mapping[str, tuple[Optimizer, tuple[str, ...], int]],
        state: Mapping[str, Any],
        rates: int,
        check: bool,
        limit: float | None,
    ) -> None:
        groups: dict[tuple[str, int], list[str]] = {}
        for name, param in params.items():
            if param.size:
                groups.setdefault((param.dtype.name, id(rules[name][0])), []).append(name)
        ordered = [groups[key] for key in sorted(groups, key=lambda key: key[0])]  # those of a dtype side by side
        self._names = [name for names in ordered for name in names]
        given = []
        for names in ordered:
            rule, states, rate = rules[names[0]]
            given.append(([_call(rule, params[n], {s: state[f"{s}.{n}"] for s in states}) for n in names], rate))
        native = streams.native().DeviceUpdates
        norm, lend = -1.0 if limit is None else limit, devices.lender(device)
        self._native = native(device, given, rates, check, norm, streams.current_stream(), lend)
        self._kept = dict(params), dict(state)  # what the native table has the addresses of
        self.most_entries: int = native.losses

    @property
    def count(self) -> int:
        """How many parameters an update changes."""
        return len(self._names)

    @property
    def updated(self) -> int:
        """How many of them the last ``update`` has changed, if it has failed."""
        return int(self._native.updated)

    # The next three are calls that are ready to be made, and run native code alone: see UserSession._uninterrupted.

    def loss(self, loss: Array, entry: int, stream: int) -> Callable[[], object]:
        """Keep the loss of an entry."""
        return partial(self._native.loss, loss.address, loss.dtype.name, entry, stream)

    def add(
        self, sums: Mapping[str, Any], gradients: Mapping[str, Any], samples: float, first: bool, stream: int
    ) -> Callable[[], object]:
        """Add gradients times their samples to sums, which begin with the first ones."""
        return partial(self._native.add, self._addresses(sums), self._addresses(gradients), samples, first, stream)

    def update(
        self,
        gradients: Mapping[str, Any],
        rates: Sequence[float],
        number: int,
        weight: float,
        entry: int,
        stream: int,
    ) -> Callable[[], object]:
        """Update all parameters by these gradients, divided by the weight. ``number`` counts updates from 1."""
        return partial(self._native.update, self._addresses(gradients), rates, number, weight, entry, stream)

    def queue_report(self, stream: int) -> None:
        """Queue a report of all entries so far."""
        self._native.queue_report(stream)

    def take_report(self, wait: bool) -> Any:
        """The report: ``"loss"``, ``"gradient"`` or ``""``, the entry that has failed, the name of its gradient, and the
        losses. None if it has not come, and ``wait`` is false."""
        report = self._native.take_report(wait)
        if report is None:
            return None
        fault, entry, place, losses = report
        return fault, entry, self._names[place] if fault == "gradient" else "", losses

    def clear_fault(self, stream: int) -> None:
        """Let later entries run after a fault."""
        self._native.clear_fault(stream)

    def _addresses(self, arrays: Mapping[str, Any]) -> list[int]:
        return [arrays[name].address for name in self._names]


def _call(rule: Optimizer, param: Array, states: Mapping[str, Array]) -> Any:
    """The update of one parameter, of which the table takes addresses and attributes. Any array of its shape stands for the
    gradient, whose address comes with each update."""
    op, attributes, names = rule.update()
    operands = {"param": param, "grad": param, **{names[state]: array for state, array in states.items()}}
    attributes = {"lr": 0.0, "step": 1, **attributes}  # those of an update come with it
    native = streams.native().DeviceCall(op, op, [], [_value(given, attributes) for given in SCHEMAS[op]["attributes"]])
    for name, array in operands.items():
        native.set(name, array.address, array.dtype.name, list(array.shape), list(array.strides))
    native.check()
    return native


def _value(given: Mapping[str, Any], attributes: Mapping[str, Any]) -> int | float:
    value = attributes.get(given["name"], given.get("default"))
    kind: Sequence[str] = given["type"]
    return float(value) if kind == "real" else int(value)
