"""The session behind ``Trainer(step=fn, params=..., comm=comm)``: each rank's function computes gradients of its own batches,
and all ranks make the same update.

Parameters and optimizer state are each rank's own arrays, as they were given. The gradients are summed by one all_reduce, which
gives every rank the same bits, so all ranks keep the same parameters.
"""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.errors import PeerStopped
from gradring.optim import Optimizer
from gradring.options import Options
from gradring.session.base import REPORT_SECONDS, Progress
from gradring.session.data import batches_of, require_batches
from gradring.session.peers import Peers
from gradring.session.purposes import Purpose
from gradring.session.replicable import facts_of_training
from gradring.session.user import StepResult, UserFunction, UserSession
from gradring.session.user_rank_planes import SmallPlanes

__all__ = ["UserSessionOfRanks"]

Array = NDArray[Any]

try:  # what ``signal`` calls: it makes no enumeration of each handler, which takes 2 us
    _signals: Any = importlib.import_module("_signal")
except ImportError:
    _signals = signal
_NUMBERS = int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGHUP)


class UserSessionOfRanks(UserSession):
    """A ``UserSession`` whose updates use the gradients of all ranks of ``comm``, weighted by their numbers of samples.

    Rank 0's initial values win. A rank whose source ends early takes part with weight zero.
    """

    peers: Peers

    def __init__(
        self,
        function: UserFunction,
        params: Mapping[str, Any],
        *,
        optimizer: Optimizer,
        options: Options,
        frozen: str | Sequence[str] = (),
        comm: Any,
        replicas: int = 1,
        shards: int = 0,
    ) -> None:
        super().__init__(
            function, params, optimizer=optimizer, options=options, frozen=frozen, replicas=replicas, shards=shards
        )
        self.peers = Peers(comm)
        first = self.peers.agree(
            {
                **{f"params[{name!r}]": f"{array.shape} of {array.dtype}" for name, array in self.params.items()},
                **facts_of_training(optimizer, list(self.frozen), options),
                "replicas": replicas,
                "shards": shards,
            }
        )
        self.seed: int = first["seed"]  # of the order of arrays, of which each rank has its share
        for array in self.params.values():
            self.peers.comm.broadcast(array, root=0)
        self._planes = _planes(self.peers.comm, self._trained)
        self._small = SmallPlanes.of(self.peers, self._trained) if options.accumulate == 1 and not shards else None
        self._group = 0.0  # the samples of all ranks in the group of batches that waits
        self._fits = 0
        self._seconds["reduction"] = 0.0

    @property
    def fitting(self) -> bool:
        return self._fits > 0

    @contextmanager
    def holding(self) -> Iterator[None]:
        self._fits += 1
        try:
            yield
        finally:
            self._fits -= 1

    @property
    def waiting_form(self) -> str:
        return "sum"

    def gather(self) -> None:
        """Move the gradients that wait on other ranks to rank 0, before it saves."""
        self._require_all_whole()
        if self._pending:
            summed = self._summed()
            self._weight = self._group if self.peers.rank == 0 else 0.0
            self._gradients = summed if self.peers.rank == 0 else {k: np.zeros_like(v) for k, v in summed.items()}

    def _require_all_whole(self) -> None:
        torn = self.peers.who(Purpose.SAVE, bool(self._torn))
        if torn is not None:
            self.peers.agreed = True
            self.require_whole()
            raise PeerStopped(f"[Trainer.save] the parameters of rank {torn} are torn: load a checkpoint", rank=torn)

    def leave(self, error: BaseException) -> None:
        self.forget()
        self.peers.stop(error)

    def step(self, batch: Any) -> float:
        """Run this rank's part of one batch. Returns the mean loss over all ranks."""
        began = time.perf_counter()
        with self.peers.told(self.leave):
            self.require_whole()
            if self._pending == self._options.accumulate:  # the file that was loaded is from before the update
                self.flush()
            result = self._computed_part(batch)
            if result is not None:
                self._require_finite(result.mean)
            self._seconds["compute"] += time.perf_counter() - began
            loss = self._together(result)
            assert loss is not None  # this rank has not ended
            return loss

    def _computed_part(self, batch: Any) -> StepResult | None:
        """The result of this rank's rows, or None if it has none."""
        return self._evaluate(batch)

    def _idle(self) -> float | None:
        """Take part in a batch of which this rank has nothing. Returns None if no rank had any batch left."""
        return self._together(None)

    def _together(self, result: StepResult | None) -> float | None:
        """A batch of which this rank has computed ``result``, or of which it has nothing. Returns the mean loss, or None if no
        rank had any batch left. A signal waits until the update is done, so that all ranks stop after the same one."""
        with _DeferredSignals():
            return self._meet(result)

    def _meet(self, result: StepResult | None) -> float | None:
        if self._small is not None:
            return self._meet_once(self._small, result)
        began = time.perf_counter()
        weight, loss = (0.0, 0.0) if result is None else (result.samples, result.total)
        met = self.peers.meet(Purpose.STEP, loss, weight, int(result is None))
        if all(ended for _, _, ended, *_ in met):
            return None
        total, losses = sum(one[1] for one in met), sum(one[0] for one in met)
        mean = losses / total
        self._require_all_finite(mean)
        self._group += total
        self._seconds["reduction"] += time.perf_counter() - began
        if result is None:
            result = StepResult(0.0, {name: np.zeros_like(array) for name, array in self._trained.items()}, 0.0)
        before = self._epoch_sums
        self._add(result)
        # The epoch's sums are those of all ranks.
        self._epoch_sums = (before[0] + losses, before[1] + total, *self._epoch_sums[2:])
        if self._pending == self._options.accumulate:
            self.flush()
        return mean

    def _meet_once(self, small: SmallPlanes, result: StepResult | None) -> float | None:
        """The same where one meeting exchanges the gradients, too; each batch has its own update then."""
        began = time.perf_counter()
        weight, loss = (0.0, 0.0) if result is None else (result.samples, result.total)
        met = self.peers.meet(Purpose.STEP, loss, weight, int(result is None), small.write(result))
        losses, total, halves, ended = 0.0, 0.0, [], True
        for one in met:
            losses, total, ended = losses + one[0], total + one[1], ended and bool(one[2])
            halves.append(one[3])
        if ended:
            return None
        mean = losses / total
        self._require_all_finite(mean)
        grads, finite = small.means(halves, total)
        now = time.perf_counter()
        self._seconds["reduction"] += now - began
        self.peers.agreed = True  # all ranks have the same sums, so all find the same fault in them
        updates = self._updates_by(grads, finite)
        self.peers.agreed = False
        sums = self._epoch_sums
        sums = (sums[0] + losses, sums[1] + total, *sums[2:4], *sums[:4])
        self._apply(updates, {"_computed": self._computed + 1, "_epoch_sums": sums})
        self._seconds["update"] += time.perf_counter() - now
        return mean

    def _require_all_finite(self, loss: float) -> None:
        """As ``_require_finite``, for a loss that all ranks know."""
        self.peers.agreed = True
        self._require_finite(loss)
        self.peers.agreed = False

    def _add(self, result: StepResult) -> None:
        return super()._add(result.as_sum())

    def _apart(self, grad: Any) -> Any:
        """The gradient in C order. Its sum over the samples is a copy, so it may be a view of a parameter."""
        return np.asarray(grad, order="C")

    def flush(self) -> None:
        if not self._pending:
            return
        began = time.perf_counter()
        summed = self._summed()
        self._seconds["reduction"] += time.perf_counter() - began
        began = time.perf_counter()
        self._gradients, self._weight = summed, self._group
        self.peers.agreed = True  # all ranks have the same sums, so all find the same fault in them
        updates = self._updates_to_make()
        self.peers.agreed = False
        self._apply(updates)
        self._group = 0.0
        self._seconds["update"] += time.perf_counter() - began

    def _summed(self) -> dict[str, Array]:
        """The sums over all ranks of the gradients that wait."""
        summed = {}
        for names, plane in self._planes:
            ends = np.cumsum([self._trained[name].size for name in names]).tolist()
            for name, end in zip(names, ends, strict=True):
                plane[end - self._trained[name].size : end] = self._gradients[name].ravel()
            self.peers.comm.all_reduce(plane)
            for name, end in zip(names, ends, strict=True):
                look = self._trained[name]
                summed[name] = plane[end - look.size : end].reshape(look.shape).copy()
        return summed

    def forget(self) -> None:
        super().forget()
        self._group = 0.0

    def wait(self, pending: int, weight: float, gradients: Mapping[str, Array]) -> None:
        super().wait(pending, weight, gradients)
        self._group = weight
        if self.peers.rank > 0:  # the file has the sums of all ranks
            self._weight = 0.0
            self._gradients = {name: np.zeros_like(grad) for name, grad in self._gradients.items()}

    def waiting(self) -> tuple[float, dict[str, Array]]:
        if not self._pending:
            return 0.0, {}
        if self.peers.apart:  # the sums of the other ranks are lost
            return self._weight, self._gradients
        if self.fitting:
            self.peers.require_rest(self._pending)
        return self._group, self._gradients

    def source(self, caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
        return self.peers.share_of(super().source(caller, data, batch_size, shuffle=shuffle, seed=seed))

    def train(self, source: Any, epoch: int, start: int, progress: Progress) -> dict[str, float]:
        done, told, ready = start, time.perf_counter(), time.perf_counter()
        for batch in self._batches(source, epoch, start):
            self._seconds["data"] += time.perf_counter() - ready
            self.step(batch)
            done += 1
            ready = time.perf_counter()
            if ready - told > REPORT_SECONDS:
                self.tell(progress, done, {"loss": self._mean_loss()})
                told = ready = time.perf_counter()
        while (self.limit is None or done < self.limit) and self._idle() is not None:
            done += 1
        self.flush()
        require_batches("fit", done)
        return {"loss": self._mean_loss()}

    def _batches(self, source: Any, epoch: int, start: int) -> Iterator[Any]:
        return batches_of(source, epoch, start, self.limit)

    def evaluate(self, source: Any, batch_size: int = 1024) -> dict[str, float]:
        if self.peers.apart:
            return super().evaluate(source, batch_size)
        loss, weight, count = 0.0, 0.0, 0
        with self.peers.told(self.peers.stop):
            for batch in batches_of(source, in_order=True):
                result = self._evaluate(batch)
                loss, weight = loss + result.total, weight + result.samples
                count += 1
        sums = self.peers.add({"loss_sum": loss, "loss_weight": weight, "samples": count})
        require_batches("evaluate", int(sums["samples"]))
        return {"loss": sums["loss_sum"] / sums["loss_weight"]}


class _DeferredSignals:
    """Signals that come during the block are handled after it, even if it raises; a second one is handled at once."""

    def __enter__(self) -> None:
        self._known: dict[int, Any] = {}
        self._came: list[tuple[int, FrameType | None]] = []
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _NUMBERS:
            handler = _signals.getsignal(number)
            if callable(handler):
                self._known[number] = handler
        try:
            for number in self._known:
                _signals.signal(number, self._note)
        except BaseException:  # of a handler that was still in its place
            _restore(self._known)
            raise

    def __exit__(self, *_: object) -> None:
        _restore(self._known)
        if len(self._came) == 1:  # its exception takes the place of the block's
            number, frame = self._came[0]
            self._known[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append((number, frame))
        if len(self._came) > 1:
            self._known[number](number, frame)


def _restore(handlers: Mapping[int, Any]) -> None:
    """Install all handlers. One that is in its place again may raise before the others are."""
    try:
        for number, handler in handlers.items():
            _signals.signal(number, handler)
    except BaseException:
        _restore(handlers)
        raise


def _planes(comm: Any, trained: Mapping[str, Array]) -> list[tuple[list[str], Array]]:
    """For each dtype the names of its parameters, and an array of all their gradients that collectives do not copy."""
    planes = []
    for dtype in dict.fromkeys(array.dtype for array in trained.values()):
        names = [name for name, array in trained.items() if array.dtype == dtype]
        planes.append((names, comm.empty(sum(trained[name].size for name in names), dtype)))
    return planes
