"""The session behind ``Trainer(step=fn, params=...)`` where the parameters lie in the memory of a CUDA device."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from gradring import devices
from gradring.cuda import Array, Number, as_array, copied, empty, is_device_array, streams
from gradring.errors import GradringError, NonFinite
from gradring.optim import Optimizer
from gradring.session.base import REPORT_SECONDS
from gradring.session.measured import EpochSums
from gradring.session.user import UserSession
from gradring.session.user_arrays import number_of
from gradring.session.user_parts import StepResult
from gradring.session.user_queue import Entry, Queue
from gradring.session.user_table import Table

__all__ = ["DeviceUserSession"]

_COUNTS = ("_updates", "_computed", "_weight", "_pending")


class DeviceUserSession(UserSession):
    """Calls a function for loss and gradients, and updates parameters on a CUDA device, where they lie.

    ``params`` are arrays of any library on one device, and the function receives the very objects that were given. Gradients
    are arrays on that device, too. Updates are queued on the current stream: one launch for all parameters of a group of the
    optimizer. Norms, the clipping factor and the check of losses and gradients stay on the device, so the host waits for no
    step. A step that fails there stops all that were queued after it, and ``settle`` and ``step`` raise its error when the host
    learns of it; counts are then those of the last whole step.
    """

    def __init__(self, function: Any, params: Mapping[str, Any], *, device: str, **options: Any) -> None:
        devices.require_no_capture(device, "Trainer")
        self._device = devices.number_of(device)
        self._queue, self._sums_of_group = Queue(), dict[str, Any]()
        self._made: Table | None = None
        self._next_entry = 0
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
        return as_array(value, f"Trainer: {label}", self._device)

    def _zeros_like(self, array: Any) -> Any:
        made = empty(array.shape, array.dtype, self._device)
        made[...] = 0
        return made

    def _apart(self, grad: Any) -> Any:
        return grad if grad.contiguous and not (grad.size and self._in_params(grad)) else copied(grad)

    def _loss_of(self, what: str, value: Any) -> Any:
        """A loss on the device stays there."""
        if not is_device_array(value):
            return number_of(what, value)
        array = as_array(value, f"step: {what}", self._device)
        if array.size != 1 or array.dtype not in (np.float32, np.float64):
            return number_of(what, value)  # whose error says what it must be
        return array

    def _on_host(self, result: StepResult) -> StepResult:
        return result._replace(loss=_read(result.loss))

    # Updates

    def _updaters(self, optimizer: Optimizer) -> dict[str, tuple[Any, tuple[str, ...], int]]:
        numbers = optimizer.assigned(list(self.params), self.frozen)
        rules = [(rule, rule.state_names, optimizer.rates.index(rule.lr)) for rule in optimizer.rules]
        return {name: rules[number] for name, number in zip(self._trained, numbers, strict=True)}

    def require_usable(self, who: str = "Trainer") -> None:
        streams.require_no_capture(who)

    def set_optimizer(self, optimizer: Optimizer) -> None:
        self.require_usable("Trainer.optimizer")
        self.settle()
        super().set_optimizer(optimizer)
        self._made = None

    def _table(self) -> Table:
        if self._made is None:
            options, rates = self._options, len(self.optimizer.rates)
            check, limit = options.nonfinite == "raise", options.clip_norm
            self._made = Table(self._device, self._trained, self._updates_of, self.state, rates, check, limit)
        return self._made

    def step(self, batch: Any) -> Any:
        """Queue one batch, and an update unless gradients accumulate. Returns the loss, which waits when it is read."""
        began = time.perf_counter()
        self.require_usable("step")
        self._require_untorn()
        self._listen_to_device()
        if self._pending == self._options.accumulate:  # an interrupt came before the update
            self.flush()
        table = self._table()
        if len(self._queue.entries) > table.most_entries - 4:
            self.settle()
        result = self._evaluate(batch)
        if not isinstance(result.loss, Array) and not math.isfinite(result.loss):
            self.settle()  # an earlier step may have failed
            self._require_finite(result.loss)
        computed = time.perf_counter()
        entry = self._queue_batch(table, result)
        if self._pending == self._options.accumulate:
            self.flush()
        self._report_in_time(table)
        self._seconds["compute"] += computed - began
        self._seconds["update"] += time.perf_counter() - computed
        return Number(partial(self._loss_that_was, entry))

    def _queue_batch(self, table: Table, result: StepResult) -> Entry:
        stream = streams.current_stream()
        loss: Any = result.loss
        on_device = isinstance(loss, Array)
        entry = Entry(self._next_entry, self._counts(), result.samples, None if on_device else loss, not self._pending)
        calls: list[Any] = []
        gradients: Mapping[str, Any] = result.grads
        if on_device:
            calls.append(table.loss(loss, entry.number, stream))
        if self._options.accumulate > 1:
            sums = self._group()
            calls.append(table.add(sums, gradients, result.samples, not self._pending, stream))
            gradients = sums
        counts = {
            "_computed": self._computed + 1,
            "_pending": self._pending + 1,
            "_weight": self._weight + result.samples,
            "_gradients": gradients,
            "_next_entry": entry.number + 1,
        }
        self._uninterrupted([*calls, partial(self._queue.entries.append, entry)], counts)
        return entry

    def _group(self) -> dict[str, Any]:
        """Arrays for the sums of a group's gradients."""
        if not self._sums_of_group:
            self._sums_of_group = {name: self._zeros_like(array) for name, array in self._trained.items()}
        return self._sums_of_group

    def flush(self) -> None:
        """Queue the update by accumulated gradients, if there are any."""
        if not self._pending:
            return
        self._require_untorn()
        table, queue = self._table(), self._queue
        entry = Entry(self._next_entry, self._counts())
        rates = np.atleast_1d(self.rates.next(self._updates, 1)[0]).tolist()
        weight = self._weight if self._options.accumulate > 1 else 1.0
        number, stream = self._updates + 1 - self._fresh, streams.current_stream()
        call = table.update(self._gradients, rates, number, weight, entry.number, stream)
        counts = {**self._counts_after_update(), "_next_entry": entry.number + 1}
        if queue.entries and queue.entries[-1].samples:
            queue.entries[-1].after = entry
        try:
            self._uninterrupted([call, partial(queue.entries.append, entry)], counts)
        except BaseException as error:
            if self._next_entry == entry.number and table.updated:
                self._torn = (
                    f"[Trainer] {table.updated} of {table.count} parameters were updated before {error}: they are neither "
                    "trained nor saved; load a checkpoint"
                )
            if self._next_entry == entry.number and queue.entries:
                queue.entries[-1].after = None
            raise

    def _counts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COUNTS}

    # What the device reports

    def _report_in_time(self, table: Table) -> None:
        queue, now = self._queue, time.perf_counter()
        if queue.reported >= 0 or not queue.entries:
            return
        if now - queue.told > REPORT_SECONDS or len(queue.entries) >= queue.MOST:
            table.queue_report(streams.current_stream())
            queue.reported, queue.told = self._next_entry - 1, now

    def _listen_to_device(self) -> None:
        """Take a report that has come. Raises the error of a step that nothing has read."""
        queue = self._queue
        if queue.reported >= 0 and (report := self._table().take_report(False)) is not None:
            self._take(report, queue.reported)
        self._raise_held()

    def _raise_held(self) -> None:
        if (error := self._queue.take_held()) is not None:
            raise error

    def settle(self) -> None:
        self._wait_for_device()
        self._raise_held()

    def _wait_for_device(self) -> None:
        """Wait for all entries. The error of one that has failed is held."""
        queue = self._queue
        if queue.entries:
            table = self._table()
            table.queue_report(streams.current_stream())
            self._take(table.take_report(True), self._next_entry - 1)

    def _take(self, report: tuple[str, int, str, Any], last: int) -> None:
        """Note what a report says of all entries up to number ``last``."""
        fault, at, culprit, losses = report
        queue = self._queue
        queue.reported = -1
        while queue.entries and queue.entries[0].number <= last:
            entry = queue.entries[0]
            if fault and entry.number >= at:
                return self._take_fault(culprit, float(losses[at % len(losses)]))
            if entry.loss is None and entry.samples:
                entry.loss = float(losses[entry.number % len(losses)])
            if entry.samples:
                self._count_loss(entry)
            entry.done = True
            queue.entries.popleft()

    def _count_loss(self, entry: Entry) -> None:
        assert entry.loss is not None
        before, group = self._epoch_sums[:4], self._epoch_sums[4:]
        sums = (before[0] + entry.loss * entry.samples, before[1] + entry.samples, *before[2:])
        self._epoch_sums = (*sums, *(before if entry.first else group))

    def _take_fault(self, culprit: str, loss: float) -> None:
        """Go back to the counts before the first entry, which has failed, and drop it and all later ones, which have changed
        nothing. ``culprit`` is the name of a gradient; else the loss has failed."""
        queue = self._queue
        failed, *others = queue.entries
        queue.entries.clear()
        self._table().clear_fault(streams.current_stream())
        self.__dict__.update(failed.before)
        self._gradients = self._sums_of_group if self._pending else {}
        try:
            if culprit:
                self._refuse_gradient(culprit)
            self._require_finite(loss)
        except NonFinite as error:
            failed.error = error.with_traceback(None)
        for entry in others:
            entry.error = GradringError(
                f"[step] this step has changed nothing, because one before it had failed: {failed.error}"
            )
        queue.held = failed.error

    def _loss_that_was(self, entry: Entry) -> float:
        if not entry.known:
            self._wait_for_device()
        if (error := entry.outcome()) is not None:
            if self._queue.held is error:
                self._queue.take_held()
            raise error
        assert entry.loss is not None
        return entry.loss

    # What others read or set between steps

    def _require_untorn(self) -> None:
        super().require_whole()

    def require_whole(self) -> None:
        self.require_usable()
        self._require_untorn()
        self.settle()

    @property
    def step_count(self) -> int:
        self._wait_for_device()
        return self._updates

    @property
    def pending(self) -> int:
        self._wait_for_device()
        return self._pending

    @property
    def sums(self) -> EpochSums:
        self._wait_for_device()
        return self._epoch_sums

    @sums.setter
    def sums(self, sums: EpochSums) -> None:
        self._wait_for_device()
        self._epoch_sums = sums

    def _passes(self) -> int:
        self._wait_for_device()
        return self._computed

    def _mean_loss(self) -> float:
        self.settle()
        return super()._mean_loss()

    def evaluate(self, source: Any, batch_size: int = 1024) -> dict[str, float]:
        self.settle()
        return super().evaluate(source, batch_size)

    def forget(self) -> None:
        self._wait_for_device()
        super().forget()

    def restore(self, counters: Mapping[str, int]) -> None:
        self._wait_for_device()
        self._queue.take_held()  # what has failed is replaced
        super().restore(counters)

    @property
    def waiting_form(self) -> str:
        return "sum" if self._options.accumulate > 1 else "mean"

    def wait(self, pending: int, weight: float, gradients: Mapping[str, Any]) -> None:
        own = self._group() if gradients else {}
        for name, array in gradients.items():
            own[name][...] = array
        self._gradients, self._weight, self._pending = own, weight, pending


def _read(loss: Any) -> float:
    return float(loss.numpy().reshape(())) if isinstance(loss, Array) else float(loss)
