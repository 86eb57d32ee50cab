"""Single steps of a session: the path that checks, converts, plans and explains errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from gradring import _core
from gradring.errors import NonFinite
from gradring.session.ahead import Step
from gradring.session.batch import Bound
from gradring.session.culprits import of_a_batch, rows_of
from gradring.session.data import given_fields
from gradring.session.evaluation import SessionEvaluation

__all__ = ["SessionSteps"]


class SessionSteps(SessionEvaluation):
    """The part of a ``Session`` that makes one step from one batch."""

    _fast: Any  # what the native function of a step accepts; None on a CUDA device
    _many: bool  # whether the steps belong to an epoch, in which all weights of one batch may be zero
    _batch: int  # the number of a step's batch in its epoch, for errors

    def rates_changed(self) -> None:
        constant = self.rates.constant
        if self._fast is not None:
            _core.set_expected_rates(self._fast, np.empty(0) if constant is None else constant, 0, constant is not None)

    def _stop_fast_path(self) -> None:
        if self._fast is not None and len(self.names) == 2:  # -1 matches no array, so no call takes the fast path
            _core.set_expected_shapes(self._fast, self.dtype, [-1], self.dtype, [-1])

    def _step_slowly(self, *given: ArrayLike, **named: ArrayLike) -> Any:
        if self._ahead is not None:
            self.require_usable("step")
            self._ahead.listen()
        if self.peers is None or self.fitting:
            return self._step_anew(*given, **named)
        self.peers.agreed = False
        try:
            return self._step_anew(*given, **named)
        except BaseException as error:
            self.leave(error)
            raise

    def _step_anew(self, *given: ArrayLike, **named: ArrayLike) -> Any:
        """A step that checks, converts, plans and explains errors. It sets what the fast path accepts the next time."""
        fields = given_fields(self.names, given, named)
        self._require_settled()
        self.require_usable()
        self._programs.store.whole.trained = True
        bound = self._bind(fields, weightless=self._many or self.peers is not None)  # other ranks may have weights
        rows = len(bound)
        feed = self._feed(bound, rows)
        if self.peers is not None:
            whole = self._whole_rows(rows)
            feed = self.peers.feed(feed, own_numbers=True, whole=whole)
            rows = whole or rows
        self._ensure("train", rows, bound, self._dtypes)
        alone, quick = self.replicas == 1 and not self.shards, self.peers is None or not self.shards
        if self._fast is not None and bound.slots == (0, 1) and quick and not self.workers:
            x, y = (list(field.shape[1:]) for field in bound.fields)
            # The slow path knows whether the weights of a rank may all be zero.
            weights = self.dtype if alone else ""
            _core.set_expected_shapes(self._fast, self._dtypes[0], x, self._dtypes[1], y, weights)
        if self._fast is not None and self.rates.constant is None:
            _core.set_expected_rates(self._fast, self.rates.next(self.step_count), self.step_count, False)
        if self._ahead is not None:
            if self._rates_ahead == 1:
                self.settle()
            plan = self._programs.plans.get(("train" if bound.weight is None else "train weighted", rows))
            rates = self.rates.next(self._ahead.updates, 1)
            return self._ahead.queue(feed, rates, bound, self._batch, self._many, plan)
        rates = self.rates.next(self.step_count, 1)
        result, part = self._programs.train(feed, rates, 1, 0.0, bound.weight is not None)
        if result["fault"]:
            self._fail_step(result, bound)
        if not part["steps"]:
            raise self._no_step(result)
        return part["last_loss"]

    def _whole_rows(self, own: int) -> int:
        """With shards, the rows of a batch of all ranks, of which this one has ``own``; 0 without shards."""
        return 0 if self.peers is None or not self.shards else self.peers.whole_rows(own)

    def _fail_step(self, result: Mapping[str, Any], bound: Bound) -> NoReturn:
        """Raise the error for a fault in a step by itself."""
        culprits = rows_of(bound, {**result, "position": 0, "rows": len(bound)}, {})
        self._fail(result, of_a_batch(culprits) if self._many else culprits, self._batch)

    def _error_of(self, step: Step, result: Mapping[str, Any]) -> Exception:
        """The error for a fault in a step that has returned before."""
        culprits = None if step.bound is None else rows_of(step.bound, {**result, "position": 0, "rows": len(step.bound)}, {})
        if culprits is not None and step.many:
            culprits = of_a_batch(culprits)
        number, plans = self.step_count + 1, [step.plan] if step.plan else []
        try:
            self._fail(result, culprits, step.batch, plans=plans)
        except NonFinite as error:  # names the step
            return error.with_traceback(None)
        except ValueError as error:
            return type(error)(f"{error}, which is that of step {number}")

    def _end_step(self, *fields: ArrayLike) -> NoReturn:
        """Raise what has ended a step that all ranks have taken by the fast path: a rank, a fault, or a signal."""
        assert self.peers is not None
        try:
            result = self.peers.end_of_step()
            if result["fault"]:
                self._fail_step(result, self._bind(given_fields(self.names, fields, {}), weightless=True))
            raise self._no_step(result)
        except BaseException as error:
            if not self.fitting:
                self.leave(error)
            raise
