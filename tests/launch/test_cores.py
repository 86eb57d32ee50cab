"""Processors are divided among ranks and never given to two jobs."""

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradring.launch.cores import Cores, divide
from helpers import run_script

USABLE = sorted(os.sched_getaffinity(0))


@given(st.lists(st.integers(0, 500), min_size=1, max_size=70, unique=True), st.integers(1, 70))
def test_parts_are_disjoint_complete_and_even(cpus, ranks):
    parts = divide(cpus, ranks)
    if ranks > len(cpus):
        assert parts is None
        return
    assert list(itertools.chain(*parts)) == cpus
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_jobs_never_share_a_processor():
    with_all = Cores(1, pin=True)
    try:
        if with_all.parts is None:
            pytest.skip("another job holds processors")
        second = Cores(1, pin=True)
        assert second.parts is None and "other jobs" in second.note
        second.close()
    finally:
        with_all.close()


def test_a_claim_ends_with_its_process():
    script = """
        import os
        from gradring.launch.cores import Cores
        cores = Cores(1, pin=True)
        print(cores.parts)
        os.kill(os.getpid(), 9)
    """
    assert run_script(script).returncode == -9
    cores = Cores(1, pin=True)
    claimed = cores.parts is not None or "other jobs" in cores.note  # claimed here, or by a test that runs at the same time
    cores.close()
    assert claimed


@pytest.mark.parametrize("pin, ranks", [(False, 1), (True, len(USABLE) + 1)])
def test_nothing_is_pinned_when_that_is_not_wanted_or_not_possible(pin, ranks):
    cores = Cores(ranks, pin=pin)
    assert cores.parts is None and cores.of(0) is None and cores.note == "" and cores.threads >= 1
    cores.close()


def test_only_the_inherited_affinity_is_divided():
    script = f"""
        import os
        os.sched_setaffinity(0, [{USABLE[-1]}])
        from gradring.launch.cores import Cores
        cores = Cores(1, pin=True)
        print(cores.parts if cores.parts is not None else cores.note)
    """
    out = run_script(script).stdout
    assert out == f"[[{USABLE[-1]}]]\n" or "other jobs" in out
