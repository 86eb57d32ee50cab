"""The evaluation of samples that the ranks of a training with shards divide among them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradring.loader import Loader
from gradring.session.base import REPORT_SECONDS
from gradring.session.culprits import rows_of
from gradring.session.peers import SUMS, Peers
from gradring.session.results import Predicted, Sums

__all__ = ["evaluated", "rows_together"]


def rows_together(source: Loader, batch_size: int, shards: int) -> int:
    """The rows of each batch of an evaluation. With shards, arrays make at least as many batches as there are shards, if they
    have so many samples: the ranks can then divide them, and the bits are the same for any number of ranks."""
    if source.arrays is None:
        return source.batch_size
    return min(batch_size, max(-(-source.samples // shards), 1)) if shards else batch_size


def evaluated(session: Any, source: Loader, batch_size: int, predicted: Predicted) -> dict[str, float]:
    """The metrics over all samples of ``source``, of whose batches each rank evaluates its share. Their sums are added in
    the order of the batches, so the bits are those of one process."""
    peers: Peers = session.peers
    rows = min(rows_together(source, batch_size, session.shards), source.samples)
    count = -(-source.samples // rows)
    peers.require_same_samples(source.samples, rows)
    first, past = (count * rank // peers.size for rank in (peers.rank, peers.rank + 1))
    bound = session._bind_loader(source, first, in_order=True)
    feed, reads = session._feed(bound, rows, start_batch=first), session._dtypes
    session._require_settled()
    found: list[tuple[float, ...]] = []
    # The first batch of the next rank too: the two results differ if the ranks have other samples.
    for number in range(first, min(past + 1, count)):
        session._ensure("evaluate", feed.next_rows(), bound, reads)
        fields = session._read(feed, bound, feed.next_rows()) if session._metrics.functions and number < past else None
        result, part = session._native.chunk(False, feed, np.empty(0), 1, REPORT_SECONDS, bound.weight is not None)
        if result["fault"]:
            session._fail(result, rows_of(bound, result, {}), number, training=False)
        if not part["steps"]:
            raise session._no_step(result)
        if fields is not None:
            predicted.add(fields)
        found.append((number, *(part[name] for name in SUMS)))
    sums = Sums(session.loss)
    sums.values = peers.in_order(np.array(found, np.float64).reshape(-1, 1 + len(SUMS)), count)
    sums.require_weight(bound.weight is not None)
    return sums.metrics()
