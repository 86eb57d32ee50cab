"""The updates of parameters by the gradients that a function of the user has computed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gradring.errors import GradringError, NonFinite
from gradring.ops._eager import attribute_names, by_schema
from gradring.optim import Optimizer
from gradring.options import Options
from gradring.session.base import BaseSession, to_the_end
from gradring.session.measured import EpochSums
from gradring.session.user_parts import StepResult

__all__ = ["UserUpdates", "clip_factor"]

Array = NDArray[Any]


_TORN = (
    "[Trainer] the parameters are torn: an update failed when some arrays had been updated and others had not, so they are "
    "neither trained nor saved; load a checkpoint"
)


class UserUpdates(BaseSession):
    """The part of a ``UserSession`` that knows no function: gradients that wait, and updates by them, which no signal
    interrupts."""

    _options: Options
    _parts: int  # of a batch, each of which is computed by itself
    _trained: dict[str, NDArray[Any]]
    _updates_of: dict[str, tuple[Any, Any, int]]
    _updates: int
    _fresh: int  # the updates that were done when the optimizer's state began at zero
    _computed: int
    _gradients: dict[str, NDArray[Any]]  # their sums over the group that waits for an update
    _weight: float
    _pending: int
    _torn: str  # why parameters and state do not belong together, or nothing
    _epoch_sums: EpochSums

    @property
    def step_count(self) -> int:
        return self._updates

    def set_optimizer(self, optimizer: Optimizer) -> None:
        updaters, new = self._updaters(optimizer), self._fresh_state(optimizer)
        goes_on = optimizer.goes_on_from(self.optimizer)
        fresh = self._fresh if goes_on else self.step_count
        kept = {name: self.state.get(name, array) if goes_on else array for name, array in new.items()}

        def use() -> None:
            self._fresh, self.state, self._updates_of = fresh, kept, updaters
            object.__setattr__(self, "optimizer", optimizer)  # other code may only read it
            self.rates.use(optimizer)
            self.rates_changed()

        to_the_end(use)

    def rates_changed(self) -> None:
        """Do nothing, because every update reads its own rates."""

    def _fresh_state(self, optimizer: Optimizer) -> dict[str, NDArray[Any]]:
        return {
            f"{state}.{name}": self._zeros_like(array)
            for state in optimizer.state_names
            for name, array in self._trained.items()
        }

    def _zeros_like(self, array: Any) -> Any:
        return np.zeros_like(array)

    def _updaters(self, optimizer: Optimizer) -> dict[str, tuple[Any, Any, int]]:
        """For each trained parameter: its update function, the states that the function needs with their names among all
        states, and the number of its rate."""
        numbers = optimizer.assigned(list(self.params), self.frozen)
        rules = [(_updater(r), r.state_names, optimizer.rates.index(r.lr)) for r in optimizer.rules]
        chosen = {name: rules[number] for name, number in zip(self._trained, numbers, strict=True)}
        return {name: (made, tuple((s, f"{s}.{name}") for s in states), n) for name, (made, states, n) in chosen.items()}

    def counters(self) -> dict[str, int]:
        """The counts that a checkpoint must hold in addition to the arrays."""
        return {"step": self.step_count, "fresh": self._fresh}

    def require_whole(self) -> None:
        if self._torn:
            raise GradringError(self._torn)

    def restore(self, counters: Mapping[str, int]) -> None:
        """Restore a result of ``counters``."""
        self._torn = ""
        self._updates, self._fresh = counters["step"], counters["fresh"]
        self.forget()

    @property
    def pending(self) -> int:
        return self._pending

    def most_pending(self) -> int:
        return self._options.accumulate

    def gradient_looks(self) -> dict[str, Array]:
        return self._trained

    def waiting(self) -> tuple[float, dict[str, Array]]:
        return self._weight, self._gradients

    @property
    def waiting_form(self) -> str:
        return "sum" if self._options.accumulate > 1 or self._parts > 1 else "mean"

    def wait(self, pending: int, weight: float, gradients: Mapping[str, Array]) -> None:
        self._gradients = {name: np.array(gradients[name], order="C") for name in self._trained if name in gradients}
        self._weight, self._pending = weight, pending

    def flush(self) -> None:
        """Apply accumulated gradients, if there are any."""
        if self._pending:
            self.require_whole()
            self._apply(self._updates_to_make())

    def _apply(self, updates: Sequence[Callable[[], object]], counts: Mapping[str, Any] | None = None) -> None:
        """Make the updates, and set further counts. If one of them fails, memory for instance, the parameters stay torn."""
        begun = partial(self.__dict__.update, {"_torn": _TORN})
        self._uninterrupted([begun, *updates], {**self._counts_after_update(), **(counts or {}), "_torn": ""})

    def _updates_to_make(self) -> list[Callable[[], object]]:
        """The updates of all parameters by the gradients that wait."""
        grads = self._gradients
        if self.waiting_form == "sum":
            grads = {name: np.asarray(grad / grad.dtype.type(self._weight)) for name, grad in grads.items()}
        return self._updates_by(grads)

    def _updates_by(self, grads: dict[str, Array], finite: bool = False) -> list[Callable[[], object]]:
        """The updates of all parameters by these means, which the caller may know to be ``finite``."""
        bad = None
        if self._options.nonfinite == "raise" and not finite:
            bad = next((name for name, grad in grads.items() if not np.isfinite(grad).all()), None)
        if bad is not None:
            self._refuse_gradient(bad)
        if self._options.clip_norm is not None:
            # Add up in double precision, so that large models do not overflow.
            norm = math.sqrt(sum(float(np.square(grad, dtype=np.float64).sum()) for grad in grads.values()))
            factor = clip_factor(self._options.clip_norm, norm)
            if not factor >= 1:
                grads = {name: np.asarray(grad * grad.dtype.type(factor)) for name, grad in grads.items()}
        return [
            self._updates_of[name][0](param, grads[name], states, lr=rate, step=number)
            for name, param, states, rate, number in self._next_updates()
        ]

    def _refuse_gradient(self, name: str) -> NoReturn:
        self.forget()
        raise NonFinite(
            f"[step] the gradient of {name!r} is not finite in step {self.step_count}, though the loss is; the parameters "
            "are unchanged"
        )

    def _next_updates(self) -> Iterator[tuple[str, Any, dict[str, Any], float, int]]:
        """For each trained parameter its name, array, states, learning rate and the number of its update."""
        rates = self.rates.next(self.step_count, 1)[0].tolist()
        rates = rates if isinstance(rates, list) else [rates]
        for name, param in self._trained.items():
            _, places, rate = self._updates_of[name]
            states = {state: self.state[place] for state, place in places}
            yield name, param, states, rates[rate], self.step_count + 1 - self._fresh

    def _counts_after_update(self) -> dict[str, Any]:
        return {"_updates": self._updates + 1, "_gradients": {}, "_weight": 0.0, "_pending": 0}

    def forget(self) -> None:
        sums = self._epoch_sums[4:] * 2 if self._pending else self._epoch_sums
        counts = {"_computed": self._computed - self._pending, "_weight": 0.0, "_pending": 0}
        self._uninterrupted([], {**counts, "_gradients": {}, "_epoch_sums": sums})

    def _uninterrupted(self, calls: Sequence[Callable[[], object]], after: Mapping[str, Any]) -> None:
        """Make these calls, none of which runs Python code, and then set these attributes. A signal can interrupt none
        of it.

        Python calls a signal's handler, which may raise KeyboardInterrupt, only between two instructions of Python code. From
        here on there are none before the last attribute is set.
        """
        deque(map(methodcaller("__call__"), (*calls, partial(self.__dict__.update, after))), maxlen=0)

    def _add(self, result: StepResult) -> None:
        samples, before, group = result.samples, self._epoch_sums[:4], self._epoch_sums[4:]
        sums = (before[0] + result.total, before[1] + samples, *before[2:])
        counts: dict[str, Any] = {
            "_computed": self._computed + 1,
            "_pending": self._pending + 1,
            "_weight": self._weight + samples,
            "_epoch_sums": (*sums, *(group if self._pending else before)),
        }
        if self._options.accumulate == 1:
            return self._uninterrupted([], {**counts, "_gradients": result.grads})
        own, adds = self._with_sums(result)
        self._uninterrupted(adds, counts if self._pending else {**counts, "_gradients": own})

    def _with_sums(self, result: StepResult) -> tuple[dict[str, Any], list[Callable[[], object]]]:
        """The sums of the group's gradients, and the calls that add those of this batch."""
        weighed = result.as_sum().grads
        own = self._gradients if self._pending else weighed
        adds = weighed.items() if self._pending else ()
        return own, [partial(np.add, own[name], grad, out=own[name]) for name, grad in adds]


def clip_factor(limit: float, norm: float) -> float:
    """What gradients of this norm are multiplied by; 1 if the norm is below the limit."""
    return min(limit / (norm + 1e-6), 1.0)  # the same factor as in csrc/ops/norm/norm.h


def _updater(optimizer: Optimizer) -> Callable[..., Callable[[], object]]:
    """``update(param, grad, states, lr, step)`` of the optimizer, its other hyperparameters filled in: a call that is ready
    to be made."""
    op, attributes, names = optimizer.update()
    native, counts = by_schema(op), "step" in attribute_names(op)

    def update(param: Array, grad: Array, states: Mapping[str, Array], lr: float, step: int) -> Callable[[], object]:
        operands: dict[str, Any] = {names[state]: array for state, array in states.items()}
        return partial(native, param, grad, **operands, lr=lr, **({"step": step} if counts else {}), **attributes)

    return update
