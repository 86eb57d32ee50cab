"""Real kills and stops of processes that have replicas: the survivor raises in time, with parameters of a whole step, or with
word that they are torn."""

import signal

import pytest

import gradring as gr
from patience import promised

from . import stopping, training
from .test_failpoints import library  # noqa: F401
from .test_failpoints import pytestmark as needs_failpoints
from .test_faults import DEADLINE, survivors_error

STEPS = 2


def test_two_processes_of_two_replicas_have_the_bits_of_four_replicas():
    assert gr.comm.spawn(training.steps_of_replicas, 2, 20, pin=False) == [training.four_alone(20)] * 2


@pytest.mark.parametrize(("processes", "replicas"), [(2, 2), (1, 8), (8, 1)])
def test_with_shards_the_bits_are_those_of_replicas_of_one_process(processes, replicas):
    one = training.sharded(0)
    assert (
        one[0] == 50 and gr.comm.spawn(training.sharded, processes, processes, replicas, pin=False) == [one] * processes
    )


# Where rank 2 of 4, the leader of process 1, or rank 3, its other replica, dies or stops in the third step: how often it passes
# there before, and whether that step counts for the survivor; None: it is torn.
PLACES = {
    ("before meeting", 2): (STEPS, False),
    ("before meeting", 3): (STEPS, False),
    ("before settle", 2): (STEPS, None),
    ("before settle", 3): (STEPS, None),
    ("after settle", 2): (STEPS, None),
    ("after settle", 3): (STEPS, None),
    ("within update", 2): (STEPS * training.BLOCKS_OF_FOUR[2] + 1, None),
    ("within update", 3): (STEPS * training.BLOCKS_OF_FOUR[3] + 1, None),
    ("before done", 2): (STEPS, None),
    ("before done", 3): (STEPS, None),
    ("after done", 2): (STEPS, True),
}


def fails_at(place, number, folder, monkeypatch):
    name, rank = place
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    monkeypatch.setenv("GRADRING_FAILPOINT", f"{name},{rank},{PLACES[place][0]},{int(number)}")


@needs_failpoints
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_kill_9_in_each_phase_of_a_step(place, library, monkeypatch):  # noqa: F811
    fails_at(place, signal.SIGKILL, library.parent, monkeypatch)
    found = survivors_error(training.replicas_at_a_failpoint)
    assert found["error"] == "PeerDied" and found["rank"] == 1 and found["signal"] == signal.SIGKILL, found
    assert found["seconds"] < promised(DEADLINE) and found["unchanged"]
    _, counts = PLACES[place]
    if counts is None:
        assert found["torn"] and [found[name] for name in ("again", "save", "fit", "file")] == [*["torn"] * 3, False]
        return
    assert not found["torn"] and found["steps"] == STEPS + counts, found
    assert found["digest"] == training.four_alone(STEPS + counts)
    assert [found[name] for name in ("again", "save", "fit", "file")] == ["refused", "goes on", "refused", True]


@needs_failpoints
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_stop_in_a_phase_of_a_step_that_ends_in_time_changes_nothing(place, library, monkeypatch):  # noqa: F811
    fails_at(place, signal.SIGSTOP, library.parent, monkeypatch)
    found = gr.comm.spawn(stopping.stopped_at_a_failpoint, 2, 0.5, 60.0, None, 2, pin=False)
    assert found == [training.four_alone(6)] * 2


@needs_failpoints
@pytest.mark.parametrize("place", [("before meeting", 3), ("before settle", 3), ("within update", 2)], ids=str)
def test_a_stop_that_ends_too_late_touches_nothing(place, library, monkeypatch, tmp_path):  # noqa: F811
    fails_at(place, signal.SIGSTOP, library.parent, monkeypatch)
    found = survivors_error(stopping.stopped_at_a_failpoint, 0.0, 3.0, str(tmp_path), 2)
    assert found["error"] == "PeerStalled" and "its process is stopped" in found["text"], found
    assert found["back"] and found["unchanged"], found


def test_an_interrupt_ends_all_after_one_update(tmp_path):
    ended = gr.comm.spawn(training.interrupted_replicas, 2, str(tmp_path / "a.safetensors"), pin=False)
    assert [name for name, _ in ended] == ["KeyboardInterrupt", "PeerStopped"]
    assert ended[0][1] == ended[1][1] > 0
