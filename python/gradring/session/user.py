"""The session behind ``Trainer(step=fn, params=..., optimizer=...)``: the user's function computes gradients, and the session
updates the parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.errors import NonFinite
from gradring.loader import as_source
from gradring.nn.params import Params
from gradring.optim import Optimizer
from gradring.options import Options
from gradring.patterns import as_patterns, frozen_names
from gradring.session.base import REPORT_SECONDS, Progress
from gradring.session.data import Mean, batches_of, require_batches
from gradring.session.measured import NO_SUMS, EpochSums
from gradring.session.rates import Rates
from gradring.session.user_arrays import as_numpy, number_of, rows_of, span_of
from gradring.session.user_parts import Crew, StepResult, parts_of_batch, together
from gradring.session.user_updates import UserUpdates

__all__ = ["StepResult", "UserFunction", "UserSession"]

Array = NDArray[Any]


# step(params, batch) -> loss, gradients by name, and, if the batches differ in size, the number of samples
UserFunction = Callable[[Any, Any], tuple[Any, ...]]


class UserSession(UserUpdates):
    """Calls a function for loss and gradients, and updates the parameters in place, natively.

    ``params`` maps names to arrays: of NumPy, or of any framework whose CPU arrays NumPy can view. A writable one is
    updated where it lies, and the function receives the very object that was given. A read-only one (JAX's are) is
    copied once, and the function receives the NumPy array that is trained.

    With ``replicas``, each batch is cut along its first axis, and the function is called for each part, from that many threads
    at the same time. ``shards`` fixes the number of parts, so the bits are the same for any number of replicas.
    """

    def __init__(
        self,
        function: UserFunction,
        params: Mapping[str, Any],
        *,
        optimizer: Optimizer,
        options: Options,
        frozen: str | Sequence[str] = (),
        replicas: int = 1,
        shards: int = 0,
    ) -> None:
        if not callable(function):
            raise TypeError(f"[Trainer] step must be a function (params, batch) -> loss, grads, got {function!r}")
        if not isinstance(params, Mapping) or not params:
            raise TypeError(f"[Trainer] params must be a dict of arrays, got {type(params).__name__}")
        for name in params:
            if not isinstance(name, str):
                raise TypeError(f"[Trainer] params: the names must be strings, got {name!r}")
            if name == "__metadata__" or name.startswith(("optimizer/", "callbacks/", "training/")):
                raise ValueError(
                    f"[Trainer] params: a checkpoint has another use for the name {name!r}: choose another"
                )
        self._function, self.optimizer, self._options = function, optimizer, options
        self.shards, self._parts, self._crew = shards, shards or replicas, Crew(replicas)
        arrays: dict[str, NDArray[Any]] = {}
        self._given: dict[str, Any] = {}
        for name, value in params.items():
            arrays[name], self._given[name] = self._taken(name, value)
        self.params = Params(arrays)
        self._known = tuple(self._given.items())
        self.frozen = frozen_names("Trainer", as_patterns("Trainer", "frozen", frozen), list(self.params))
        self._trained = {name: array for name, array in self.params.items() if name not in self.frozen}
        self.state = self._fresh_state(optimizer)
        self._spans = [span_of(array) for array in self.params.values()]
        self._require_apart()
        self._updates_of, self.rates = self._updaters(optimizer), Rates(optimizer)
        self._updates = self._fresh = 0
        self._computed = 0
        self._gradients: dict[str, NDArray[Any]] = {}  # their sums over the group that waits for an update
        self._weight, self._pending = 0.0, 0
        self._torn = ""  # why parameters and state do not belong together, or nothing
        self._epoch_sums = NO_SUMS
        self._seconds = {"compute": 0.0, "update": 0.0, "data": 0.0}

    def _taken(self, name: str, value: Any) -> tuple[Any, Any]:
        """The array that is trained, and the object that the function gets for it."""
        array = as_numpy(f"params[{name!r}]", value)
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"[Trainer] params[{name!r}] must be float32 or float64, got {array.dtype}")
        owned = array.flags.writeable
        if owned and not array.flags.c_contiguous:
            raise ValueError(
                f"[Trainer] params[{name!r}] must be C-contiguous to be updated in place, got strides {array.strides}"
            )
        taken = array if owned else array.copy(order="C")
        return taken, value if owned else taken

    def _require_apart(self) -> None:
        """``ValueError`` if two parameters share memory, because both updates would change it."""
        spans = sorted((*span, name) for name, span in zip(self.params, self._spans, strict=True) if span[0] < span[1])
        for (_, end, name), (begin, _, other) in pairwise(spans):
            if begin < end:
                raise ValueError(
                    f"[Trainer] params[{name!r}] and params[{other!r}] share memory, so each step would update it twice: "
                    "give a tied parameter once, and add its gradients in the function"
                )

    def step_of(self, *batch: Any, **named: Any) -> float:
        """Run a step: ``step(x, y)`` passes the tuple to the function, and ``step(batch)`` the batch itself."""
        if named or not batch:
            raise TypeError("[step] takes a batch by position: step(batch) or step(x, y, ...)")
        return self.step(batch[0] if len(batch) == 1 else batch)

    def step(self, batch: Any) -> float:
        """Run one batch, and an update unless gradients accumulate. Returns the loss."""
        began = time.perf_counter()
        self.require_whole()
        if self._pending == self._options.accumulate:  # an interrupt came before the update
            self.flush()
        result = self._evaluate(batch)
        self._require_finite(result.mean)
        computed = time.perf_counter()
        self._add(result)
        if self._pending == self._options.accumulate:
            self.flush()
        self._seconds["compute"] += computed - began
        self._seconds["update"] += time.perf_counter() - computed
        return result.mean

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss) and self._options.nonfinite == "raise":
            raise NonFinite(f"[step] the loss of step {self.step_count} is {loss}; the parameters are unchanged")

    def holding(self) -> AbstractContextManager[None]:
        """Do nothing, because the arrays belong to the caller."""
        return nullcontext()

    def _passes(self) -> int:
        return self._computed

    @property
    def sums(self) -> EpochSums:
        return self._epoch_sums

    @sums.setter
    def sums(self, sums: EpochSums) -> None:
        self._epoch_sums = sums

    def _mean_loss(self) -> float:
        """The mean loss of the epoch's batches so far; NaN if there were none."""
        loss, samples = self._epoch_sums[:2]
        return loss / samples if samples else math.nan

    def train(self, source: Any, epoch: int, start: int, progress: Progress) -> dict[str, float]:
        done = start
        told = ready = time.perf_counter()
        for batch in batches_of(source, epoch, start, self.limit):
            self._seconds["data"] += time.perf_counter() - ready
            self.step(batch)
            done += 1
            ready = time.perf_counter()
            if ready - told > REPORT_SECONDS:
                self.tell(progress, done, {"loss": self._mean_loss()})
                told = ready = time.perf_counter()
        self.flush()
        require_batches("fit", done)
        return {"loss": self._mean_loss()}

    def evaluate(self, source: Any, batch_size: int = 1024) -> dict[str, float]:
        """The mean loss; nothing is updated."""
        mean, count = Mean(), 0
        for batch in batches_of(source, in_order=True):
            result = self._on_host(self._evaluate(batch))
            mean.add_sum(result.total, result.samples)
            count += 1
        require_batches("evaluate", count)
        return {"loss": mean.value}

    def _on_host(self, result: StepResult) -> StepResult:
        """The same result with a loss that is a number of the host."""
        return result

    def predict(self, x: Any, batch_size: int = 1024, called: Callable[[int], object] = int) -> NDArray[Any]:
        raise TypeError("[Trainer.predict] only a trainer with a model predicts; this one has step and params")

    def plan(self) -> str:
        return f"step: {self._function!r}, then {self.optimizer} on {len(self.params)} parameters"

    def source(self, caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
        """The source of batches, which the user's function gets as they are."""
        return as_source(caller, data, batch_size, shuffle=shuffle, seed=seed)

    def metric_names(self) -> tuple[str, ...]:
        return ("loss",)

    def _require_fit(self, source: Any) -> None:
        """Check nothing: the user's function may take batches of any form."""

    def loaded(self) -> None:
        """Do nothing, because the origin of the parameters does not matter here."""

    def timings(self) -> dict[str, float]:
        return dict(self._seconds)

    def _evaluate(self, batch: Any) -> StepResult:
        if self._parts == 1:
            result = self._checked_step(self._function(self._given, batch), batch)
        else:
            whole = self._sums_of(parts_of_batch(batch, self._parts))
            assert whole is not None  # the batch has rows
            result = whole
        return result

    def _sums_of(self, parts: Sequence[Any], first: int = 0) -> StepResult | None:
        """The sums over parts of a batch, of which errors call the first one number ``first``; None if they have no rows."""
        return together(self._crew.map(self._part, list(enumerate(parts, first))))

    def _part(self, numbered: tuple[int, Any]) -> StepResult | None:
        """The step of one part of a batch. Its gradients are copies, since the next part may be computed in the same memory."""
        number, part = numbered
        if part is None:
            return None
        made = self._checked_step(self._function(self._given, part), part, f"part {number} of the batch: ")
        return StepResult(made.loss, {name: grad.copy() for name, grad in made.grads.items()}, made.samples)

    def _checked_step(self, returned: Any, batch: Any, where: str = "") -> StepResult:
        """What the function has returned for a batch, or for the part of one that errors call ``where``."""
        for name, value in self._known:
            if self._given.get(name) is not value or len(self._given) != len(self._known):
                self._given.clear()
                self._given.update(self._known)
                raise TypeError(
                    f"[step] the function put another array in the place of params[{name!r}], or changed the names: params "
                    "are updated by the optimizer; to change one yourself write into it, params[name][...] = values"
                )
        if not isinstance(returned, tuple) or len(returned) not in (2, 3):
            raise TypeError(
                f"[step] {where}the function must return loss, grads or loss, grads, samples, got {type(returned).__name__}"
            )
        if not isinstance(returned[1], Mapping):
            raise TypeError(f"[step] {where}grads must be a dict of arrays, got {type(returned[1]).__name__}")
        samples = number_of(f"{where}the number of samples", returned[2]) if len(returned) == 3 else rows_of(batch)
        if not (math.isfinite(samples) and samples > 0):
            raise ValueError(f"[step] {where}the number of samples must be above 0, got {samples}")
        return StepResult(self._loss_of(f"{where}the loss", returned[0]), self._checked(returned[1], where), samples)

    def _loss_of(self, what: str, value: Any) -> Any:
        return number_of(what, value)

    def _checked(self, grads: Mapping[str, Any], where: str) -> dict[str, NDArray[Any]]:
        missing, extra = sorted(self._trained.keys() - grads.keys()), sorted(grads.keys() - self.params.keys())
        if missing or extra:
            raise ValueError(f"[step] {where}grads must have the names of params; missing {missing}, unknown {extra}")
        arrays = {}
        for name, param in self._trained.items():
            grad = self._as_array(f"grads[{name!r}]", grads[name])
            if grad.shape != param.shape or grad.dtype != param.dtype:
                raise ValueError(
                    f"[step] {where}grads[{name!r}] is {grad.shape} of {grad.dtype}, "
                    f"params[{name!r}] is {param.shape} of {param.dtype}"
                )
            arrays[name] = self._apart(grad)
        return arrays

    def _as_array(self, label: str, value: Any) -> Any:
        return as_numpy(label, value)

    def _apart(self, grad: Any) -> Any:
        """The gradient in C order. One that is a view of a parameter would change while the parameters are updated."""
        grad = np.asarray(grad, order="C")
        return grad.copy() if self._in_params(grad) else grad

    def _in_params(self, array: Any) -> bool:
        begin, end = span_of(array)
        return any(begin < other_end and end > other_begin for other_begin, other_end in self._spans)
