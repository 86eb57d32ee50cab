"""Programs: one native engine, and the programs that it was given for each mode and batch shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradring import _core, devices
from gradring.errors import GradringError
from gradring.graph.plan import Plan, plan
from gradring.nn.function import Function
from gradring.session.arenas import Arenas

if TYPE_CHECKING:
    from gradring.ir import Graph
    from gradring.nn.layer import Layer
    from gradring.session.peers import Peers

__all__ = ["Programs"]


class Programs:
    """A native engine over a model's arenas. Each mode and batch shape gets a program when it first occurs, which is
    kept."""

    stale = False

    def __init__(
        self,
        model: Layer,
        arenas: Arenas,
        *,
        lanes: int,
        accumulate: int = 1,
        seed: int = 0,
        check_finite: bool = True,
        replicas: int = 1,
        shards: int = 0,
        parallel: str = "allreduce",
        staleness: int | None = None,
        peers: Peers | None = None,
        tune: bool = False,
        tf32: bool = False,
    ) -> None:
        self.model, self.arenas, self.store = model, arenas, arenas.store
        self.store.programs.add(self)
        self.dtype = self.store.dtype
        self.native = devices.engine(self.store.device, arenas.native(), lanes, accumulate, seed, check_finite, tune, tf32)
        self.peers = peers
        self.asynchronous = parallel != "allreduce"
        # The replicas, or the workers that update the parameters without waiting for each other.
        self.replicas: Any = None
        each = max(lanes // replicas, 1)
        if self.asynchronous:
            bound = -1 if staleness is None else staleness
            self.replicas = _core.Workers(self.native, arenas.native(), replicas, each, bound)
        elif peers is not None and replicas > 1:
            self.replicas = _core.Replicas(self.native, arenas.native(), replicas, each, peers.native, shards > 0)
        elif peers is None and (replicas > 1 or shards):
            self.replicas = _core.Replicas(self.native, arenas.native(), replicas, each)
        self.plans: dict[tuple[str, int], Plan] = {}
        self.barriers: dict[tuple[str, int], tuple[bool, ...]] = {}  # for each program of replica 0
        self._signature: Any = None

    @property
    def others(self) -> Any:
        """What takes a step together with the engine, for the fast path: ranks, replicas, a pair of them, or None."""
        ranks = None if self.peers is None else self.peers.native
        return self.replicas if ranks is None else ranks if self.replicas is None else (ranks, self.replicas)

    def expect(self, signature: Any) -> bool:
        """Prepare for batches with this signature. If earlier ones had another signature, or if the model has changed,
        forget all programs (only their number of rows identifies them) and return False."""
        if signature == self._signature and not self.stale:
            return True
        self.clear()
        return False

    def expected(self, signature: Any) -> None:
        """Note that all is ready for batches with this signature: an exception before this call leaves it unknown."""
        self._signature = signature

    def ensure(self, mode: str, rows: int, build: Callable[[], tuple[Graph, str | None]]) -> bool:
        """Make the program for this mode and number of rows if it is not there; True if it is new."""
        key = (mode, rows)
        if key in self.plans:
            return False
        graph, output = build()
        made = plan(graph, output, mode=mode.partition(" ")[0])
        barriers = self.native.add(mode, rows, **made.native())
        # Keep no data that only a printed plan needs, because thousands of small models may be alive. A plan can be
        # made again.
        named = tuple(i for i in made.instructions if i.refuses)  # errors name these
        self.plans[key] = replace(made, instructions=named, buffers=(), resources=(), barriers=tuple(barriers))
        return True

    def ensure_replicas(self, mode: str, rows: int, build: Callable[[int], Graph]) -> bool:
        """Make the programs with which the replicas train on a batch of ``rows``, as ``ensure`` does. ``build`` gives the graph
        of one replica."""
        if self.replicas is None:  # a rank without replicas; the other ranks make their own
            return self.ensure(mode, rows, lambda: (build(0), None))
        if (mode, rows) in self.plans:
            return False
        size = self.replicas.size
        for replica in range(size):
            if replica and self.replicas.has(mode, rows, replica):
                continue
            made = plan(build(replica), None, mode="train")
            if not self.replicas.has(mode, rows, replica):
                barriers = self.replicas.add(mode, rows, replica, **made.native())
                if not replica:
                    self.barriers[mode, rows] = tuple(barriers)
            if not replica:
                named = tuple(i for i in made.instructions if i.refuses)
                known = self.barriers.get((mode, rows), ())  # none after an interrupt between the two statements above
                kept = replace(made, instructions=named, buffers=(), resources=(), barriers=known)
        # Only now, because an error or an interrupt may have come before the last replica had its program.
        self.plans[mode, rows] = kept
        return True

    def train(self, feed: Any, rates: Any, most_steps: int, seconds: float, weighted: bool) -> Any:
        """Train until the time is up, a limit is reached or the epoch ends: what happened, and totals."""
        if self.peers is not None:
            return self.peers.train(self.native, feed, rates, most_steps, seconds, weighted, self.replicas)
        if self.replicas is not None:
            return self.replicas.chunk(feed, rates, most_steps, seconds, weighted)
        return self.native.chunk(True, feed, rates, most_steps, seconds, weighted)

    def flush(self, rows: int, rates: Any, weighted: bool) -> Any:
        """Apply the gradients of an incomplete group of accumulated batches; ``rows`` are those of the last batch."""
        if self.peers is not None:
            return self.peers.flush(self.native, rows, rates, weighted, self.replicas)
        return (self.native if self.replicas is None else self.replicas).flush(rows, rates, weighted)

    def trace(self, on: bool) -> None:
        """Set whether later steps are recorded in the trace."""
        self.native.trace(on)
        if self.replicas is not None:
            self.replicas.trace(on)

    def clear(self) -> None:
        """Forget all programs; they are made again when next needed."""
        self.stale = True  # If an interrupt comes before the end, the next ``expect`` begins again.
        self.native.clear()
        if self.replicas is not None:
            self.replicas.clear()
            self.barriers.clear()
        self.plans.clear()
        self.stale, self._signature = False, None

    def use_state(self) -> None:
        """Use other arenas for the optimizer's state from now on."""
        self.stale = True  # if an error or an interrupt comes before the end
        if self.replicas is not None:  # first, because it takes memory, and changes nothing if there is none
            self.replicas.set_arenas(self.arenas.native())
        self.native.set_arenas(self.arenas.native())
        self.clear()

    def forget(self) -> None:
        """Forget all programs, as ``clear`` does, but if one is running, do it when the next program is requested."""
        try:
            self.clear()
        except GradringError:
            self.stale = True

    def plan_of(self, mode: str, rows: int) -> Plan:
        """The facts of a plan that are kept while it runs: its instructions, its barriers and the number of lanes chosen."""
        kept = self.plans[mode, rows]
        if self.replicas is not None and mode.startswith("train"):
            return replace(kept, lanes=self.replicas.lanes(mode, rows))
        return replace(kept, lanes=self.native.program_lanes(mode, rows))

    def raise_callback(self) -> None:
        """Raise the exception of a Python layer inside a program, if there is one."""
        for _, layer in self.model.walk():
            if isinstance(layer, Function) and layer.failures:
                error = layer.failures[0]
                layer.failures.clear()
                raise error
