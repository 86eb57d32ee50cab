"""Any sequence of operations on a loader gives what plain arithmetic says, whether threads or processes fill its batches."""

import gc
import itertools
import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import gradring as gr

from .functions import Sample

MOST_KEY = 2**64 - 1


def arrays(n):
    return np.arange(n, dtype="f4")[:, None, None].repeat(3, 1).repeat(2, 2), np.arange(n)


def sources(n):
    return {
        "arrays": lambda: arrays(n),
        "threads": lambda: gr.sources.Callable(Sample(), n),
        "processes": lambda: gr.sources.Callable(Sample(), n, workers="processes", num_workers=2),
    }


def checked(batch):
    """The batch's samples; its rows are theirs."""
    x, y = batch
    assert np.array_equal(x, np.broadcast_to(y[:, None, None], (len(y), 3, 2)))
    return y.tolist()


class Operations(RuleBasedStateMachine):
    """One loader, and the same order by arithmetic: ``order()`` cut into ranks and batches."""

    iterators = Bundle("iterators")
    kind: str

    @initialize(
        n=st.integers(1, 300),
        batch=st.integers(1, 40),
        options=st.fixed_dictionaries(
            {
                "shuffle": st.booleans(),
                "seed": st.integers(0, MOST_KEY),
                "prefetch": st.sampled_from(["auto", 1, 2, 5]),
                "pad": st.booleans(),
                "drop_last": st.booleans(),
            }
        ),
        threads=st.sampled_from(["auto", 0, 1, 3]),
        world=st.integers(1, 4),
        rank=st.integers(0, 3),
        cast=st.booleans(),
    )
    def begin(self, n, batch, options, threads, world, rank, cast):
        options |= {"world_size": world, "rank": rank % world, "timeout": 30}
        if len(arrays(n)[1]) // world < batch:
            options["drop_last"] = False
        if cast:
            options["transforms"] = {0: gr.transforms.Cast("float64")}
        options |= {"restart": 10**6} if self.kind == "processes" else {"num_threads": threads}
        self.loader = gr.Loader(sources(n)[self.kind](), batch, **options)
        self.held = []

    def teardown(self):
        if hasattr(self, "loader"):
            self.loader.close()
            self.kept_batches_are_as_they_were(0)

    def expected(self, epoch):
        loader = self.loader
        ordinary, loader._epoch = loader.epoch, epoch  # the position stays
        order = loader.order().tolist()
        loader._epoch = ordinary
        world, size = loader.world_size, loader.batch_size
        if loader.pad:
            order += (order * world)[: -len(order) % world]
        own = order[loader.rank :: world]
        if loader.drop_last:
            own = own[: len(order) // (world * size) * size]
        return [own[i : i + size] for i in range(0, len(own), size)]

    @rule(epoch=st.integers(0, MOST_KEY))
    def a_whole_epoch(self, epoch):
        self.loader.set_epoch(epoch)
        assert [checked(batch) for batch in self.loader] == self.expected(epoch)
        assert len(self.loader) == len(self.expected(epoch))

    @rule(start=st.integers(0, 5))
    def an_epoch_from_a_batch_on(self, start):
        assert [checked(batch) for batch in self.loader.batches(start)] == self.expected(self.loader.epoch)[start:]

    @rule(target=iterators)
    def an_iterator(self):
        return iter(self.loader)

    @rule(iterator=iterators, keep=st.booleans())
    def a_batch_of_an_iterator(self, iterator, keep):
        batch = next(iterator, None)
        if batch is not None:
            samples = checked(batch)
            if keep:
                self.held.append((batch, samples))

    @rule(most=st.integers(0, 20))
    def kept_batches_are_as_they_were(self, most):
        for batch, samples in self.held:
            assert checked(batch) == samples
        del self.held[most:]

    @rule(epoch=st.integers(0, 100), batches=st.integers(0, 6))
    def a_resume(self, epoch, batches):
        self.loader.set_epoch(epoch)
        iterator = iter(self.loader)
        seen = [checked(batch) for batch in itertools.islice(iterator, batches)]
        state = self.loader.state_dict()
        del iterator
        self.loader.load_state_dict(state)
        if state["epoch"] == epoch:
            seen += [checked(batch) for batch in self.loader]
        assert seen == self.expected(epoch)

    @rule(epoch=st.integers(0, 100))
    def two_threads(self, epoch):
        self.loader.set_epoch(epoch)
        seen = []
        threads = [threading.Thread(target=self.read_into, args=(seen,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [self.expected(epoch)] * 2

    def read_into(self, seen):
        seen.append([checked(batch) for batch in self.loader.batches()])

    @rule()
    def statistics(self):
        stats = self.loader.stats()
        assert stats.advice and str(stats) and stats.held >= 0

    @rule()
    def garbage(self):
        gc.collect()

    @rule(number=st.integers(0, 1))
    def a_worker_is_killed(self, number):
        if self.kind == "processes" and (lease := self.loader._last) and number < len(lease.workers.pids):
            os.kill(lease.workers.pids[number], signal.SIGKILL)


@pytest.mark.parametrize(("kind", "examples", "steps"), [("arrays", 60, 20), ("threads", 30, 15), ("processes", 3, 12)])
def test_any_sequence_of_operations(kind, examples, steps):
    machine = type("Of" + kind, (Operations,), {"kind": kind})
    gc.collect()
    gc.freeze()  # what earlier tests have left is not searched again by each of hundreds of collections
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    finally:
        gc.unfreeze()
