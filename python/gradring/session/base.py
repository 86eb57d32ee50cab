"""The interface between a trainer and its session, and the position within an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

from numpy.typing import NDArray

from gradring.errors import reason
from gradring.nn.params import Params
from gradring.optim import Optimizer
from gradring.session.measured import NO_SUMS, EpochSums, Measured
from gradring.session.peers import Peers
from gradring.session.rates import Rates
from gradring.session.whole_epochs import WholeEpochs

__all__ = ["REPORT_SECONDS", "BaseSession", "Progress", "to_the_end"]

REPORT_SECONDS = 0.1

# progress(batches done in this epoch, running metrics)
Progress: TypeAlias = Callable[[int, dict[str, float]], None]


class BaseSession(ABC):
    """The steps of one training run here. It has the parameters, the optimizer's state, and the number of updates.

    ``Session`` trains a model; ``UserSession`` updates parameters with gradients that the user's function computes.
    """

    params: Params
    buffers: Params = Params()
    frozen: tuple[str, ...] = ()  # names of parameters that no step changes
    state: dict[str, NDArray[Any]]
    names: tuple[str, ...] = ("x", "y")  # the names of a batch's fields, the targets last
    _limit: int | None = None  # the most batches of an epoch
    optimizer: Optimizer
    rates: Rates
    shards: int = 0  # the parts of each batch whose sums are added in a tree, if it has such parts
    class_weights: tuple[float, ...] = ()  # those of "balanced", once labels were counted
    _first = 0  # the count of passes before the epoch's first batch
    _told: tuple[int, Measured] | None = None
    _listening: Callable[[], bool] | None = None  # during fit: returns whether anything listens to reports

    # What a run of fit sets

    @property
    def limit(self) -> int | None:
        """The most batches of an epoch."""
        return self._limit

    def set_limit(self, limit: int | None) -> None:
        """End each epoch after this many batches."""
        self._limit = limit

    def listen(self, heard: Callable[[], bool] | None) -> None:
        """Make reports only where ``heard()`` is true; None: always."""
        self._listening = heard

    # State

    @property
    def saved(self) -> Params:
        """Parameters and buffers: all that is part of a saved model."""
        return Params({**self.params, **self.buffers})

    @property
    @abstractmethod
    def step_count(self) -> int:
        """Updates of the parameters so far."""

    @property
    def loss_scale(self) -> float:
        """What the gradient of the loss is multiplied by."""
        return 1.0

    @abstractmethod
    def counters(self) -> dict[str, int]:
        """The counts that a checkpoint must hold in addition to the arrays."""

    @abstractmethod
    def restore(self, counters: Mapping[str, int]) -> None:
        """Take over counts that ``counters`` returned, after parameters and the optimizer's state were replaced as a whole.
        No gradients wait for an update then."""

    def require_usable(self, who: str = "Trainer") -> None:  # noqa: B027 (what follows needs a model or a device)
        """Raise the error for a model whose parameters lie in other memory by now: this session's would be neither read nor
        written. So, for one on a CUDA device, while the current stream captures a graph. ``who`` names the call."""

    def require_whole(self) -> None:  # noqa: B027 (most sessions update all parameters or none)
        """Raise the error for parameters of which only a part has been updated: they cannot be saved."""

    def settle(self) -> None:  # noqa: B027 (a step on the CPU returns when it is done)
        """Wait for steps that a device still runs, and raise the error of one that has failed."""

    def current_params(self) -> Params:
        """The parameters, when all steps so far are done: see ``settle``."""
        self.settle()
        return self.params

    def take_class_weights(self, weights: Sequence[float]) -> None:  # noqa: B027 (most sessions weigh no classes)
        """Take over ``class_weights`` of a checkpoint; they have no effect if labels do not decide them."""

    # The algorithms of matrix products that timing chose on a CUDA device

    def algorithms(self) -> str:
        """A record of them for plans and checkpoints; empty where there is none."""
        return ""

    def reads_algorithms(self, text: str) -> bool:
        """Whether a checkpoint's text is a record. Where no algorithms are chosen, any text will do."""
        return True

    def take_algorithms(self, text: str) -> bool:
        """Use the algorithms of a record, if it is of this device and library. Without one, use those of no earlier record,
        either. False if the library refuses them."""
        return True

    # Other ranks that train the same model

    peers: Peers | None = None

    @property
    def fitting(self) -> bool:
        """Whether a fit is running."""
        return False

    def gather(self) -> None:  # noqa: B027 (most sessions have all that they save)
        """Called on all ranks before rank 0 saves."""

    def leave(self, error: BaseException) -> None:  # noqa: B027 (most sessions are alone)
        """Called when ``error`` ends a run of this rank: the others must stop after the same update."""

    # Gradients that wait for the rest of their group (``accumulate``)

    @property
    @abstractmethod
    def pending(self) -> int:
        """Batches whose gradients wait for the rest of their group."""

    @abstractmethod
    def most_pending(self) -> int:
        """The most batches whose gradients can wait."""

    @abstractmethod
    def gradient_looks(self) -> dict[str, NDArray[Any]]:
        """Arrays of the shapes and dtypes that waiting gradients have."""

    @abstractmethod
    def waiting(self) -> tuple[float, dict[str, NDArray[Any]]]:
        """The weight and the live sums of the gradients that wait; no arrays where none do."""

    @property
    def waiting_form(self) -> str:
        """What the gradients of ``waiting`` are: ``"sum"`` over samples, or ``"mean"``."""
        return "sum"

    def planes(self, gradients: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
        """The gradients that ``waiting`` gave, each part of which has the names of ``gradient_looks``."""
        return [dict(gradients)]

    @abstractmethod
    def wait(self, pending: int, weight: float, gradients: Mapping[str, NDArray[Any]]) -> None:
        """Take over what ``pending`` and ``waiting`` gave. ``restore`` comes before it."""

    @abstractmethod
    def forget(self) -> None:
        """Drop the gradients that wait for an update, as if their batches had never come."""

    @abstractmethod
    def set_optimizer(self, optimizer: Optimizer) -> None:
        """Use this optimizer from the next step on. States of the old one that have the same names are kept; all
        others begin at zero."""

    @abstractmethod
    def rates_changed(self) -> None:
        """Must be called when ``rates`` will give other rates than before."""

    @abstractmethod
    def loaded(self) -> None:
        """Called after the parameters were loaded from a file or filled again."""

    @abstractmethod
    def holding(self) -> AbstractContextManager[None]:
        """Within the block, which is a fit, parameters cannot be filled again or moved."""

    # Data

    @abstractmethod
    def source(self, caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
        """The source of an epoch's batches."""

    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """The names of the metrics that an epoch measures."""

    def require_fit(self, source: Any) -> None:
        """Raise the error now that validation data would raise after an epoch."""
        try:
            self._require_fit(source)
        except (TypeError, ValueError) as error:
            if type(error) not in (TypeError, ValueError):  # those of its own kinds, such as UnicodeError
                raise
            raise type(error)(f"[Trainer.fit] validate: {reason(error)}") from error

    @abstractmethod
    def _require_fit(self, source: Any) -> None:
        """Do so without naming the argument."""

    # Runs

    @abstractmethod
    def train(self, source: Any, epoch: int, start: int, progress: Progress) -> dict[str, float]:
        """An epoch from batch ``start`` on, after ``begin``. An incomplete group of accumulated batches is applied at its
        end."""

    def trains_whole_epochs(self, source: Any) -> bool:
        """Whether ``train_epochs`` can train on the source, of which there was an epoch before."""
        return False

    def train_epochs(self, source: Any, epochs: WholeEpochs) -> None:
        """Train on whole epochs, until one does not end as it should: ``train`` then continues it, or this raises its error."""
        raise NotImplementedError

    def metrics_of(self, sums: Mapping[str, float]) -> dict[str, float]:
        """The metrics of an epoch of which these are the sums."""
        raise NotImplementedError

    @abstractmethod
    def evaluate(self, source: Any, batch_size: int = 1024) -> dict[str, float]:
        """The metrics over a source; nothing is updated."""

    @abstractmethod
    def predict(self, x: Any, batch_size: int = 1024, called: Callable[[int], object] = int) -> NDArray[Any]:
        """The model's output for every row of ``x``; ``called`` gives what an error calls the sample of a row."""

    @abstractmethod
    def timings(self) -> dict[str, float]:
        """Seconds in training so far, by phase."""

    def trace(self, on: bool) -> None:  # noqa: B027 (a custom step has no instructions)
        """Set whether later steps record their instructions and barriers in the trace."""

    @abstractmethod
    def plan(self) -> Any:
        """The plan of a step, which can be printed."""

    # The position in the epoch. Steps of a callback do not change it.

    @abstractmethod
    def _passes(self) -> int:
        """Batches whose gradients were computed so far, including those that wait for an update."""

    @property
    @abstractmethod
    def sums(self) -> EpochSums:
        """Sums over the training batches since they were last set."""

    @sums.setter
    @abstractmethod
    def sums(self, sums: EpochSums) -> None: ...

    def _kept(self) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        """Predictions and targets of the epoch's batches so far, if a metric will need them."""
        return (), ()

    def begin(self, start: int, measured: Measured | None = None) -> None:
        """Continue an epoch at batch number ``start``; ``measured`` has the measurements of the batches before it.

        Gradients that wait for an update belong to the last of these batches; with ``start`` 0 they are dropped."""
        if start == 0:
            self.forget()
        self._first = self._passes() - start
        self.sums = NO_SUMS if measured is None or start == 0 else measured.sums

    def begun(self) -> int:
        """The number of the batch with which this epoch has begun, among all batches."""
        return self._first

    def begin_at(self, batch: int) -> None:
        """Note that the epoch has begun with another batch."""
        self._first = batch

    def batches(self) -> int:
        """How many batches of this epoch have updated the parameters, or wait for the rest of their group."""
        return self._passes() - self._first if self._told is None else self._told[0]

    def measured(self) -> Measured:
        """The measurements of these batches."""
        return Measured(self.sums, *self._kept()) if self._told is None else self._told[1]

    def _heard(self) -> bool:
        """Whether a callback listens to reports of an epoch: an epoch of a small data set takes less time than making one."""
        return self._listening is None or self._listening()

    def tell(self, progress: Progress, done: int, metrics: dict[str, float]) -> None:
        """Call ``progress``, which may run steps of its own."""
        before, self._told = self._passes(), (self.batches(), self.measured())
        try:
            with self._aside():
                progress(done, metrics)
        finally:
            self._first += self._passes() - before
            self._told = None

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Within the block, steps do not count for the measurements of the epoch."""
        sums, updates, waited = self.sums, self.step_count, self.pending > 0
        try:
            yield
        finally:
            # Such a step may complete the group that was waiting, or begin one. A group that waits now has then no batch of
            # the epoch.
            self.sums = sums if waited and self.step_count == updates else sums[:4] * 2


def to_the_end(change: Callable[[], object]) -> None:
    """Make a change that may be made twice: once more if an exception, such as one of a signal's handler, interrupts it."""
    try:
        change()
    except BaseException:
        change()
        raise
