"""A model that ranks train together belongs to their trainer: no other trainer and no second thread may write to it."""

import signal
import threading
import time

import pytest

import gradring as gr
from gradring import _core

from .test_ranks import X, Y, copies, model, on_ranks, same, saw, trainer_of


def test_a_model_is_its_ranks_own_again_once_their_trainer_is_gone():
    def body(comm):
        net = model()
        trainer = gr.Trainer(net, optimizer=gr.optim.AdamW(1e-2), dtype="float64", comm=comm)
        trainer.step(X[:8], Y[:8])
        refused = [
            saw(lambda: gr.Trainer(net, optimizer=gr.optim.SGD(0.1), dtype="float64")),
            saw(lambda: gr.Trainer(net, optimizer=gr.optim.SGD(0.1), dtype="float64", comm=comm)),
            saw(lambda: net.init(1)),
        ]
        comm.barrier()
        del trainer
        alone = gr.Trainer(net, optimizer=gr.optim.SGD(0.1), dtype="float64")
        before = copies(alone)
        comm.barrier()
        if comm.rank == 1:
            alone.step(X[:8], Y[:8])
        comm.barrier()
        return refused, before, copies(alone)

    (refused, start, kept), (too, begin, trained) = on_ranks(2, body)
    for error in (*refused, *too):
        assert isinstance(error, gr.GradringError) and "ranks of a communicator train this model" in str(error)
    assert same(start, begin) and same(start, kept) and not same(start, trained)


def test_a_second_thread_of_a_rank_is_refused_and_disturbs_nothing():
    met, errors = threading.Event(), []

    def body(comm):
        trainer = trainer_of(comm)
        trainer.step(X[:8], Y[:8])
        comm.barrier()
        if comm.rank == 1:
            # While rank 0 waits for this rank in an evaluation, another thread of rank 0 takes a step.
            while not met.is_set():
                time.sleep(0.005)
        else:

            def other():
                until = time.monotonic() + 60
                while not trainer.session.peers.native.busy and time.monotonic() < until:
                    time.sleep(0.001)
                errors.append(saw(lambda: trainer.step(X[:8], Y[:8])))
                met.set()

            thread = threading.Thread(target=other)
            thread.start()
        found = trainer.evaluate((X, Y))
        if comm.rank == 0:
            thread.join()
        return found, trainer.step(X[:8], Y[:8]), trainer.step_count

    first, second = on_ranks(2, body)
    assert first == second and first[2] == 2
    assert isinstance(errors[0], gr.GradringError) and "another thread" in str(errors[0])


class Interrupted(BaseException):
    """What a signal handler raises, as that of Ctrl-C raises KeyboardInterrupt."""


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
@pytest.mark.parametrize("shares", [False, True])
def test_an_interrupt_while_ranks_begin_to_share_is_raised_as_it_is(shares):
    comms = gr.comm.thread_group(2, timeout=60)

    def other():
        ranks = _core.Ranks(comms[1].group) if shares else None
        assert over.wait(60)
        del ranks

    def handler(number, frame):
        raise Interrupted

    over = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        ranks = _core.Ranks(comms[0].group) if shares else None
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            if ranks is None:
                _core.Ranks(comms[0].group)
            else:
                ranks.share([4096], None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        over.set()
        thread.join()
