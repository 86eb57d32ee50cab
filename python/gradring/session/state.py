"""The state of a session: one model's arenas, programs and counts, and the optimizer that its steps apply."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from numpy.typing import NDArray

from gradring import _core, devices
from gradring.arguments import choice
from gradring.errors import GradringError, NotBuilt
from gradring.float32_products import settled
from gradring.graph.data_parallel import Ranks
from gradring.graph.memory import training_memory
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
from gradring.session.batch import WEIGHT
from gradring.session.class_weights import counted, of_all_ranks
from gradring.session.counts import CountedSession
from gradring.session.forward import Forward
from gradring.session.peers import Peers
from gradring.session.planes import joined, split, take
from gradring.session.programs import Programs
from gradring.session.rates import Rates
from gradring.session.replicable import facts_of, require_asynchronous, require_dtype, require_native

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
        self.operands = options.operands
        divides = max(replicas, shards) > 1 or (comm is not None and comm.size > 1)
        require_dtype(model, self.device, options, products, parallel, divides)
        self.products = settled("Trainer", products) if self.device == devices.CPU else "fma"
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
        defers, place = options.scales and options.accumulate > 1, Ranks(own, planes)
        memory = training_memory(store.layout, store.dtype, optimizer, self.frozen, place, deferred=defers)
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
        self._begin_scaling({})
        self._forward = Forward(model, store, self.threads, self.operands)
        self.params, self.buffers = store.arrays, store.buffers
        self._grads = self._arenas.gradients(memory)
        self._waits = self._grads | self._arenas.moved(memory)  # what waits for the rest of a group of micro-batches
        self._planes = [self._waits]  # those of each replica or shard
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
        """The live gradients that the next steps will make, by parameter, times ``loss_scale``. Reading them turns
        ``fuse_update`` off, because it would not make them. ``NotBuilt`` with replicas or shards: they sum them in parts."""
        if self.divides or self.workers:
            raise NotBuilt("session.grads is planned for replicas and shards, with the gradients of whole batches")
        self.require_usable()
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
        return self._waits

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
        return {"step": self.step_count, "draw": self.draw_count, "fresh": self.fresh, **self._scaling()}

    def restore(self, counters: Mapping[str, int]) -> None:
        self._drop_steps()
        self.forget()
        self.step_count, self.draw_count = counters["step"], counters["draw"]
        self.fresh, self.seed = counters["fresh"], counters["seed"]
        self._begin_scaling(counters)
        if self.divides:
            self._meetings.mend()

    def require_whole(self) -> None:
        self.require_usable()
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
        self.require_usable()
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

    def require_usable(self, who: str = "Trainer") -> None:
        devices.require_no_capture(self.device, who)
        if self._programs.store.retired:
            now = self.model._store  # not model.store, which may make new memory
            place = self.device if now is None else now.device
            raise GradringError(
                f"[Trainer] the model's parameters have moved to other memory on {place} since this trainer was made on "
                f"{self.device}: by to, by init or astype with another dtype, or as layers of another model: make a new "
                f"trainer with device={place!r}, because moving them back makes new memory, too; to go on with the "
                "optimizer's state, save the trainer before the move and load that file into the new one"
            )

    # The weights of classes, if the labels decide them

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

    def _passes(self) -> int:
        return self.draw_count
