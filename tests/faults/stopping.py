"""Functions of ranks that train together, one of which is stopped for a while or gets a signal."""

import os
import signal
import time
from pathlib import Path

import gradring as gr

from .training import alone, awaited, data, digest, lives, report, trainer_of


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def resumed_by_a_child(after, sign=None):
    """Start a child process that resumes this one so many seconds after it was stopped, or once the file ``sign`` is there."""
    pid = os.getpid()
    if os.fork():
        return
    awaited(lambda: is_stopped(pid))
    time.sleep(after)
    if sign is not None:
        awaited(sign.exists)
    os.kill(pid, signal.SIGCONT)
    os._exit(0)


def stopped_at_a_failpoint(resume_after, timeout, folder=None, replicas=1):
    """Rank 1 comes to the place where its environment makes it stop; a child process resumes it. With a folder, it does so when
    the survivor has given rank 1 up. The survivor looks at its arrays again when rank 1 has done what it can."""
    comm = gr.comm.init(timeout=timeout)
    trainer, batch = trainer_of(comm, replicas=replicas), data(comm.rank)
    gone, back = (None, None) if folder is None else (Path(folder) / "given up", Path(folder) / "back")
    if comm.rank == 1:
        resumed_by_a_child(resume_after, gone)
    try:
        for _ in range(6):
            trainer.step(*batch)
    except gr.GradringError as error:
        if comm.rank == 1:  # it is back, and finds out that it was given up
            back.touch()
            survivor = int(gone.read_text())
            awaited(lambda: not lives(survivor), 30.0)  # it tells its error first
            raise SystemExit(9) from error
        found = {"error": type(error).__name__, "text": str(error)}
        before = digest(trainer)
        written = gone.with_suffix(".new")
        written.write_text(str(os.getpid()))
        written.rename(gone)
        found["back"] = awaited(back.exists)
        found["unchanged"] = digest(trainer) == before
        report(found)
    if comm.rank == 1:
        os.wait()
    comm.barrier()
    found = digest(trainer)
    comm.barrier()
    return found


def stopped(resume_after, timeout):
    """Rank 1 stops itself before a step; a child process resumes it. The survivor's arrays must not change then."""
    alone(1)  # What a trainer imports and compiles takes longer than the timeout.
    gr.comm.init(timeout=60).barrier()
    comm = gr.comm.init(timeout=timeout)
    trainer, batch = trainer_of(comm), data(comm.rank)
    trainer.step(*batch)
    if comm.rank == 1:
        resumed_by_a_child(resume_after)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.wait()
        for name in trainer.params:
            trainer.params[name][...] = 7  # what a rank that does not know of its failure may do
    else:
        found = None
        try:
            trainer.step(*batch)
        except gr.GradringError as error:
            found = {"error": type(error).__name__, "text": str(error), "steps": trainer.step_count}
        if found is not None:
            before = found["digest"] = digest(trainer)
            time.sleep(resume_after)
            found["unchanged"] = digest(trainer) == before
            report(found)
    if comm.rank == 1:
        time.sleep(resume_after)
        raise SystemExit(9)
    return None


def stopped_for_a_while():
    """Rank 1 is stopped, and comes back in time."""
    comm = gr.comm.init(timeout=60)
    trainer, batch = trainer_of(comm), data(comm.rank)
    for step in range(4):
        if comm.rank == 1 and step == 2:
            resumed_by_a_child(0.5)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.wait()
        trainer.step(*batch)
    comm.barrier()
    found = digest(trainer)
    comm.barrier()
    return found


def signalled(path, ranks):
    """A fit in which these ranks get SIGTERM; how each ends, and the step of the file that was saved."""
    comm = gr.comm.init(timeout=60)
    trainer = trainer_of(comm)
    x, y = data(0)

    class Signals(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            if run.epoch == 2 and comm.rank in ranks:
                os.kill(os.getpid(), signal.SIGTERM)

    saves = gr.callbacks.Checkpoint(path, every=1000)
    ended = ""
    try:
        trainer.fit((x, y), epochs=100000, batch_size=2, callbacks=[Signals(), saves], verbose=0, on_signal="save")
    except BaseException as error:
        ended = type(error).__name__
    count = trainer.step_count
    comm.barrier()
    trainer.load(path)
    return ended, count, trainer.step_count
