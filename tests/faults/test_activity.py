"""What a rank does while others wait for it: they have patience where it says so, and their errors tell where it is."""

import threading
import time

import pytest

import gradring as gr
from gradring import activity
from gradring.comm import _stack
from patience import promised

from . import functions
from .test_faults import DEADLINE, survivors_error


@pytest.mark.parametrize("function", [functions.asleep_in_python, functions.asleep_in_a_group])
def test_a_stalled_ranks_python_stack_is_told(function):
    found = survivors_error(function, 4.0)
    assert found["error"] == "PeerStalled" and found["rank"] == 1
    assert "its Python stack:" in found["text"] and "in a_slow_function" in found["text"]
    assert 3.5 < found["seconds"] < 4.0 + promised(DEADLINE)


def test_a_rank_that_told_its_stack_in_vain_tells_it_anew(monkeypatch):
    first, second = gr.comm.thread_group(2, timeout=2.0)
    asked, over = threading.Event(), threading.Event()
    stack_of = _stack._stack_of

    def told(thread):
        text = stack_of(thread)
        asked.set()
        return text

    monkeypatch.setattr(_stack, "_stack_of", told)

    def at_first():
        assert asked.wait(60)

    def later():
        assert over.wait(60)

    def body():
        _stack.tell_stacks(second._group)
        at_first()
        second.barrier()  # in time, half a second before the deadline
        later()

    thread = threading.Thread(target=body)
    thread.start()
    first.barrier()
    with pytest.raises(gr.PeerStalled) as raised:
        first.barrier()
    over.set()
    thread.join(60)
    second.close()
    assert "in later" in str(raised.value) and "in at_first" not in str(raised.value)


def test_what_a_stalled_rank_says_of_itself_is_told():
    found = survivors_error(functions.saving_for_long, 4.0)
    assert found["error"] == "PeerStalled" and "and it is saving" in found["text"]


def test_while_a_rank_waits_for_its_loader_the_loaders_deadline_governs():
    # Each rank's timeout is three seconds; the second rank's last batch takes seven. The groups were made in four ways.
    assert gr.comm.spawn(functions.slow_loader, 2, 3.0, 7.0, pin=False) == [[2.0] * 4] * 2


def test_the_timeout_begins_anew_when_an_activity_ends():
    first, second = gr.comm.thread_group(2, timeout=3.0)
    with second.doing("computing", patience=60.0):
        thread = threading.Thread(target=first.barrier)
        thread.start()
        time.sleep(4.0)
    time.sleep(0.2)  # what it does next
    second.barrier()
    thread.join(20)
    assert not thread.is_alive()


def test_an_activity_is_told_to_every_communicator_that_lives():
    heard = []

    class Listener:
        def publish_activity(self, name, patience, passing):
            heard.append((name, patience, passing))

    listener = Listener()
    activity.listen(listener)
    with activity.doing("in a callback"), activity.doing("saving"):
        pass
    activity.waits_for_data(2.5)
    names = ["in a callback", "saving", "in a callback", ""]
    assert heard == [*((name, 0.0, False) for name in names), ("waiting for data", 2.5, True)]
    with activity.doing("saving"):
        activity.listen(late := Listener())
    assert heard[5:] == [("saving", 0.0, False)] * 2 + [("", 0.0, False)] * 2
    del listener, late
    activity.waits_for_data(1.0)
    assert len(heard) == 9


def test_an_unknown_activity_is_refused():
    with (
        gr.comm.init() as comm,
        pytest.raises(ValueError, match="activity is 'sleeping': must be one of waiting for data"),
        comm.doing("sleeping"),
    ):
        pass
