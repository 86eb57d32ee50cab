"""The session behind ``Trainer(step=fn, params=..., comm=comm, shards=)``: results have the same bits for any number of ranks.

The shards of a batch are those of one process. A rank has a block of neighbouring shards, which is a subtree of the tree in
which all shards are added. The ranks exchange their sums in every batch, and each of them finishes the tree. So all ranks have
the gradients of whole batches, also when a group of batches waits for its update, and any number of ranks can resume it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.loader import Loader
from gradring.session.data import batches_of, require_batches
from gradring.session.purposes import Purpose
from gradring.session.user import StepResult, UserSession
from gradring.session.user_parts import cut, rows_of_batch, tree
from gradring.session.user_ranks import UserSessionOfRanks

__all__ = ["UserSessionOfShards"]

Array = NDArray[Any]

_PIECE_BYTES = 1 << 20  # of a rank's sums that are gathered at once: they pass through the second cache


class UserSessionOfShards(UserSessionOfRanks):
    """A ``UserSessionOfRanks`` each of whose ranks computes its shards of each batch, of which it gives its block of rows."""

    def _computed_part(self, batch: Any) -> StepResult | None:
        own = rows_of_batch(batch)
        whole = self.peers.whole_rows_or_end(own)
        if not whole:
            self.peers.agreed = True
            raise ValueError("[step] the batch has no rows on any rank")
        first, *ends = self._shard_ends(whole)
        return self._sums_of(cut(batch, [end - first for end in ends]), self.peers.rank * len(ends))

    def _shard_ends(self, whole: int) -> list[int]:
        """The first row of this rank's shards of a batch, and the end of each of them."""
        each, rank = self.shards // self.peers.size, self.peers.rank
        return [whole * shard // self.shards for shard in range(rank * each, (rank + 1) * each + 1)]

    def _idle(self) -> float | None:
        return None if self.peers.whole_rows_or_end(None) is None else self._together(None)

    def _meet(self, result: StepResult | None) -> float | None:
        began = time.perf_counter()
        weight, loss = (0.0, 0.0) if result is None else (result.samples, result.total)
        met = self.peers.meet(Purpose.STEP, loss_sum=loss, loss_weight=weight)
        here = [one[1] > 0 for one in met]
        total = StepResult(
            tree([one[0] if there else None for one, there in zip(met, here, strict=True)]),
            {},
            tree([one[1] if there else None for one, there in zip(met, here, strict=True)]),
            summed=True,
        )
        self._require_all_finite(total.mean)
        summed = self._tree_of_ranks(None if result is None else result.grads, here)
        self._seconds["reduction"] += time.perf_counter() - began
        UserSession._add(self, total._replace(grads=summed))
        self._group = self._weight
        if self._pending == self._options.accumulate:
            self.flush()
        return total.mean

    def _tree_of_ranks(self, own: Mapping[str, Array] | None, here: list[bool]) -> dict[str, Array]:
        """The sums over the ranks that have rows, in the tree of all shards."""
        summed: dict[str, Array] = {}
        for names, plane in self._planes:
            looks = [self._trained[name] for name in names]
            ends = np.cumsum([look.size for look in looks]).tolist()
            for name, look, end in zip(names, looks, ends, strict=True):
                plane[end - look.size : end] = 0 if own is None else own[name].ravel()
            whole, piece = np.empty_like(plane), max(_PIECE_BYTES // plane.itemsize, 1)
            for begin in range(0, plane.size, piece):
                every = self.peers.comm.all_gather(plane[begin : begin + piece])
                whole[begin : begin + piece] = tree(
                    [row if there else None for row, there in zip(every, here, strict=True)]
                )
            for name, look, end in zip(names, looks, ends, strict=True):
                summed[name] = whole[end - look.size : end].reshape(look.shape)
        return summed

    def _summed(self) -> dict[str, Array]:
        return self._gradients  # all ranks have the sums of all

    def gather(self) -> None:
        self._require_all_whole()

    def waiting(self) -> tuple[float, dict[str, Array]]:
        return UserSession.waiting(self)

    def wait(self, pending: int, weight: float, gradients: Mapping[str, Array]) -> None:
        UserSession.wait(self, pending, weight, gradients)
        self._group = weight

    def _batches(self, source: Any, epoch: int, start: int) -> Iterator[Any]:
        return batches_of(source, epoch, start, self.limit, blocks=True)

    def evaluate(self, source: Any, batch_size: int = 1024) -> dict[str, float]:
        """The mean loss. Each rank evaluates some of the batches of a loader as a whole, and their sums are added in the order
        of the batches. Of batches that Python makes, each rank evaluates its own."""
        if self.peers.apart or not isinstance(source, Loader):
            return super().evaluate(source, batch_size)
        whole, found = source.undivided(), []
        with self.peers.told(self.peers.stop):
            count = -(-whole.samples // whole.batch_size)
            self.peers.require_same_samples(whole.samples, whole.batch_size)
            first, past = (count * rank // self.peers.size for rank in (self.peers.rank, self.peers.rank + 1))
            for number, batch in enumerate(batches_of(whole, None, first, past, in_order=True), first):
                result = self._evaluate(batch)
                found.append((number, result.total, result.samples, 0.0, 0.0))
        require_batches("evaluate", count)
        sums = self.peers.in_order(np.array(found, np.float64).reshape(-1, 5), count)
        return {"loss": sums["loss_sum"] / sums["loss_weight"]}
