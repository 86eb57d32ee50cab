"""The base class of callbacks, and the description of a run that they get."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, Protocol

from numpy.typing import NDArray

from gradring.attributes import Settled
from gradring.history import History
from gradring.nn.params import Params
from gradring.optim import Optimizer

__all__ = ["Callback", "Run", "Training", "require_arguments"]


class Training(Protocol):
    """The attributes of a trainer that callbacks of this package use. A callback gets the whole ``gr.Trainer``."""

    optimizer: Optimizer
    epoch: int

    @property
    def params(self) -> Params: ...

    @property
    def buffers(self) -> Params: ...

    @property
    def callbacks(self) -> tuple[Callback, ...]: ...

    @property
    def history(self) -> History: ...

    @property
    def step_count(self) -> int: ...

    @property
    def writes(self) -> bool: ...

    def save(self, path: str | os.PathLike[str]) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def evaluate(self, data: Any, *, batch_size: int = 1024) -> dict[str, float]: ...

    def predict(self, x: Any, *, batch_size: int = 1024) -> NDArray[Any]: ...


class Row(dict[str, float]):
    """The metrics of an epoch, which callbacks read: what they would add or change here would reach no history."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "[Run] metrics is the row of the history, and read-only: give the trainer a metric of your own, "
            "Trainer(metrics=[function]), or keep the number in the callback and its state_dict"
        )

    def __reduce__(self) -> Any:  # a copy is a plain dict, which may be changed
        return dict, (dict(self),)

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse


@dataclass
class Run(Settled):
    """A call of ``Trainer.fit``, as callbacks see it.

    Epochs are counted over the trainer's life: this run began with ``first_epoch`` (0 if it was resumed), is in ``epoch``
    and ends before ``last_epoch``. ``batch`` of its ``batches`` are done; ``batches`` is None if the ``source`` of the
    batches does not know the number. ``metrics`` holds the running means of the epoch, and at its end its row of the
    history; ``names`` are those that the row will have. A callback ends the run after the current epoch by setting
    ``stop`` to a reason. When the run has ended, ``ended`` says how: ``"complete"``, or the exception's name. A callback
    that changes parameters does so within ``with run.writing():``, so that no other thread that predicts or saves sees
    them half changed.
    """

    trainer: Training
    history: History
    first_epoch: int
    last_epoch: int
    batches: int | None
    epoch: int = 0
    batch: int = 0
    source: Any = None
    metrics: dict[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    stop: str = ""
    ended: str = ""
    writing: Callable[[], AbstractContextManager[None]] = nullcontext

    _settable: ClassVar[frozenset[str]] = frozenset({"stop", "ended", "epoch", "batch", "metrics", "last_epoch"})

    def require_metric(self, who: str, metric: str) -> None:
        """``ValueError``, before the first step, if no epoch will have this metric."""
        if metric in self.names:
            return
        close = difflib.get_close_matches(metric, self.names, 1, 0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        if metric.startswith("val_") and not any(name.startswith("val_") for name in self.names):
            hint = "; give fit validate=..."
        raise ValueError(f"[{who}] there is no metric {metric!r}, only {list(self.names)}{hint}")


_CALLED = ("on_fit_start", "on_report", "on_epoch_end", "on_fit_end")


_OTHERS = {  # what other libraries give to such a method in place of the run, and where it is here
    "epoch": "run.epoch is the epoch's number from 0",
    "logs": "run.metrics are the metrics by name",
    "batch": "run.batch is how many batches are done",
    "trainer": "run.trainer is the trainer",
    "pl_module": "run.trainer.model is the model",
}


def require_arguments(callback: Callback) -> None:
    """``TypeError``, before the first step, if a method that a run calls would not take the run, and nothing else."""
    import inspect

    for name in _CALLED:
        method = getattr(callback, name)
        if str(getattr(method, "__module__", "")).startswith("gradring."):
            continue
        try:
            signature = inspect.signature(method)
        except (TypeError, ValueError):  # a compiled function, which has none
            continue
        given = [known for known in _OTHERS if known in signature.parameters]
        try:
            signature.bind(None)
        except TypeError:
            given = given or [""]
        if given:
            where = ", ".join(filter(None, (_OTHERS.get(known) for known in given)))
            raise TypeError(
                f"[{type(callback).__name__}] {name} has the arguments {signature}, and gets one, the run: write "
                f"def {name}(self, run){where and '; '}{where}"
            )


class Callback(Settled):
    """Override what you need. Each method gets one argument, the run, and is called in the thread that called ``fit``,
    between two training steps; other arguments are an error before the first step.

    ``state_dict`` returns what a callback must remember beyond its arguments: numbers, texts, lists and dicts of them,
    and arrays as values of the dict itself. A checkpoint holds it, and ``fit(resume=...)`` gives it back after
    ``on_fit_start``. A method that begins with ``on_`` and has another name is an error, because nothing would call it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, method in vars(cls).items():
            if name.startswith("on_") and callable(method) and not hasattr(Callback, name):
                close = difflib.get_close_matches(name, _CALLED, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"a run calls {', '.join(_CALLED)}"
                raise TypeError(f"[Callback] {cls.__name__} has {name}, which nothing calls: {hint}")

    def on_fit_start(self, run: Run) -> None:
        """Called before the first step."""

    def on_report(self, run: Run) -> None:
        """Called about every 100 ms."""

    def on_epoch_end(self, run: Run) -> None:
        """Called after each epoch and its validation."""

    def on_fit_end(self, run: Run) -> None:
        """Called after the last epoch, and also when an exception ends the run."""

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs to continue as this one would."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that ``state_dict`` returned."""

    def _is_own(self, state: Mapping[str, Any]) -> bool:
        """Whether a state in a checkpoint is that of this callback, and not of another one of its class. False where
        nothing tells, because then the order decides."""
        return False
