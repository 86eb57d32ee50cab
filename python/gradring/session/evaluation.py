"""Evaluations and predictions of a session, and the sources of its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.errors import GradringError
from gradring.loader import Loader
from gradring.metrics import Metrics
from gradring.session.base import REPORT_SECONDS
from gradring.session.batch import Bound, Fields, check_target
from gradring.session.culprits import of_a_batch, rows_of
from gradring.session.data import batches_of, fields_in, named_source, require_batches
from gradring.session.graphs import SessionGraphs
from gradring.session.peers import Peers
from gradring.session.results import Predicted, Sums
from gradring.session.shares import evaluated, rows_together

__all__ = ["SessionEvaluation"]

Array = NDArray[Any]


class SessionEvaluation(SessionGraphs):
    """The part of a ``Session`` that updates nothing."""

    _metrics: Metrics
    _accuracy: bool  # whether it is among the metrics, and the loss counts right answers

    def _read(self, feed: Any, bound: Bound, rows: int) -> list[Array]:
        """The model's inputs and the targets of the feed's next batch, which stays the next one."""
        looks = zip(bound.slots, bound.fields, self._dtypes, strict=True)
        arrays = {slot: np.empty((rows, *field.shape[1:]), dtype) for slot, field, dtype in looks}
        if bound.weight_slot is not None:
            arrays[bound.weight_slot] = np.empty(rows, self.dtype)
        feed.read([arrays[slot] for slot in range(len(arrays))])
        *inputs, targets = (arrays[slot] for slot in bound.slots)
        return [*inputs, targets.reshape(rows, *bound.target)]

    def _no_step(self, result: Mapping[str, Any]) -> GradringError:
        """The error for a step that did not run, although it was planned. The next one plans anew."""
        self._programs.forget()
        return GradringError(
            f"[Trainer] internal: a step of {result['rows']} rows has not run (the native loop ended with "
            f"{result['end']!r}), although it was planned; no parameter has changed, and the next step plans anew"
        )

    def evaluate_fields(
        self,
        data: Sequence[ArrayLike] | Mapping[str, ArrayLike] | Fields | Bound,
        batch_size: int = 1024,
        *,
        first_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        sums: Sums | None = None,
        predicted: Predicted | None = None,
    ) -> dict[str, float]:
        """Mean loss and, where the loss counts right answers, accuracy over all samples of this rank, without dropout
        or updates. Errors count batches from ``first_batch``. ``sums`` has the totals of earlier batches, to which
        these are added, and ``predicted`` gets the batches."""
        self.require_usable("evaluate")
        self.settle()
        many = sums is not None
        bound = data if isinstance(data, Bound) else self._bind(data, rows=batch_size, weightless=many)
        feed = self._feed(bound, min(batch_size, len(bound)), rank=rank, world_size=world_size)
        reads = self._dtypes
        self._require_settled()
        sums, before = sums or Sums(self.loss), sums.count("steps") if sums else 0
        none = np.empty(0)
        while (rows := feed.next_rows()) > 0:
            self._ensure("evaluate", rows, bound, reads)
            weighted, before_it = bound.weight is not None, sums.so_far
            most, fields = (-1, []) if predicted is None else (1, self._read(feed, bound, rows))
            result, part = self._native.chunk(False, feed, none, most, REPORT_SECONDS, weighted, *before_it)
            sums.add(part)
            if result["fault"]:
                culprits, batch = rows_of(bound, result, {"world_size": world_size}), sums.count("steps") - before
                culprits = of_a_batch(culprits) if many and bound is not data else culprits
                self._fail(result, culprits, first_batch + batch, training=False)
            if predicted is not None:
                predicted.add(fields)
        if not many:
            sums.require_weight(bound.weight is not None)
        return sums.metrics()

    def source(self, caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
        """The source of batches. Fields that have names are bound by them."""
        source = named_source(caller, data, self.names, batch_size, shuffle=shuffle, seed=seed)
        return source if self.peers is None else self.peers.share_of(source)

    def metric_names(self) -> tuple[str, ...]:
        accuracy = ("accuracy",) if self._accuracy else ()
        return ("loss", *accuracy, *self._metrics.functions)

    def _require_fit(self, source: Any) -> None:
        bound: Bound | None = None
        if isinstance(source, Loader) and source.computable:
            bound = self._bind_loader(source, in_order=True)
        elif isinstance(source, list) and source:
            bound = self._bind(fields_in(source[0], self.names), weightless=True)
        if bound is not None:
            graph = self._graph("evaluate", self._inputs(1), bound.weight is not None)
            check_target(graph.values["target"].shape, bound.fields[-1], self.loss)

    def _bind_loader(self, source: Loader, start: int = 0, *, in_order: bool = False, blocks: bool = False) -> Bound:
        arrays = source.arrays  # the step's own threads read them where they lie; other sources need a feed
        if arrays is not None:
            return self._bind(arrays, rows=source.batch_size)
        return self._bind(source.fields(start, in_order=in_order, blocks=blocks), rows=source.batch_size, order=source.names)

    def _join(self, *, blocks: bool = False) -> Callable[[Sequence[Array | None]], Array | None] | None:
        """What makes the rows of all ranks out of those of this rank. ``blocks``: each rank has a block of each batch."""
        if self.peers is None or self.peers.apart:
            return None
        return self.peers.rows_of_batches if blocks else self.peers.rows_of_ranks

    def evaluate(self, source: Any, batch_size: int = 1024) -> dict[str, float]:
        """Mean loss, accuracy where there is one, and the other metrics; nothing is updated."""
        if self.peers is not None and not self.peers.apart:
            return self._evaluate_together(self.peers, source, batch_size)
        predicted = Predicted(self._metrics, self._forward)
        if isinstance(source, (tuple, Mapping)):
            source = self.source("Session", source, batch_size, shuffle=False, seed=0)
        if isinstance(source, Loader) and source.computable:
            bound = self._bind_loader(source, in_order=True)
            measured = predicted if self._metrics.functions else None
            rows, rank, size = rows_together(source, batch_size, self.shards), source.rank, source.world_size
            native = self.evaluate_fields(bound, rows, rank=rank, world_size=size, predicted=measured)
            return {**self._chosen(native), **predicted.metrics("an evaluation")}
        sums = Sums(self.loss)
        number = -1
        for number, batch in enumerate(batches_of(source)):
            fields = fields_in(batch, self.names)
            self.evaluate_fields(fields, batch_size, first_batch=number, sums=sums)
            predicted.add(fields[: len(self.names)])
        require_batches("evaluate", number + 1)
        sums.require_weight(len(fields) > len(self.names))
        return {**self._chosen(sums.metrics()), **predicted.metrics("an evaluation")}

    def _evaluate_together(self, peers: Peers, source: Any, batch_size: int) -> dict[str, float]:
        """The metrics over the sources of all ranks, each of which evaluates its own."""
        sums, weighted = Sums(self.loss), False
        predicted = Predicted(self._metrics, self._forward, join=self._join())
        # The order in which ranks would add up the sums of their samples depends on their number, and results with shards must
        # not. So they divide whole batches then.
        whole = bool(self.shards) and isinstance(source, Loader) and source.computable
        with peers.told(peers.stop):
            if whole:
                native = evaluated(self, source.undivided(), batch_size, predicted)
                return {**self._chosen(native), **predicted.metrics("an evaluation")}
            if isinstance(source, Loader) and source.computable:
                bound = self._bind_loader(source, in_order=True)
                weighted = bound.weight is not None
                measured = predicted if self._metrics.functions else None
                rank, size = source.rank, source.world_size
                self.evaluate_fields(bound, batch_size, rank=rank, world_size=size, sums=sums, predicted=measured)
            else:
                for number, batch in enumerate(batches_of(source)):
                    fields = fields_in(batch, self.names)
                    weighted = len(fields) > len(self.names)
                    self.evaluate_fields(fields, batch_size, first_batch=number, sums=sums)
                    predicted.add(fields[: len(self.names)])
        sums.values = peers.add(sums.values)
        require_batches("evaluate", sums.count("samples"))
        sums.require_weight(weighted)
        return {**self._chosen(sums.metrics()), **predicted.metrics("an evaluation")}

    def predict(self, x: Any, batch_size: int = 1024, called: Callable[[int], object] = int) -> Array:
        """The model's output for every row of ``x``, without dropout. A model of several inputs takes a tuple of
        them."""
        self.require_usable("predict")
        if self._ahead is not None:
            self._native.order_behind_steps()
        names = self.names[:-1]
        if len(names) == 1:
            return self._forward(x, batch_size=batch_size, called=called)
        if not isinstance(x, tuple):
            raise TypeError(f"[Trainer.predict] the model takes ({', '.join(names)}): give a tuple or a dict of them")
        return self._forward(*x, batch_size=batch_size, called=called)

    def _chosen(self, metrics: dict[str, float]) -> dict[str, float]:
        return metrics if self._accuracy else {"loss": metrics["loss"]} if metrics else {}
