"""Peers: the ranks of a communicator that train one model together, as one of them sees them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from gradring import _core
from gradring.errors import CollectiveMismatch, GradringError, NonFinite, PeerStopped
from gradring.loader import Loader
from gradring.session.purposes import FAILED, FAULTS, INTERRUPTED, NAMES, STOPS, Purpose

__all__ = ["SUMS", "Peers"]

SUMS = ("loss_sum", "loss_weight", "correct", "samples")
"""The sums of an evaluation."""


T = TypeVar("T")


_NONFINITE, _CALLBACK = (1, 4), 3
_MOST_ROWS = (1 << 47) - 1  # that a meeting carries
_PIECE = struct.Struct("<q6s6s6s")  # of a text, in one meeting: a whole number, and three of 48 bits


class Peers:
    """The ranks of ``comm``, which all make a session of the same model. They meet in a group of their own, so a user's
    collectives, in a callback for instance, do not come between."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm.twin()
        self.native = _core.Ranks(self.comm.group)
        self.rank: int = comm.rank
        self.size: int = comm.size
        self.writing = False  # this rank fills the parameters for all
        self.agreed = False  # whether all ranks know why this one will raise

    def agree(self, facts: Mapping[str, Any], purpose: Purpose = Purpose.MAKE) -> dict[str, Any]:
        """The facts of rank 0. ``ValueError`` names the first of them that differs on this rank; other ranks with equal facts
        get an error, too. ``seed`` may differ: that of rank 0 counts."""
        with self.told(self.stop):
            texts = [json.loads(text) for text in self._texts(json.dumps(facts), purpose)]
        first: dict[str, Any] = texts[0]
        for rank, theirs in enumerate(texts):
            for name in dict.fromkeys([*first, *theirs]):
                if name != "seed" and first.get(name) != theirs.get(name):
                    self.agreed = True
                    raise ValueError(
                        f"[Trainer] ranks train different things: {name} is {theirs.get(name, 'missing')} on rank {rank} and "
                        f"{first.get(name, 'missing')} on rank 0: all ranks must make the same trainer"
                    )
        return first

    def _texts(self, own: str, purpose: Purpose) -> list[str]:
        """The texts of all ranks. They travel in meetings, piece by piece, so that a rank that does something else or stops in
        their place is heard: a collective of the group would never match its meeting."""
        data = own.encode()
        sizes = [rows for *_, rows, _ in self.meet(purpose, rows=len(data))]
        found = [bytearray() for _ in sizes]
        for at in range(0, max(sizes), _PIECE.size):
            number, *rest = _PIECE.unpack(data[at : at + _PIECE.size].ljust(_PIECE.size, b"\0"))
            a, b, c = (int.from_bytes(part, "little") for part in rest)
            met = self.meet(purpose, correct=number, loss_sum=float(a), loss_weight=float(b), rows=c)
            for text, (one, two, first, three, _) in zip(found, met, strict=True):
                text += _PIECE.pack(first, *(int(part).to_bytes(6, "little") for part in (one, two, three)))
        return [bytes(text[:size]).decode() for text, size in zip(found, sizes, strict=True)]

    def rows(self, own: NDArray[Any] | None) -> NDArray[Any] | None:
        """The rows of all ranks, in rank order. None stands for no rows, and is returned if no rank has any."""
        look = None if own is None else [len(own), own.dtype.str, list(own.shape[1:])]
        looks = [json.loads(text) for text in self._texts(json.dumps(look), Purpose.ROWS)]
        known = [one for one in looks if one is not None]
        if not known:
            return None
        counts = [0 if one is None else one[0] for one in looks]
        padded = np.zeros((max(counts), *known[0][2]), np.dtype(known[0][1]))
        if own is not None:
            padded[: len(own)] = own
        every = self.comm.all_gather(padded)
        return np.concatenate([every[rank][:count] for rank, count in enumerate(counts)])

    def rows_of_ranks(self, parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
        """The rows of all batches of all ranks, in rank order. None in place of a part stands for no rows."""
        own = [part for part in parts if part is not None]
        return self.rows(np.concatenate(own) if own else None)

    def rows_of_batches(self, parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
        """The same in the order of the batches, of which each rank has a block: the order of one process."""
        counts = self.rows(np.array([0 if part is None else len(part) for part in parts], np.int64))
        found = self.rows_of_ranks(parts)
        if found is None or counts is None:
            return None
        pieces = np.split(found, np.cumsum(counts)[:-1])  # rank by rank
        return np.concatenate([piece for batch in range(len(parts)) for piece in pieces[batch :: len(parts)]])

    def share(self, sizes: Sequence[int], keep: Any = None) -> list[Any]:
        """New arenas of these sizes that all ranks have in common. ``keep`` is an arena that moves there too: it then has the
        bytes of rank 0 on all ranks."""
        arenas: list[Any] = self.native.share(list(sizes), keep)
        return arenas

    def feed(self, feed: Any, *, own_numbers: bool = False, whole: int = 0) -> Any:
        """The batches of this rank, until those of all ranks are over. With shards, batches that Python makes are blocks of
        batches of ``whole`` rows."""
        return _core.RankFeed(feed, self.native, own_numbers, whole)

    def block(self, whole: int, rank: int | None = None) -> int:
        """How many rows a rank, by default this one, has of a batch of ``whole`` rows that is cut into shards."""
        number = self.rank if rank is None else rank
        return whole * (number + 1) // self.size - whole * number // self.size

    def whole_rows(self, own: int) -> int:
        """The rows of a batch of all ranks, of which this one has ``own``. ``ValueError`` unless the rows of each rank are its
        block, because shards of another size would give other bits."""
        return self._whole_of([rows for *_, rows, _ in self.meet(Purpose.BATCH, rows=own)])

    def whole_rows_or_end(self, own: int | None) -> int | None:
        """The same. None says that this rank has no batch left, and is returned if no rank has one."""
        met = self.meet(Purpose.BATCH, rows=own or 0, correct=int(own is None))
        return None if all(ended for _, _, ended, *_ in met) else self._whole_of([rows for *_, rows, _ in met])

    def _whole_of(self, counts: Sequence[int]) -> int:
        whole = sum(counts)
        for rank, count in enumerate(counts):
            if count != self.block(whole, rank):
                self.agreed = True
                raise ValueError(
                    f"[Trainer] with shards, rank {rank} has {count} rows of a batch of {whole}: must be "
                    f"{self.block(whole, rank)}, because rank r of {self.size} has the rows from n r / {self.size} to "
                    f"n (r + 1) / {self.size} of n"
                )
        return whole

    def train(
        self, engine: Any, feed: Any, rates: Any, most_steps: int, seconds: float, weighted: bool, replicas: Any = None
    ) -> Any:
        """As ``_core.Engine.chunk``, on the ``replicas`` of this rank if it has some. Raises what has ended the training on
        other ranks."""
        self._require_whole()
        result, totals = self.native.chunk(engine, feed, rates, most_steps, seconds, weighted, replicas)
        self._settle(result)
        return result, totals

    def end_of_step(self) -> Any:
        """How the last step of the fast path has ended. Raises what has ended the training on other ranks."""
        self.agreed = bool(self.native.torn)
        result = self.native.end_of_step()
        self._settle(result)
        return result

    def flush(self, engine: Any, rows: int, rates: Any, weighted: bool, replicas: Any = None) -> Any:
        """As ``_core.Engine.flush``, on the ``replicas`` of this rank if it has some."""
        self._require_whole()
        result = self.native.flush(engine, rows, rates, weighted, replicas)
        self._settle(result)
        return result

    def _require_whole(self) -> None:
        self.agreed = self.native.torn  # on all ranks that are left
        if self.agreed:
            raise GradringError(
                "[Trainer] the parameters are torn: a rank failed inside an update or a load, which some ranks have made and "
                "others have not; load a checkpoint, or restart the ranks with resume"
            )

    def _settle(self, result: Mapping[str, Any]) -> None:
        self._raise_interrupt(bool(result["fault"]))
        self._require_met()
        if result["fault"]:
            self.agreed = True
            culprit = self.native.culprit
            if culprit >= 0 and culprit != self.rank and not self.native.reason_of(self.rank):
                raise self._fault_of(culprit)

    def _raise_interrupt(self, fault: bool = False) -> None:
        """Raise the exception of a signal that came in the meeting. It comes before the news that another rank has stopped,
        perhaps by the same signal, and before a ``fault`` in the step, which ends it on all ranks."""
        interrupt = self.native.interrupt()
        if interrupt is not None:
            self.agreed = fault or self.native.outcome not in ("met", "ended")
            raise interrupt

    def _fault_of(self, rank: int) -> Exception:
        kind = self.native.reason_of(rank)
        text = (
            f"[Trainer] rank {rank} found {FAULTS.get(kind, 'a fault')} in its batch, so no rank has changed anything"
        )
        if kind in _NONFINITE:
            return NonFinite(text)
        return PeerStopped(text, rank=rank) if kind == _CALLBACK else ValueError(text)

    def _require_met(self) -> None:
        outcome = self.native.outcome
        if outcome in ("met", "ended"):
            return
        self.agreed = True
        rank = self.native.culprit
        if outcome == "stopped":
            reason = self.native.reason_of(rank)
            why = STOPS.get(reason, "an error there")
            error = PeerStopped(
                f"[Trainer] rank {rank} has stopped, after {why}; all ranks stop after the same update", rank=rank
            )
            error.interrupted = reason == INTERRUPTED
            raise error
        if outcome == "different":
            own, other = (NAMES.get(self.native.purpose_of(one), "meets") for one in (self.rank, rank))
            if rank == self.rank:
                rank = next(
                    r for r in range(self.size) if self.native.purpose_of(r) != self.native.purpose_of(self.rank)
                )
                other = NAMES.get(self.native.purpose_of(rank), "meets")
            raise CollectiveMismatch(
                f"[Trainer] rank {self.rank} {own} while rank {rank} {other}: all ranks must call the same methods in the same "
                "order"
            )

    def meet(
        self,
        purpose: Purpose,
        loss_sum: float = 0.0,
        loss_weight: float = 0.0,
        correct: int = 0,
        rows: int = 0,
        reason: int = 0,
    ) -> tuple[tuple[float, float, int, int, int], ...]:
        """Meet outside of a step. For each rank: ``loss_sum``, ``loss_weight``, ``correct``, ``rows`` and ``reason``."""
        self.agreed = False
        # By position, because a call by name takes half a microsecond more.
        met: tuple[tuple[float, float, int, int, int], ...] = self.native.meet(
            int(purpose), loss_sum, loss_weight, correct, rows, reason
        )
        self._raise_interrupt()
        self._require_met()
        return met

    def begin_fit(self, epochs: int, limit: int, validates: bool) -> None:
        """Meet before the first epoch. ``ValueError`` unless all ranks train until as many ``epochs`` are complete, with the
        same ``limit`` of batches in each (0: none), and all of them validate or none does: a rank with less to do would not
        come to the others' meetings."""
        met = self.meet(Purpose.FIT, rows=min(epochs, _MOST_ROWS), correct=min(limit, _MOST_ROWS), reason=int(validates))
        for name, at in ("the last epoch", 3), ("steps_per_epoch", 2), ("validate", 4):
            for rank, theirs in enumerate(met):
                if theirs[at] != met[0][at]:
                    self.agreed = True
                    here, first = (bool(one[at]) if at == 4 else one[at] or None for one in (theirs, met[0]))
                    raise ValueError(
                        f"[Trainer.fit] {name} is {here} on rank {rank} and {first} on rank 0: all ranks must give the same"
                    )

    def who(self, purpose: Purpose, mine: bool) -> int | None:
        """The first rank that says yes, if one does."""
        met = self.meet(purpose, reason=int(mine))
        return next((rank for rank, (*_, reason) in enumerate(met) if reason), None)

    def add(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums of an evaluation over all ranks, in rank order."""
        with self.told(self.stop):
            met = self.meet(
                Purpose.EVALUATE,
                loss_sum=values.get("loss_sum", 0.0),
                loss_weight=values.get("loss_weight", 0.0),
                correct=int(values.get("correct", 0)),
                rows=int(values.get("samples", 0)),
            )
        return {**values, **{name: sum(one[at] for one in met) for at, name in enumerate(SUMS)}}

    def require_same_samples(self, samples: int, rows: int) -> None:
        """Raise ``ValueError`` unless all ranks evaluate so many samples in batches of so many ``rows``."""
        met = self.meet(Purpose.EVALUATE, correct=rows, rows=samples)
        if any(one[2:4] != met[0][2:4] for one in met):
            self._refuse_other_samples()

    def in_order(self, found: NDArray[Any], count: int) -> dict[str, float]:
        """The sums over ``count`` batches, added in their order. Each rank gives the numbers of some, and their sums."""
        every = self.rows(found)
        sums, known = dict.fromkeys(SUMS, 0.0), np.zeros((0, found.shape[1])) if every is None else every
        known = known[np.argsort(known[:, 0], kind="stable")]
        for same in np.split(known[:, 1:], np.searchsorted(known[:, 0], np.arange(1, count))):
            if any(one.tobytes() != same[0].tobytes() for one in same[1:]):
                self._refuse_other_samples()
            for name, value in zip(SUMS, same[0].tolist(), strict=True):
                sums[name] += value
        return sums

    def _refuse_other_samples(self) -> NoReturn:
        self.agreed = True
        raise ValueError(
            "[Trainer.evaluate] with shards= the ranks divide the batches of one data set, and the samples of the ranks "
            "differ: give each rank the same samples, and no rank= or world_size= to their loader"
        )

    def stop(self, error: BaseException) -> None:
        """Tell the other ranks that this one stops because of ``error``, unless they know."""
        if self.agreed or self.native.withdrawn:
            return
        self.agreed = True
        try:
            self.native.stop(FAILED if isinstance(error, Exception) else INTERRUPTED)
        except Exception as other:
            if hasattr(error, "add_note"):
                error.add_note(f"[Trainer] the other ranks could not be told: {other}")

    def require_rest(self, pending: int) -> None:
        """Raise ``GradringError`` if the other ranks may be adding to gradients that are to be saved."""
        if not self.apart:
            raise GradringError(
                f"[Trainer.save] the gradients of {pending} batches wait for an update, and the other ranks are adding to "
                "theirs: in a callback, save at the end of an epoch"
            )

    @property
    def torn(self) -> bool:
        """Whether some ranks have applied an update and others have not."""
        torn: bool = self.native.torn
        return torn

    def mend(self) -> None:
        """Say that all parameters and the optimizer's state were replaced. All ranks call it."""
        self.native.mend()

    def meeting(self, rank: int) -> Any:
        """The native meeting of this rank, for its programs; ``rank`` is this rank."""
        return self.native.meeting()

    @property
    def apart(self) -> bool:
        """Whether a peer has failed, so that this rank has the parameters for itself."""
        failed: bool = self.native.withdrawn
        return failed

    def share_of(self, source: Any) -> Any:
        """This rank's share of a loader that has no rank of its own. A rank that is apart gets all of it."""
        return source.for_rank(self.rank, self.size) if isinstance(source, Loader) and not self.apart else source

    @contextmanager
    def told(self, leave: Callable[[BaseException], None]) -> Iterator[None]:
        """If the block raises on this rank alone, tell the other ranks, which then do not wait for it."""
        self.agreed = False
        try:
            yield
        except BaseException as error:
            leave(error)
            raise

    def first(self, text: str, purpose: Purpose) -> str:
        """Return the text of rank 0. All ranks call it."""
        return self._texts(text, purpose)[0]

    def in_turn(
        self,
        purpose: Purpose,
        what: str,
        call: Callable[[], T],
        others: Callable[[], T],
        before: Callable[[], object] | None = None,
    ) -> T:
        """Call ``before`` on all ranks, then ``call`` on rank 0 and, if that succeeds, ``others`` on all other ranks. All ranks
        raise if one does."""
        with self.told(self.stop):
            self.meet(purpose)
            if before is not None:
                before()
            return self._turns(purpose, what, call, others)

    def _turns(self, purpose: Purpose, what: str, call: Callable[[], T], others: Callable[[], T]) -> T:
        result: T | None = None
        failed: Exception | None = None
        for turn in (True, False):
            self.writing = self.rank == 0
            try:
                if (self.rank == 0) == turn:
                    result = call() if turn else others()
            except Exception as error:
                failed = error
            finally:
                self.writing = False
            for rank, (*_, reason) in enumerate(self.meet(purpose, reason=int(failed is not None))):
                if failed is not None:
                    self.agreed = True
                    raise failed
                if reason:
                    self.agreed = True
                    raise PeerStopped(f"[{what}] rank {rank} failed: see its error", rank=rank)
        return cast("T", result)
