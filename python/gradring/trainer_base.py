"""What a trainer shows of its training, and who may use it at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from gradring.arguments import whole
from gradring.attributes import Settled, guarded
from gradring.callbacks.base import Callback
from gradring.errors import GradringError
from gradring.fit_run import Clock
from gradring.gate import Gate
from gradring.history import History
from gradring.losses import Loss
from gradring.optim import Optimizer
from gradring.optim.base import require_optimizer
from gradring.session import Session
from gradring.session.base import BaseSession
from gradring.session.purposes import Purpose
from gradring.session.replicable import facts_of_optimizer
from gradring.timings import Timings
from gradring.training_state import TrainingState

if TYPE_CHECKING:
    from gradring.nn.params import Params

__all__ = ["TrainerBase", "refuse_with_step"]

T = TypeVar("T")


class TrainerBase(Settled):
    """The part of a ``Trainer`` that trains nothing: its position, parameters, optimizer, plan and times."""

    _session: BaseSession
    _state: TrainingState
    _lock: threading.RLock
    _gate: Gate
    _clock: Clock

    _fixed = frozenset({"model", "step"})

    _shown: Session | None = None

    @property
    def epoch(self) -> int:
        """Complete epochs."""
        return self._state.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._state.epoch = whole("Trainer", "epoch", epoch, 0, 2**63 - 1)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer. Another one takes effect from the next step, also while ``fit`` runs. It keeps those of the
        old optimizer's arrays that it also has; all others begin at zero. With ``comm``, all ranks assign the same one."""
        return self._state.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer) -> None:
        with self._alone("optimizer"):
            peers = self._session.peers
            with self._state.told(keep=True):
                require_optimizer(optimizer)
                if peers is not None and not peers.apart:
                    peers.agree(facts_of_optimizer(optimizer), Purpose.OPTIMIZER)
                self._session.set_optimizer(optimizer)

    @property
    def loss_scale(self) -> float:
        """What the gradient of the loss is multiplied by, with ``dtype="float16"``; 1.0 with other dtypes."""
        self._session.settle()
        return self._session.loss_scale

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the parameters that training leaves as they are."""
        return self._session.frozen

    @property
    def seed(self) -> int:
        """The seed of dropout and of the order of plain arrays."""
        return self._state.seed

    @property
    def history(self) -> History:
        """The metrics of the last run of ``fit``, including those of the runs that it resumed."""
        return self._state.history

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """The callbacks of the current run of ``fit``; empty if none runs."""
        return self._state.callbacks

    @property
    def params(self) -> Params:
        """The parameters by name: the live arrays, which the next step reads and changes. Assigning to a name writes into
        its array."""
        self._session.require_usable("Trainer.params")
        return self._session.current_params()

    @params.setter
    def params(self, values: Params) -> None:
        if values is not self.params:  # `params |= {...}` assigns the same object
            raise AttributeError(f"[{type(self).__name__}] params is read-only: params.update(values) writes into it")

    @property
    def buffers(self) -> Params:
        """The model's buffers by name, such as running moments: live arrays that are saved but never trained."""
        self._session.require_usable("Trainer.buffers")
        self._session.settle()
        return self._session.buffers

    @property
    def session(self) -> Session:
        """The session that runs the steps; its ``grads`` are the gradients of the last one. ``TypeError`` with ``step=``."""
        session = self._of_model()
        session.require_usable("Trainer.session")
        self._shown = self._shown or guarded(session)
        return self._shown

    def _of_model(self) -> Session:
        if not isinstance(self._session, Session):
            raise TypeError("[Trainer.session] a trainer with a step of your own has no session of a model")
        return self._session

    @property
    def writes(self) -> bool:
        """Whether this process writes files: of several ranks, rank 0 does for all."""
        peers = self._session.peers
        return peers is None or peers.rank == 0 or peers.apart

    @property
    def step_count(self) -> int:
        """Updates so far."""
        return self._session.step_count

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that training changes: ``params``, ``optimizer``, and the counts of steps, epochs and
        batches."""
        with self._gate.reading():
            self._session.require_usable("Trainer.state_dict")
            return self._state.as_dict()

    def timings(self) -> Timings:
        """Seconds per phase since the trainer was made. Its text form also names the bottleneck. Time between calls of
        ``step``, and its Python part, are not counted. On a CUDA device, ``compute`` is its own clock's time of steps."""
        return self._clock.timings(self._session.timings())

    def sharing(self) -> dict[str, Any]:
        """How the workers of an asynchronous training have shared the parameters since the trainer was made.

        ``updates`` is how many there were, ``staleness`` how many of them came after 0, 1, 2, ... others since their worker
        had read the parameters (the last number: 16 and more), and ``most_stale`` the largest. ``waits`` counts how often
        a worker waited because of ``staleness=``. ``retried`` counts elements that another worker had changed before a
        compare-and-swap, which then began again. ``lost`` counts elements whose store overwrote a change that the worker
        had not seen; with ``"hogwild"`` one update in 16 looks for that, at ``counted`` elements, because looking costs as
        much as a compare-and-swap, and otherwise it cannot happen. ``TypeError`` without an asynchronous ``parallel=``.
        """
        return self._of_model().sharing()

    def plan(self) -> Any:
        """The plan of a step, which can be printed, with instructions, buffers, kernels, bytes and FLOPs."""
        return self._session.plan()

    def __repr__(self) -> str:
        count = sum(array.size for array in self._session.params.values())
        return f"Trainer({count} parameters, {self.optimizer}, epoch={self.epoch}, step_count={self.step_count})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "[Trainer] it has native memory and threads, which cannot be copied or pickled: use "
            "save(path) and load(path), state_dict(), or a copy.deepcopy of its model"
        )

    def _loss_of(self, method: str) -> Loss:
        """The loss, whose outputs must be scores of classes."""
        loss = self._session.loss if isinstance(self._session, Session) else None
        if loss is None or not loss.counts_right:
            what = "a step of your own" if loss is None else loss.kind
            raise TypeError(f"[Trainer.{method}] the outputs of {what} are no scores of classes: use predict")
        return loss

    def _on_all(self, purpose: Purpose, method: str, call: Callable[[], T], others: Callable[[], T] | None = None) -> T:
        """Call ``call`` here, or on rank 0 and then ``others``, or the same, on all other ranks."""
        peers = self._session.peers
        if peers is None or peers.apart:
            return call()
        return peers.in_turn(purpose, f"Trainer.{method}", call, call if others is None else others)

    @contextmanager
    def _alone(self, method: str) -> Iterator[None]:
        """Guards methods that train: one thread at a time may run them, and callbacks within ``fit`` may call them again."""
        if not self._lock.acquire(blocking=False):
            raise GradringError(
                f"[Trainer.{method}] this trainer is in use by another thread; a trainer serves one at a time"
            )
        try:
            yield
        finally:
            self._lock.release()


def refuse_with_step(given: Mapping[str, Any], default: Callable[[str], Any]) -> None:
    """``TypeError`` for an argument that would mean nothing, because the user's function computes the step."""
    for name, value in given.items():
        if value is not default(name) and not (isinstance(value, str) and value == default(name)):
            raise TypeError(
                f"[Trainer] {name} goes with a model: with step=, the function computes loss and gradients, and params "
                f"have a dtype of their own; leave {name} out"
            )
