"""The graphs and the programs of a session, for the fields of its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from operator import itemgetter
from typing import Any, NoReturn

from numpy.typing import NDArray

from gradring import _core, devices
from gradring.cuda import Array as DeviceArray
from gradring.errors import GradringError, NotBuilt
from gradring.graph.asynchronous import Worker, asynchronous
from gradring.graph.data_parallel import Ranks, data_parallel, parts_of
from gradring.graph.faults import fault_error
from gradring.graph.passes import evaluate_graph, train_graph
from gradring.graph.plan import Plan, plan
from gradring.graph.products import with_products
from gradring.ir import Graph, Input, trace
from gradring.session.batch import Bound, bind, check_target
from gradring.session.culprits import Rows
from gradring.session.device_feed import array_feed
from gradring.session.state import SessionState

__all__ = ["SessionGraphs"]

Array = NDArray[Any]


class SessionGraphs(SessionState):
    """The part of a ``Session`` that plans: it makes a program for each mode and shape of a batch."""

    def plan(self, rows: int | None = None) -> Plan:
        """The training program for a batch of ``rows`` (the largest one trained on): print it."""
        mode = _mode("train", self._last_weighted)
        plans = self._programs.plans
        rows = rows or max((n for found, n in plans if found == mode), default=0)
        if (mode, rows) not in plans:
            raise ValueError("[plan] no step of that batch size has run yet: plans are made when a batch shape comes")
        kept = self._programs.plan_of(mode, rows)
        if self.divides:
            graph = self._replica_graphs(rows, self._last_weighted)(0)
        elif self.workers:
            graph = self._worker_graphs(rows, self._last_weighted)(0)
        else:
            graph = self._graph("train", self._inputs(rows), self._last_weighted)
        made = plan(graph, None, mode="train")
        return replace(made, graph=graph, barriers=kept.barriers, lanes=kept.lanes, algorithms=self.algorithms())

    def _bind(
        self, given: Any, *, rows: int | None = None, order: Sequence[str] | None = None, weightless: bool = False
    ) -> Bound:
        """Check the fields of batches of ``rows`` rows (by default all samples), and forget programs for other
        fields."""
        bound = bind(given, self.names, self.loss, self.dtype, order=order, slots=self._slots, weightless=weightless)
        self._expect(bound, len(bound) if rows is None else min(rows, len(bound)))
        return bound

    def _expect(self, bound: Bound, rows: int) -> None:
        if bound.weight is not None and bound.weight_slot != self._weight_slot:
            if self._weight_slot is not None:
                self._programs.clear()
                self._stop_fast_path()
            self._weight_slot = bound.weight_slot
        if self._programs.expect(bound.signature):
            return
        self._slots = bound.slots
        self._stop_fast_path()
        inputs = zip(self.names[:-1], bound.fields, bound.slots, strict=False)
        self._looks = {name: (field.shape[1:], field.dtype.kind in "iu", slot) for name, field, slot in inputs}
        reads = (self.dtype,) * (len(self.names) - 1)
        if any(field.dtype.kind in "iu" for field in bound.fields[:-1]):  # the layers decide whether they stay integers
            graph, _ = trace(self.model, self._inputs(rows), training=False, dtype=self.dtype)
            reads = tuple(graph.values[name].dtype for name in self.names[:-1])
        target = bound.fields[-1]
        self._dtypes = (*reads, self.loss.target_dtype(self.dtype, target))
        self._target = (target.shape[1:], self._dtypes[-1])
        self._programs.expected(bound.signature)

    def _feed(self, bound: Bound, batch_size: int, **order: Any) -> Any:
        """A native feed of these fields, in the dtypes that the programs read."""
        parts = list(zip(bound.slots, bound.fields, self._dtypes, strict=True))
        if bound.weight_slot is not None:
            parts.append((bound.weight_slot, bound.weight, self.dtype))
        by_slot = sorted(parts, key=itemgetter(0))
        if bound.feed is None and isinstance(bound.fields[0], DeviceArray):
            if self.divides or order.get("shuffle") or order.get("world_size", 1) > 1 or order.get("start_batch"):
                raise NotBuilt("arrays on a device are read in their order, as whole batches: use step, or a gr.Loader")
            return array_feed([(field, dtype) for _, field, dtype in by_slot], batch_size, self.device)
        if bound.feed is None:
            return _core.ArrayFeed([(field, dtype) for _, field, dtype in by_slot], batch_size, **order)
        return bound.feed.open([dtype for _, _, dtype in by_slot])

    def _epoch_feed(
        self, bound: Bound, batch_size: int, epoch: int = 0, start_batch: int = 0, **order: Any
    ) -> tuple[Any, Any]:
        """A native feed of one epoch of these fields, and the key under which ``bound.spare`` keeps it for the next epoch."""
        if bound.feed is not None:
            return self._feed(bound, batch_size), None
        key = (self._dtypes, batch_size, *order.items())
        feed = bound.spare.pop(key, None)
        if feed is None:
            return self._feed(bound, batch_size, epoch=epoch, start_batch=start_batch, **order), key
        feed.begin(epoch, start_batch)
        return feed, key

    def _ensure(self, mode: str, rows: int, bound: Bound, reads: tuple[str, ...]) -> bool:
        """Make the program for a batch of ``rows`` rows of these fields, which a feed delivers in the dtypes ``reads``.

        Between two chunks a callback or another thread may have run the session on other fields, or changed a layer.
        """
        self._expect(bound, rows)
        if self._dtypes != reads:
            raise GradringError(
                f"[Trainer] the model has changed while it was trained or evaluated: it read its fields as {', '.join(reads)} "
                f"and now reads {', '.join(self._dtypes)}"
            )

        weighted = bound.weight is not None

        def build() -> tuple[Graph, str | None]:
            graph = self._graph(mode, self._inputs(rows), weighted)
            check_target(graph.values["target"].shape, bound.fields[-1], self.loss)
            return graph, None

        if mode == "train":
            self._last_rows, self._last_looks, self._last_weighted = rows, self._looks, weighted
            if self.divides or self.workers:
                return self._ensure_replicas(rows, bound.fields[-1], weighted)
        return self._programs.ensure(_mode(mode, weighted), rows, build)

    def _ensure_replicas(self, rows: int, target: Any, weighted: bool) -> bool:
        """Make the programs with which the replicas train on a batch of ``rows``."""

        graph_of = (self._worker_graphs if self.workers else self._replica_graphs)(rows, weighted)

        def build(replica: int) -> Graph:
            graph = graph_of(replica)
            # For the whole batch: replica 0 may have no rows of it, and must refuse each target that another one would refuse.
            check_target((max(rows, 1), *graph.values["target"].shape[1:]), target, self.loss)
            return graph

        return self._programs.ensure_replicas(_mode("train", weighted), rows, build)

    def _replica_graphs(self, rows: int, weighted: bool) -> Callable[[int], Graph]:
        """What makes the graph of the step of each replica of this process on a batch of ``rows``. Without shards these are the
        rows of this process alone, if there are several. -1 means none. Replicas with equally many rows share the passes over
        them, which are made once."""
        first = 0 if self.peers is None else self.peers.rank * self.own_replicas
        meetings: Any = self._programs.replicas or self.peers
        apart = self.peers is not None and not self.shards  # rows are those of this rank, of a batch of unknown size
        step = cache(lambda own: self._graph("train", self._inputs(own), weighted, part=rows != 1 or apart))
        summed, add = getattr(self.loss, "reduction", "mean") == "sum", self.accumulate > 1

        def graph_of(replica: int) -> Graph:
            ranks = Ranks(first + replica, self.replicas, meetings.meeting(replica), self.shards)
            begin, end = Ranks(replica, self.own_replicas).rows(max(rows, 0)) if apart else (0, max(rows, 0))
            whole, parts = parts_of(step, ranks, end - begin, whole=not apart)
            return data_parallel(whole, ranks, parts=parts, check_finite=self._check_finite, accumulate=add, summed=summed)

        return graph_of

    def _worker_graphs(self, rows: int, weighted: bool) -> Callable[[int], Graph]:
        """What makes the graph of each worker's step on a batch of ``rows`` rows."""
        step = cache(lambda: self._graph("train", self._inputs(rows), weighted))

        def graph_of(worker: int) -> Graph:
            return asynchronous(step(), Worker(worker, self.workers, self._programs.replicas.view(worker)), self.parallel)

        return graph_of

    def sharing(self) -> dict[str, Any]:
        """How the workers have shared the parameters so far; see ``Trainer.sharing``."""
        if not self.workers:
            raise TypeError(
                f"[Trainer.sharing] parallel={self.parallel!r} has no asynchronous updates: give parallel='locked', 'atomic' "
                "or 'hogwild'"
            )
        return dict(self._programs.replicas.counts())

    def flush(self) -> None:
        """Update with the gradients of accumulated batches that still wait for the rest of their group, if any do."""
        self.settle()
        if not self._native.pending:
            return
        if not self._last_rows:
            raise GradringError(
                "[Trainer] gradients of a checkpoint wait for an update, and no batch has come from which to plan it: train on "
                "the data with which the file was saved"
            )
        mode, rows, weighted = _mode("train", self._last_weighted), self._last_rows, self._last_weighted
        others = self._programs.stale or (mode, rows) not in self._programs.plans
        if others or self._looks is not self._last_looks:  # a callback has run the session on other fields since
            others, self._looks = True, self._last_looks
            self._programs.clear()
            self._stop_fast_path()
            if self.divides:
                self._programs.ensure_replicas(mode, rows, self._replica_graphs(rows, weighted))
            else:
                self._programs.ensure(mode, rows, lambda: (self._graph("train", self._inputs(rows), weighted), None))
        result = self._programs.flush(rows, self.rates.next(self.step_count, 1), weighted)
        if others:
            self._programs.clear()
        if result["fault"]:
            self._fail(result, None, 0)

    def _graph(self, mode: str, inputs: Mapping[str, Input], weighted: bool, *, part: bool = False) -> Graph:
        """The graph of a training step or an evaluation for a batch, or a ``part`` of one, of these inputs."""
        narrow = None if self.operands == "tf32" else self.operands
        on_cpu = self.device == devices.CPU
        said: dict[str, Any] = {"dtype": self.dtype, "operands": narrow, "target": self._target, "on_cpu": on_cpu}
        said["layout"] = self._programs.store.layout
        if weighted:
            said["weight"] = self._weight_slot
        if mode == "evaluate":
            return with_products(evaluate_graph(self.model, inputs, self.loss, **said), self.products)
        graph = train_graph(
            self.model,
            inputs,
            self.loss,
            **said,
            optimizer=self.optimizer,
            frozen=self.frozen,
            clip_norm=self.clip_norm,
            accumulate=self.accumulate > 1,
            sums=self.divides,
            fuse_update=self.fuse_update is not False
            and not self.divides
            and not self.workers
            and on_cpu,
            check_finite=self._check_finite and not self.divides,
            part=part,
        )
        return with_products(graph, self.products)

    def _fail(
        self,
        result: Mapping[str, Any],
        rows: Rows | None,
        batch: int,
        *,
        training: bool = True,
        plans: Sequence[Plan] = (),
    ) -> NoReturn:
        """Raise the error for a fault in a batch of these ``rows``, of a program of ``plans``; none: of any of now."""
        if result["fault"] == "callback":
            if training:
                self.forget()  # it may have failed when a part of the group's gradients was added to
            self._programs.raise_callback()
            error = self.loss.take_failure()
            if error is not None:
                raise error
            raise RuntimeError("[Session] a callback failed without an exception")
        if result["fault"] == "gradient" or (training and self.divides):
            # The sums of micro-batches contain the infinite gradient, or those of the replicas that had no fault.
            self.forget()
        plans = plans or list(self._programs.plans.values())
        updates = self.step_count if training else None
        y, culprit = None, ""
        if rows is not None:
            y, culprit = rows.target(result), rows.bad_number(self.names, self.dtype)
            result = rows.told(result)
        raise fault_error(
            result,
            loss=self.loss,
            batch=batch,
            y=y,
            target=self._dtypes[-1],
            plans=plans,
            updates=updates,
            culprit=culprit,
        )


def _mode(mode: str, weighted: bool) -> str:
    """The mode of programs for batches with or without weights."""
    return f"{mode} weighted" if weighted else mode
