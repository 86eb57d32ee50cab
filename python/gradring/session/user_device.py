"""The session behind ``Trainer(step=fn, params=...)`` where the parameters lie in the memory of a CUDA device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np

from gradring import devices
from gradring.cuda import Array, as_array, copied, empty, is_device_array, streams
from gradring.ops._eager import SCHEMAS, attribute_names
from gradring.optim import Optimizer
from gradring.session.user import UserSession, clip_factor
from gradring.session.user_parts import StepResult

__all__ = ["DeviceUserSession"]


class DeviceUserSession(UserSession):
    """Calls a function for loss and gradients, and updates parameters on a CUDA device, where they lie.

    ``params`` are arrays of any library on one device, and the function receives the very objects that were given. Gradients
    are arrays on that device, too. Each update is queued on the current stream: one launch for each parameter. The host waits
    once for each update, for the norms of the gradients, because NaN and infinities must be found before any parameter
    changes; without ``clip_norm`` and with ``nonfinite="ignore"`` it does not wait.
    """

    def __init__(self, function: Any, params: Mapping[str, Any], *, device: str, **options: Any) -> None:
        self._device = devices.number_of(device)
        super().__init__(function, params, **options)

    # Arrays

    def _taken(self, name: str, value: Any) -> tuple[Any, Any]:
        array = self._as_array(f"params[{name!r}]", value)
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"[Trainer] params[{name!r}] must be float32 or float64, got {array.dtype}")
        if not array.read_only and not array.contiguous:
            raise ValueError(
                f"[Trainer] params[{name!r}] must be C-contiguous to be updated in place, got strides {array.strides}"
            )
        if not array.read_only:
            return array, value
        own = copied(array)
        return own, own

    def _as_array(self, label: str, value: Any) -> Any:
        if not is_device_array(value):
            raise ValueError(
                f"[Trainer] {label} ({type(value).__name__}) is in the host's memory, and params are on cuda:{self._device}: "
                "all must be in one place; copy it"
            )
        return as_array(value, label, self._device)

    def _zeros_like(self, array: Any) -> Any:
        made = empty(array.shape, array.dtype, self._device)
        made[...] = 0
        return made

    def _apart(self, grad: Any) -> Any:
        return grad if grad.contiguous and not (grad.size and self._in_params(grad)) else copied(grad)

    # Updates

    def _updaters(self, optimizer: Optimizer) -> dict[str, tuple[Callable[..., Any], tuple[str, ...], int]]:
        numbers = optimizer.assigned(list(self.params), self.frozen)
        rules = [(_updater(rule), rule.state_names, optimizer.rates.index(rule.lr)) for rule in optimizer.rules]
        return {name: rules[number] for name, number in zip(self._trained, numbers, strict=True)}

    def flush(self) -> None:
        """Apply accumulated gradients, if there are any."""
        if not self._pending:
            return
        self.require_whole()
        grads: Mapping[str, Any] = self._gradients
        scale = 1 / self._weight if self._options.accumulate > 1 else 1.0
        if self._options.nonfinite == "raise" or self._options.clip_norm is not None:
            squares = self._squares(grads)
            if self._options.nonfinite == "raise" and not np.isfinite(squares).all():
                # A sum of squares may overflow where no element does.
                bad = [name for name, sum_ in zip(grads, squares, strict=True) if not math.isfinite(sum_)]
                culprit = next((name for name in bad if not np.isfinite(grads[name].numpy()).all()), None)
                if culprit is not None:
                    self._refuse_gradient(culprit)
            if self._options.clip_norm is not None:
                scale *= clip_factor(self._options.clip_norm, math.sqrt(float(squares.sum())) * abs(scale))
        updates = [
            self._updates_of[name][0](self._device, param, grads[name], states, lr=rate, step=number, grad_scale=scale)
            for name, param, states, rate, number in self._next_updates()
            if param.size
        ]
        done: list[None] = []  # one entry for each update that was queued
        calls = map(methodcaller("__call__"), (*updates, partial(self.__dict__.update, self._counts_after_update())))
        try:
            deque(map(done.append, calls), maxlen=0)  # as in _uninterrupted
        except BaseException as error:
            if done:
                self._torn = (
                    f"[Trainer] {len(done)} of {len(updates)} parameters were updated before {error}: they are neither trained "
                    "nor saved; load a checkpoint"
                )
            raise

    def _squares(self, grads: Mapping[str, Array]) -> Any:
        """The sum of each gradient's squares. The host waits for them."""
        sums = empty((len(grads),), np.float64, self._device)
        for place, grad in enumerate(grads.values()):
            _call("sum_of_squares", self._device, {"gradient": grad, "sum": sums[place : place + 1]}, {})()
        return sums.numpy()

    def _with_sums(self, result: StepResult) -> tuple[dict[str, Any], list[Callable[[], object]]]:
        own: dict[str, Any] = self._gradients
        grads: Mapping[str, Any] = result.grads
        if not self._pending:
            own = {name: self._zeros_like(grad) for name, grad in grads.items()}
        # sum -= rate * (scale * gradient), which adds the gradient times its samples.
        add = {"lr": 1.0, "grad_scale": -result.samples}
        return own, [
            _call("sgd_update", self._device, {"param": own[name], "grad": grad}, add)
            for name, grad in grads.items()
            if grad.size
        ]

    def wait(self, pending: int, weight: float, gradients: Mapping[str, Any]) -> None:
        own: dict[str, Any] = {}
        for name, array in gradients.items():
            own[name] = empty(array.shape, array.dtype, self._device)
            own[name][...] = array
        self._gradients, self._weight, self._pending = own, weight, pending


def _updater(optimizer: Optimizer) -> Callable[..., Callable[[], object]]:
    """``update(device, param, grad, states, lr, step, grad_scale)`` of the optimizer: a call that is ready to be made."""
    op, attributes, names = optimizer.update()
    counts = "step" in attribute_names(op)

    def update(
        device: int, param: Array, grad: Array, states: Mapping[str, Array], step: int, **more: float
    ) -> Callable[[], object]:
        operands = {"param": param, "grad": grad, **{names[state]: array for state, array in states.items()}}
        return _call(op, device, operands, {**attributes, **more, **({"step": step} if counts else {})})

    return update


def _call(op: str, device: int, operands: Mapping[str, Array], attributes: Mapping[str, Any]) -> Callable[[], object]:
    """A call of an op on arrays of a device, which is checked now and queued on the current stream by native code alone."""
    schema = SCHEMAS[op]
    values = [_value(given, attributes) for given in schema["attributes"]]
    native = streams.native().DeviceCall(op, op, [], values)
    for name, array in operands.items():
        native.set(name, array.address, array.dtype.name, list(array.shape), list(array.strides))
    native.check()
    return partial(native.run, device, devices.products_library(), streams.current_stream())


def _value(given: Mapping[str, Any], attributes: Mapping[str, Any]) -> int | float:
    value = attributes.get(given["name"], given.get("default"))
    kind: Sequence[str] = given["type"]
    return float(value) if kind == "real" else int(value)
