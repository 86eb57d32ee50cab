"""The learning rates of a session's updates: computed ahead, and reduced by plateau schedules."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.optim import Optimizer
from gradring.optim.plateau import Plateau, PlateauState, improves_upwards

__all__ = ["AHEAD", "Rates"]

AHEAD = 16384  # updates whose rates are computed ahead
Floats = NDArray[np.float64]


class Rates:
    """The rates of an optimizer, with a column for each if groups have their own, and the states of plateau
    schedules."""

    _optimizer: Optimizer

    def __init__(self, optimizer: Optimizer) -> None:
        self._seen: dict[int, PlateauState] = {}
        self.use(optimizer)

    def use(self, optimizer: Optimizer) -> None:
        """Use the rates of this optimizer from now on. Plateau schedules that the old one also had keep their
        states."""
        old = [(self._optimizer.rates[n], state) for n, state in self._seen.items()]
        plateaus = {n: rate for n, rate in enumerate(optimizer.rates) if isinstance(rate, Plateau)}
        seen = {
            n: next((state for before, state in old if before == rate), PlateauState()) for n, rate in plateaus.items()
        }
        self._optimizer, self._plateaus, self._seen = optimizer, plateaus, seen  # no signal comes between these
        self._constant = not any(callable(rate) for rate in optimizer.rates)
        self._forget()

    def _forget(self) -> None:
        """Forget the rates that were computed ahead, because they have changed."""
        ahead = self._optimizer.all_learning_rates(0, 1) if self._constant else np.empty(0)
        self._first, self._ahead = 0, ahead

    @property
    def constant(self) -> Floats | None:
        """The rates of every update, if they are always the same."""
        return self._ahead[:1] if self._constant else None

    def next(self, first: int, count: int = AHEAD) -> Floats:
        """The rates of up to ``count`` updates from number ``first`` (from 0) on. The first rate of a row is the
        optimizer's own."""
        if self._constant:
            if len(self._ahead) < count:
                self._ahead = _repeated(tuple(self._ahead[:1].ravel().tolist()))
            return self._ahead[:count]
        at = first - self._first
        if at < 0 or len(self._ahead) - at < min(count, AHEAD // 2):
            self._first, self._ahead, at = first, self._computed(first, max(count, AHEAD)), 0
        return self._ahead[at : at + count]

    def first(self, update: int) -> float:
        """The optimizer's own rate at one update."""
        at = update - self._first
        # An epoch of a small data set takes less time than a schedule: read what was computed ahead, if it is there.
        ahead = self._ahead[:1] if self._constant else self._ahead[at : at + 1] if at >= 0 else self._ahead[:0]
        return float((ahead if len(ahead) else self._computed(update, 1)).flat[0])

    def _computed(self, first: int, count: int) -> Floats:
        rates = self._optimizer.all_learning_rates(first, count)
        if self._plateaus:
            rates = rates.copy()
        for number, plateau in self._plateaus.items():
            column = rates if rates.ndim == 1 else rates[:, number]
            column[...] = plateau.reduced(column, self._seen[number].factor)
        return rates

    # Plateaus

    def require(self, names: Sequence[str]) -> None:
        """Raise ``ValueError`` if a plateau schedule waits for a metric that no epoch will have."""
        for plateau in self._plateaus.values():
            if plateau.monitor not in names:
                close = difflib.get_close_matches(plateau.monitor, names, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                missing = " (there is no validate=)" if plateau.monitor.startswith("val_") else ""
                raise ValueError(
                    f"[plateau] there will be no metric {plateau.monitor!r}{missing}, only {', '.join(names)}{hint}"
                )
            improves_upwards("plateau", plateau.monitor, plateau.mode)  # raises where nothing says so

    def observe(self, metrics: Mapping[str, float]) -> bool:
        """Report the end of an epoch of ``fit``. Returns whether a rate is reduced from now on."""
        if not self._plateaus:
            return False
        before = dict(self._seen)
        for number, plateau in self._plateaus.items():
            if plateau.monitor in metrics:
                self._seen[number] = plateau.seen(self._seen[number], float(metrics[plateau.monitor]))
        changed = any(before[number].factor != state.factor for number, state in self._seen.items())
        if changed:
            self._forget()
        return changed

    def begin_anew(self) -> None:
        """Forget all epochs."""
        self._seen = dict.fromkeys(self._plateaus, PlateauState())
        self._forget()

    def state(self) -> list[dict[str, Any] | None]:
        """The states of plateau schedules, for a checkpoint: an entry for each rate; empty without such schedules."""
        if not self._plateaus:
            return []
        columns = range(len(self._optimizer.rates))
        return [self._seen[number].as_dict() if number in self._seen else None for number in columns]

    def misfit(self, state: Sequence[Any]) -> str:
        """A text that says why a result of ``state`` does not fit this optimizer; empty if it fits."""
        there = {number for number, entry in enumerate(state) if entry is not None}
        if there == set(self._plateaus):
            return ""
        return f"it has {len(there)} plateau schedules with a state, and {self._optimizer} has {len(self._plateaus)}"

    def restore(self, state: Sequence[Any]) -> None:
        """Restore a result of ``state``."""
        self._seen = {number: PlateauState.from_dict(state[number]) for number in self._plateaus}
        self._forget()


@lru_cache(maxsize=16)
def _repeated(row: tuple[float, ...]) -> Floats:
    """An array of equal rates, or of equal rows. All sessions share it, because there may be thousands."""
    rates = np.full(AHEAD, row[0], np.float64) if len(row) == 1 else np.tile(row, (AHEAD, 1))
    rates.flags.writeable = False
    return rates
