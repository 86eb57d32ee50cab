"""The session behind ``Trainer(step=fn, params=..., optimizer=...)``: the user's function computes gradients, and the session
updates the parameters."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from operator import methodcaller
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gradring.cuda import Array as DeviceArray
from gradring.cuda import is_device_array
from gradring.errors import GradringError, NonFinite, NotBuilt
from gradring.loader import as_source
from gradring.nn.params import Params
from gradring.ops._eager import attribute_names, by_schema
from gradring.optim import Optimizer
from gradring.options import Options
from gradring.patterns import as_patterns, frozen_names
from gradring.session.base import REPORT_SECONDS, BaseSession, Progress, to_the_end
from gradring.session.data import Mean, batches_of, require_batches
from gradring.session.measured import NO_SUMS, EpochSums
from gradring.session.rates import Rates
from gradring.session.user_parts import Crew, StepResult, parts_of_batch, together

__all__ = ["StepResult", "UserFunction", "UserSession"]

Array = NDArray[Any]

_TORN = (
    "[Trainer] the parameters are torn: an update failed when some arrays had been updated and others had not, so they are "
    "neither trained nor saved; load a checkpoint"
)

# step(params, batch) -> loss, gradients by name, and, if the batches differ in size, the number of samples
UserFunction = Callable[[Any, Any], tuple[Any, ...]]


class UserSession(BaseSession):
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
        self._spans = [_span(array) for array in self.params.values()]
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

    @property
    def step_count(self) -> int:
        return self._updates

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

    def timings(self) -> dict[str, float]:
        return dict(self._seconds)

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
        samples = number_of(f"{where}the number of samples", returned[2]) if len(returned) == 3 else _rows_of(batch)
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
        begin, end = _span(array)
        return any(begin < other_end and end > other_begin for other_begin, other_end in self._spans)

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


def number_of(what: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise type(error)(f"[step] {what} must be one number, got {type(value).__name__}{shape}: {error}") from None


def _rows_of(batch: Any) -> float:
    """The length of the batch's first axis; 1 if it has none."""
    if isinstance(batch, Mapping) and batch:
        batch = batch.get("x", next(iter(batch.values())))
    elif (isinstance(batch, tuple) and batch) or (isinstance(batch, list) and batch and hasattr(batch[0], "shape")):
        batch = batch[0]
    shape = getattr(batch, "shape", None)
    if shape is None:
        return float(len(batch)) if hasattr(batch, "__len__") and not isinstance(batch, (str, bytes)) else 1.0
    return float(shape[0]) if len(shape) > 0 and shape[0] > 0 else 1.0


def clip_factor(limit: float, norm: float) -> float:
    """What gradients of this norm are multiplied by; 1 if the norm is below the limit."""
    return min(limit / (norm + 1e-6), 1.0)  # the same factor as in csrc/ops/norm/norm.h


def _span(array: Any) -> tuple[int, int]:
    """The addresses that a C-contiguous array takes."""
    begin: int = array.address if isinstance(array, DeviceArray) else array.__array_interface__["data"][0]
    return begin, begin + array.nbytes


def as_numpy(label: str, value: Any) -> NDArray[Any]:
    """A NumPy view of an array of any framework, without a copy."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"[Trainer] {label} is a masked array, which hides values: replace them with .filled(value)")
    if isinstance(value, np.ndarray):
        return value
    if is_device_array(value):
        raise NotBuilt(
            f"[Trainer] {label} is on a CUDA device ({type(value).__name__}), and the parameters are in the host's memory: "
            "arrays of two places are planned; copy one of them"
        )
    if hasattr(value, "detach"):  # PyTorch refuses the memory of what autograd records
        value = value.detach()
    try:
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except (TypeError, AttributeError, BufferError, RuntimeError, ValueError) as error:
        raise TypeError(
            f"[Trainer] {label} must be an array in CPU memory, got {type(value).__name__}: {error}"
        ) from error


def _updater(optimizer: Optimizer) -> Callable[..., Callable[[], object]]:
    """``update(param, grad, states, lr, step)`` of the optimizer, its other hyperparameters filled in: a call that is ready
    to be made."""
    op, attributes, names = optimizer.update()
    native, counts = by_schema(op), "step" in attribute_names(op)

    def update(param: Array, grad: Array, states: Mapping[str, Array], lr: float, step: int) -> Callable[[], object]:
        operands: dict[str, Any] = {names[state]: array for state, array in states.items()}
        return partial(native, param, grad, **operands, lr=lr, **({"step": step} if counts else {}), **attributes)

    return update
