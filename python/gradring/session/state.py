"""The state of a session: one model's arenas, programs and counts, and the optimizer that its steps apply."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from numpy.typing import NDArray

from gradring import _core, devices
from gradring.arguments import choice
from gradring.cuda import Array as DeviceArray
from gradring.errors import GradringError, NotBuilt
from gradring.float32_products import settled
from gradring.graph.asynchronous import Worker, asynchronous
from gradring.graph.data_parallel import Ranks, data_parallel, parts_of
from gradring.graph.faults import fault_error
from gradring.graph.memory import training_memory
from gradring.graph.passes import evaluate_graph, train_graph
from gradring.graph.plan import Plan, plan
from gradring.graph.products import with_products
from gradring.ir import Input, trace
from gradring.losses import ClassWeight, Loss, as_loss
from gradring.losses.base import balanced
from gradring.nn.habits import described
from gradring.nn.layer import Layer
from gradring.optim import Optimizer
from gradring.options import Options
from gradring.patterns import as_patterns, frozen_names
from gradring.session.arenas import Arenas
from gradring.session.base import to_the_end
from gradring.session.batch import WEIGHT, Bound, bind, check_target
from gradring.session.class_weights import counted, of_all_ranks
from gradring.session.counts import CountedSession
from gradring.session.culprits import Rows
from gradring.session.device_feed import array_feed
from gradring.session.forward import Forward
from gradring.session.peers import Peers
from gradring.session.planes import joined, split, take
from gradring.session.programs import Programs
from gradring.session.rates import Rates
from gradring.session.replicable import facts_of, require_asynchronous, require_native, require_products

if TYPE_CHECKING:
    from gradring.ir import Graph

__all__ = ["SessionState"]

Array = NDArray[Any]


class SessionState(CountedSession):
    """The part of a ``Session`` that lasts from step to step."""

    def __init__(
        self,
        model: Layer,
        *,
        optimizer: Optimizer,
        frozen: str | Sequence[str] = (),
        loss: str | Loss = "cross_entropy",
        class_weight: ClassWeight = None,
        dtype: str = "float32",
        threads: int | Literal["auto"] = "auto",
        seed: int = 0,
        clip_norm: float | None = None,
        nonfinite: str = "raise",
        accumulate: int = 1,
        fuse_update: bool | None = None,
        replicas: int = 1,
        shards: int = 0,
        parallel: str = "allreduce",
        staleness: int | None = None,
        comm: Any = None,
        device: str = devices.CPU,
        tune: bool = False,
        products: str | None = None,
        metrics: Sequence[str] = (),
    ) -> None:
        if not isinstance(model, Layer):
            raise TypeError(f"[Session] model must be a gradring layer, got {described(model)}")
        self.names = (*model.input_names, "y")
        if len({*self.names, WEIGHT}) < len(self.names) + 1 or len(self.names) < 2:
            raise ValueError(
                f"[Session] {model} has the inputs {list(model.input_names)}: there must be one or more, all different, "
                "'y' is the name of the targets, and 'weight' that of the samples' weights"
            )
        options = Options.checked(
            "Session",
            dtype=dtype,
            threads=threads,
            accumulate=accumulate,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            seed=seed,
        )
        self.model, self.loss, self.optimizer = model, as_loss("Session", loss), optimizer
        self._plain: Loss | None = None  # the loss without class weights, if the labels decide these
        if isinstance(class_weight, str):
            choice(
                "Trainer",
                "class_weight",
                class_weight,
                ("balanced",),
                "a dict or an array with a weight for each class",
            )
            self.loss.with_class_weight({0: 1.0})  # raises unless the loss accepts class weights
            self._plain = self.loss
        elif class_weight is not None:
            self.loss = self.loss.with_class_weight(class_weight)
        self._weighed = self._plain is None
        self._counted: Any = None  # the source whose labels were counted, and their numbers
        self._classes: int | None = None  # the number of classes, once "balanced" has needed it
        self.clip_norm, self.accumulate, self.fuse_update = options.clip_norm, options.accumulate, fuse_update
        self._check_finite = options.nonfinite == "raise"
        store = model.ensure(options.seed, options.stored)
        if store.whole is not store:
            raise ValueError(
                f"[Session] {model} is a layer of another model and shares its parameters: train that model, or a "
                "copy.deepcopy of this layer"
            )
        store.require_own("Trainer")
        if store.device not in (devices.CPU, devices.named(device, "Trainer")):
            raise ValueError(
                f"[Trainer] the model is on {store.device}, and device is {device!r}: give device={store.device!r}, or move "
                f"the model first: model.to({device!r})"
            )
        if device != devices.CPU:
            require_native(model, self.loss, device)
        store = model.astype(options.stored).to(device).store
        self.device = store.device  # where the parameters are and steps run
        self.products = settled("Trainer", products) if self.device == devices.CPU else "fma"
        self.operands = options.operands
        require_products(self.device, products, self.operands)
        self.frozen = frozen_names("Trainer", as_patterns("Trainer", "frozen", frozen), list(store.shapes))
        optimizer.assigned(list(store.shapes), self.frozen)  # checks that its patterns match
        self.parallel, self.workers = parallel, 0
        if parallel != "allreduce":  # workers, each of which trains on whole batches
            self.workers, replicas = replicas, 1
            require_asynchronous(parallel, model, self.loss, optimizer, options.accumulate)
        # On threads of this process, and on those of all ranks of a communicator.
        self.own_replicas, self.replicas, self.shards = replicas, replicas, shards
        self.peers, seed, own = None, options.seed, 0
        if comm is not None and comm.size > 1:
            self.peers, self.replicas = Peers(comm), comm.size * replicas
            facts = facts_of(model, self.loss, optimizer, self.frozen, options, class_weight)
            facts |= {"replicas": replicas, "shards": shards, "products": self.products, "dtype": dtype}
            facts["metrics"] = list(metrics)
            seed = self.peers.agree(facts)["seed"]
        planes = shards or self.replicas
        if self.peers is not None:
            own = self.peers.rank * (planes // comm.size)
        self.divides = planes > 1  # each batch into parts
        memory = training_memory(store.layout, store.dtype, optimizer, self.frozen, Ranks(own, planes))
        self._arenas = Arenas(store, memory, None if self.peers is None else self.peers.share)
        store.sharing = None if self.peers is None else weakref.ref(self.peers)
        self._programs = Programs(
            model,
            self._arenas,
            lanes=_core.usable_cores() if options.threads == "auto" else options.threads,
            accumulate=options.accumulate,
            seed=seed,
            check_finite=self._check_finite,
            replicas=self.workers or replicas,
            shards=shards,
            parallel=parallel,
            staleness=staleness,
            peers=self.peers,
            tune=tune,
            tf32=self.operands == "tf32",
        )
        self._tunes = tune
        self._recorded = tune and self.device != devices.CPU
        self._native = self._programs.native
        self._forward = Forward(model, store, self.threads, self.operands)
        self.params, self.buffers = store.arrays, store.buffers
        self._grads = self._arenas.gradients(memory)
        self._planes = [self._grads]  # those of each replica or shard
        if planes > 1:
            layout, look = store.layout, (store.dtype, optimizer, self.frozen)
            every = [training_memory(layout, *look, Ranks(number, planes)) for number in range(planes)]
            self._planes = [self._arenas.gradients(memory) for memory in every]
        self.state = self._arenas.states(memory, optimizer.state_names)
        self._last_rows = 0  # the rows of the last training step, and the shapes and dtypes of its inputs
        self._last_looks: dict[str, tuple[tuple[int, ...], bool, int]] = {}
        self._last_weighted = False
        self._target: tuple[tuple[int, ...], str] | None = None  # the shape of a row, and the dtype that programs read
        self._weight_slot: int | None = None  # the weights' number in a batch, for programs with weights
        self._slots = tuple(range(len(self.names)))  # the numbers of the fields in a batch
        self._dtypes: tuple[str, ...] = ()  # the dtypes in which programs read the fields
        self._looks: dict[str, tuple[tuple[int, ...], bool, int]] = {}  # of inputs: row, integers, number in a batch
        self.rates = Rates(optimizer)

    @property
    def grads(self) -> dict[str, Array]:
        """The live gradients that the next steps will make, by parameter. Reading them turns ``fuse_update`` off, because it
        would not make them. ``NotBuilt`` with replicas or shards, which sum them in parts, in the cache."""
        if self.divides or self.workers:
            raise NotBuilt("session.grads is planned for replicas and shards, with the gradients of whole batches")
        if self.fuse_update is not False:
            object.__setattr__(self, "fuse_update", False)  # other code may only read it
            self._programs.clear()
        return self._grads

    @property
    def dtype(self) -> str:
        """The dtype of the parameters and of the arithmetic."""
        return self._programs.dtype

    def most_pending(self) -> int:
        return self.accumulate - 1

    def gradient_looks(self) -> dict[str, Array]:
        return self._grads

    def waiting(self) -> tuple[float, dict[str, Array]]:
        if not self.pending:
            return 0.0, {}
        if self.peers is not None and self.model.store.fits:
            self.peers.require_rest(self.pending)
        return self._native.pending_weight, joined(self._planes)

    def planes(self, gradients: Mapping[str, Array]) -> list[dict[str, Array]]:
        return split(gradients)

    def wait(self, pending: int, weight: float, gradients: Mapping[str, Array]) -> None:
        take(self._planes, split(gradients))
        self._native.pending, self._native.pending_weight = pending, weight

    def counters(self) -> dict[str, int]:
        return {"step": self.step_count, "draw": self.draw_count, "fresh": self.fresh}

    def restore(self, counters: Mapping[str, int]) -> None:
        self._drop_steps()
        self.forget()
        self.step_count, self.draw_count = counters["step"], counters["draw"]
        self.fresh, self.seed = counters["fresh"], counters["seed"]
        if self.divides:
            self._meetings.mend()

    def require_whole(self) -> None:
        self.settle()
        if self.divides and self._meetings.torn:
            who = "replicas" if self.peers is None else "ranks"
            raise GradringError(
                f"[Trainer] the parameters are torn: some {who} have applied an update and others have not, so they "
                "are neither trained nor saved; load a checkpoint, or reset the trainer"
            )

    @property
    def _meetings(self) -> Any:
        return self._programs.replicas if self.peers is None else self.peers

    def loaded(self) -> None:
        self.model.store.whole.trained = False

    @contextmanager
    def holding(self) -> Iterator[None]:
        store = self.model.store
        store.fits += 1
        try:
            yield
        finally:
            store.fits -= 1
            self._counted = None

    def forget(self) -> None:
        """Drop the gradients that wait for an update, as if their batches had never been read."""
        self._native.drop_pending()

    # The optimizer

    def set_optimizer(self, optimizer: Optimizer) -> None:
        if self.workers:
            require_asynchronous(self.parallel, self.model, self.loss, optimizer, self.accumulate)
        optimizer.assigned(list(self.params), self.frozen)
        goes_on = optimizer.goes_on_from(self.optimizer)
        arenas, views = None, self.state
        if not goes_on or optimizer.state_names != self.optimizer.state_names:
            ranks = Ranks(0 if self.peers is None else self.peers.rank, self.shards or self.replicas)
            memory = training_memory(self._programs.store.layout, self.dtype, optimizer, self.frozen, ranks)
            arenas, views = self._arenas.with_state(memory, optimizer.state_names, self.state if goes_on else {})

        def use() -> None:
            if arenas is not None:
                self._arenas.become(arenas)
            self._programs.use_state()
            if not goes_on:
                self._native.fresh = self.step_count
            self.state = views
            object.__setattr__(self, "optimizer", optimizer)  # other code may only read it
            self.rates.use(optimizer)
            self.rates_changed()

        to_the_end(use)

    # Programs

    def plan(self, rows: int | None = None) -> Plan:
        """The training program for a batch of ``rows`` (the largest one trained on): print it."""
        mode = _mode("train", self._last_weighted)
        plans = self._programs.plans
        rows = rows or max((n for found, n in plans if found == mode), default=0)
        if (mode, rows) not in plans:
            raise ValueError("[plan] no step of that batch size has run yet: plans are made when a batch shape comes")
        kept = self._programs.plan_of(mode, rows)
        if self.divides:
            graph = self._replica_graph(rows, 0, self._last_weighted)
        elif self.workers:
            graph = self._worker_graph(rows, 0, self._last_weighted)
        else:
            graph = self._graph("train", self._inputs(rows), self._last_weighted)
        made = plan(graph, None, mode="train")
        return replace(made, graph=graph, barriers=kept.barriers, lanes=kept.lanes, algorithms=self.algorithms())

    def _require_own_store(self) -> None:
        if self._programs.store.retired:
            raise GradringError(
                "[Trainer] the model's parameters have moved to other memory since this trainer was made, by init or "
                "astype with another dtype, or as layers of another model: make a new trainer"
            )

    # Fields of a batch

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

    def settle_class_weight(
        self, labels: Iterable[Array] | None, called: Callable[[int], object] = int, *, source: Any = None
    ) -> None:
        """For "balanced": weigh the classes so that all count equally in these labels, parts of a column in which ``called``
        names a sample; None: they are not known before a batch is made. Those of a ``source`` are counted once per fit."""
        if self._plain is None:
            return
        if labels is None:
            raise ValueError(
                "[Trainer] class_weight='balanced' counts the labels of the training data, and these do not lie in memory as "
                "arrays, or in files: give class_weight as a dict or an array, one weight for each class"
            )
        if self._classes is None:
            graph, output = trace(self.model, self._inputs(1), training=False, dtype=self.dtype)
            self._classes = self._plain.class_count(graph.values[output].shape)
        if self._counted is None or source is None or source is not self._counted[0]:
            # Count arrays in memory again in each epoch, because they may have other labels by now.
            self._counted = source, counted(labels, self._classes, called)
        self._weigh_classes(balanced(of_all_ranks(self.peers, self._counted[1]).tolist()))

    def _weigh_classes(self, weights: dict[int, float]) -> None:
        if self._plain is None:
            return
        loss = self._plain.with_class_weight(weights)
        if loss != self.loss:
            object.__setattr__(self, "loss", loss)  # other code may only read it
            self._programs.clear()
            self._stop_fast_path()
        object.__setattr__(self, "class_weights", tuple(weights.values()))
        self._weighed = True

    def take_class_weights(self, weights: Sequence[float]) -> None:
        self._weigh_classes(dict(enumerate(weights)))

    def _require_settled(self) -> None:
        if not self._weighed:
            raise ValueError(
                "[Trainer] class_weight='balanced' is settled by the labels that fit is given: call fit first, load a file "
                "of a trainer that has, or give a dict or an array"
            )

    def _stop_fast_path(self) -> None:
        """Reset the fast path of a step, because the next programs may read other fields than it accepts."""

    def _inputs(self, rows: int) -> dict[str, Input]:
        return {name: Input((rows, *row), integers, slot) for name, (row, integers, slot) in self._looks.items()}

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

        def build(replica: int) -> Graph:
            graph = (self._worker_graph if self.workers else self._replica_graph)(rows, replica, weighted)
            # For the whole batch: replica 0 may have no rows of it, and must refuse each target that another one would refuse.
            check_target((max(rows, 1), *graph.values["target"].shape[1:]), target, self.loss)
            return graph

        return self._programs.ensure_replicas(_mode("train", weighted), rows, build)

    def _replica_graph(self, rows: int, replica: int, weighted: bool) -> Graph:
        """The graph of the step of a replica of this process on a batch of ``rows``. Without shards these are the rows of this
        process alone, if there are several. -1 means none."""
        first = 0 if self.peers is None else self.peers.rank * self.own_replicas
        meetings: Any = self._programs.replicas or self.peers
        ranks = Ranks(first + replica, self.replicas, meetings.meeting(replica), self.shards)
        apart = self.peers is not None and not self.shards  # rows are those of this rank, of a batch of unknown size
        step = cache(lambda own: self._graph("train", self._inputs(own), weighted, part=rows != 1 or apart))
        if apart and rows > 0:
            begin, end = Ranks(replica, self.own_replicas).rows(rows)
            rows = end - begin
        whole, parts = parts_of(step, ranks, rows if apart else max(rows, 0), whole=not apart)
        summed, add = getattr(self.loss, "reduction", "mean") == "sum", self.accumulate > 1
        return data_parallel(whole, ranks, parts=parts, check_finite=self._check_finite, accumulate=add, summed=summed)

    def _worker_graph(self, rows: int, worker: int, weighted: bool) -> Graph:
        """The graph of a worker's step on a batch of ``rows`` rows."""
        place = Worker(worker, self.workers, self._programs.replicas.view(worker))
        return asynchronous(self._graph("train", self._inputs(rows), weighted), place, self.parallel)

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
                self._programs.ensure_replicas(mode, rows, lambda replica: self._replica_graph(rows, replica, weighted))
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
        said: dict[str, Any] = {"dtype": self.dtype, "operands": narrow, "target": self._target}
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
            and self.device == devices.CPU,
            lanes=self.device == devices.CPU,
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

    def _passes(self) -> int:
        return self.draw_count


def _mode(mode: str, weighted: bool) -> str:
    """The mode of programs for batches with or without weights."""
    return f"{mode} weighted" if weighted else mode
