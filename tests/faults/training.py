"""Functions of ranks that train together and fail in some way, or report what they saw of a failure."""

import hashlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import gradring as gr


class Seen(Exception):
    """What a survivor saw."""

    def __init__(self, found):
        super().__init__(found)
        self.found = found


def report(found):
    """Leave by an exception that carries what was seen: this rank's world has failed."""
    raise Seen(found)


def data(rank):
    rng = np.random.default_rng(rank)
    return rng.standard_normal((16, 12)).astype(np.float32), rng.integers(0, 5, 16)


def trainer_of(comm, **options):
    """Rank 1 of 2 updates its half of the parameters in ``BLOCKS`` parts, because the weights and biases are two groups."""
    net = gr.nn.Sequential(gr.nn.Linear(12, 33), gr.nn.ReLU(), gr.nn.Linear(33, 5)).init(3)
    optimizer = gr.optim.AdamW(1e-2, groups=[{"params": "*.bias", "weight_decay": 0.0}])
    return gr.Trainer(net, optimizer=optimizer, comm=comm, **options)


BLOCKS = 4


def digest(trainer):
    parts = [*trainer.params.values(), *trainer.session.state.values()]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


BLOCKS_OF_FOUR = (1, 1, 3, 2)  # of each of four ranks


def four_alone(steps):
    """What two processes of two replicas have after so many steps, computed by four replicas of one process."""
    return alone(steps, 4)


def alone(steps, replicas=2):
    """What ranks 0 and 1 have after so many steps, computed by replicas."""
    trainer = trainer_of(None, replicas=replicas)
    batch = [np.concatenate(parts) for parts in zip(data(0), data(1), strict=True)]
    for _ in range(steps):
        trainer.step(*batch)
    return digest(trainer)


def outcome_of(trainer, call):
    """What ends a training, and what the survivor has then."""
    begin = time.monotonic()
    times = [begin]
    try:
        while True:
            call()
            times.append(time.monotonic())
    except gr.GradringError as error:
        now = time.monotonic()
        found = {"error": type(error).__name__, "text": str(error), "seconds": now - times[-1], "steps": trainer.step_count}
        found |= {name: getattr(error, name, None) for name in ("rank", "signal")}
    try:
        trainer.state_dict()
        found["torn"] = False
    except gr.GradringError as error:
        found["torn"] = "torn" in str(error)
    found["digest"] = digest(trainer)
    found["again"] = refusal_of(call)
    batch = data(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.safetensors"
        found["save"] = refusal_of(lambda: trainer.save(file))
        found["fit"] = refusal_of(lambda: trainer.fit(batch, batch_size=4, verbose=0))
        found["file"] = file.exists()
    found["unchanged"] = digest(trainer) == found["digest"] and trainer.step_count == found["steps"]
    return found


def refusal_of(call):
    """Whether a call goes on, is refused, or is refused because the parameters are torn."""
    try:
        call()
    except gr.GradringError as error:
        return "torn" if "torn" in str(error) else "refused"
    return "goes on"


def killed_before_a_step(steps):
    """Rank 1 dies after so many steps; the others find it in the next one."""
    comm = gr.comm.init(timeout=60)
    trainer, batch = trainer_of(comm), data(comm.rank)

    def step():
        if comm.rank == 1 and trainer.step_count == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        trainer.step(*batch)

    report(outcome_of(trainer, step))


def killed_at_some_moment(seconds):
    """Rank 1 is killed by its own alarm, somewhere within steps without end."""
    comm = gr.comm.init(timeout=60)
    trainer, batch = trainer_of(comm), data(comm.rank)
    trainer.step(*batch)
    if comm.rank == 1:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    report(outcome_of(trainer, lambda: trainer.step(*batch)))


def replicas_at_a_failpoint():
    at_a_failpoint(2)


def at_a_failpoint(replicas=1):
    """Rank 1 comes to the place where its environment makes it die or stop."""
    comm = gr.comm.init(timeout=60)
    trainer, batch = trainer_of(comm, replicas=replicas), data(comm.rank)
    report(outcome_of(trainer, lambda: trainer.step(*batch)))


def mapping_of(array):
    """The line of this process's map of memory in which an array lies: its permissions, and the number of its file."""
    address = array.ctypes.data
    with open("/proc/self/maps") as file:
        for line in file:
            span, permissions, _, _, number, *_ = line.split()
            begin, end = (int(edge, 16) for edge in span.split("-"))
            if begin <= address < end:
                return permissions, number
    return None


def killed_while_sharing():
    """Rank 1 dies while the ranks make their trainers; whether the survivor's parameters are its own then."""
    comm = gr.comm.init(timeout=60)
    net = gr.nn.Sequential(gr.nn.Linear(12, 33)).init(3)
    weights, found = net.params["0.weight"], {"error": "none"}
    before, values = mapping_of(weights), weights.copy()
    try:
        gr.Trainer(net, optimizer=gr.optim.AdamW(1e-2), comm=comm)
    except gr.GradringError as error:
        found["error"] = type(error).__name__
    after = mapping_of(weights)
    found["moved"], found["private"] = after != before, after[0].endswith("p")
    found["same"] = bool(np.array_equal(values, weights))
    report(found)


class Samples:
    """The function of a loader's worker processes. One of them dies at sample 45, if its rank is to, for the first time."""

    def __init__(self, dies, marker):
        self.dies, self.marker = dies, Path(marker)

    def __call__(self, index):
        if self.dies and index == 45 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        rng = np.random.default_rng(index)
        return rng.standard_normal(12).astype(np.float32), int(rng.integers(0, 5))


def a_worker_dies(folder, restart):
    """A worker process of rank 1's loader dies in a fit. What each rank sees, after how many updates; then another fit."""
    comm = gr.comm.init(timeout=60)
    trainer = trainer_of(comm)

    def loader(dies, rank):
        function = Samples(dies, Path(folder) / "died")
        source = gr.sources.Callable(function, 100, workers="processes")
        return gr.Loader(source, 10, rank=rank, world_size=2, num_threads=1, restart=restart, timeout=60)

    ended = ""
    with loader(comm.rank == 1, comm.rank) as samples:
        try:
            trainer.fit(samples, epochs=2, verbose=0)
        except gr.GradringError as error:
            ended = type(error).__name__
    count = trainer.step_count
    trainer.fit(data(0), batch_size=8, verbose=0)
    comm.barrier()
    found = digest(trainer)
    comm.barrier()
    return ended, count, found


def awaited(condition, seconds=60.0):
    """Whether the condition has come to hold within these seconds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def a_peer_dies_during_a_save(path, collective):
    """Rank 1 dies while rank 0 writes a checkpoint: in a collective save, or in a callback at the end of an epoch."""
    comm = gr.comm.init(timeout=60)
    trainer, batch = trainer_of(comm), data(0)
    trainer.step(*data(comm.rank))
    pids = [int(pid) for pid in comm.all_gather(np.array([os.getpid()])).ravel()]
    replace, found = os.replace, {}

    def replaced(*names):
        os.kill(pids[1], signal.SIGKILL)
        awaited(lambda: not lives(pids[1]))
        found["steps"] = trainer.step_count
        replace(*names)

    if comm.rank == 0:
        os.replace = replaced
    try:
        if collective:
            trainer.save(path)
        else:
            trainer.fit(batch, batch_size=4, epochs=3, callbacks=[gr.callbacks.Checkpoint(path)], verbose=0)
    except gr.GradringError as error:
        found["error"] = type(error).__name__
    os.replace = replace
    other = trainer_of(None)
    other.load(path)
    found["whole"] = other.step_count == found["steps"]
    report(found)


def away(timeout, doing, path):
    """Rank 1 does not come back from its callback, or from the file of a checkpoint."""
    comm = gr.comm.init(timeout=timeout)
    trainer = trainer_of(comm)

    def sleep(*_):
        time.sleep(1000)

    class Slow(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            if comm.rank == 1:
                sleep()

    callback = Slow()
    if doing == "saving":  # on the rank that writes
        callback = gr.callbacks.Checkpoint(path)
        if comm.rank == 0:
            os.replace = sleep
    try:
        trainer.fit(data(comm.rank), batch_size=4, epochs=3, callbacks=[callback], verbose=0)
    except gr.PeerStalled as error:
        report({"error": "PeerStalled", "rank": error.rank, "text": str(error)})


def sharded(ranks, replicas=1):
    """A fit of fifty updates with everything that shards promise, on a communicator of so many ranks with ``replicas`` each, or
    on two replicas."""
    comm = gr.comm.init(timeout=60) if ranks else None
    rng = np.random.default_rng(31)
    x, y = rng.standard_normal((103, 12)).astype(np.float32), rng.integers(0, 5, 103)
    layers = gr.nn.Linear(12, 33), gr.nn.BatchNorm1d(33), gr.nn.ReLU(), gr.nn.Dropout(0.3), gr.nn.Linear(33, 5)
    options = {"shards": 8, "accumulate": 3, "clip_norm": 0.3, "comm": comm, "threads": 2}
    options["replicas"] = replicas if ranks else 2
    trainer = gr.Trainer(gr.nn.Sequential(*layers).init(3), optimizer=gr.optim.AdamW(1e-2), **options)
    loader = gr.Loader((x, y), global_batch=24, shuffle=True, seed=5)  # the last batch has 7 rows
    trainer.fit(loader, epochs=25, validate=(x[:50], y[:50]), verbose=0)
    if comm is not None:
        comm.barrier()
    numbers = [array.tobytes() for array in (*trainer.session.state.values(), *trainer.session.buffers.values())]
    numbers += [array.tobytes() for array in trainer.params.values()]
    names = [name for name in trainer.history.metrics if "second" not in name]
    found = trainer.step_count, hashlib.sha256(b"".join(numbers)).hexdigest(), [trainer.history.metrics[n] for n in names]
    if comm is not None:
        comm.barrier()
    return found


def interrupted(mine):
    """Steps by hand, in which this process's own alarm raises an error on rank 0 while it waits for rank 1. How both end, and
    after how many updates; then another step."""
    comm = gr.comm.init(timeout=60)
    trainer, batch = trainer_of(comm), data(comm.rank)
    for _ in range(2):
        trainer.step(*batch)
    ended = ""
    try:
        if comm.rank == 1:
            time.sleep(1.0)
        else:
            signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(mine))
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        for _ in range(3):
            trainer.step(*batch)
    except BaseException as error:
        ended = type(error).__name__
    count = trainer.step_count
    return ended, count, trainer.step(*batch), trainer.step_count


def interrupted_replicas(path):
    return interrupted_while_it_computes(path, replicas=2)


def interrupted_while_it_computes(path, replicas=1):
    """Steps by hand, which take rank 0 longer than rank 1. A signal comes to rank 0 during its fourth one. How both end, and
    after how many updates; then all save."""
    comm = gr.comm.init(timeout=60)
    net = gr.nn.Sequential(gr.nn.Linear(256, 2048), gr.nn.ReLU(), gr.nn.Linear(2048, 5)).init(3)
    trainer = gr.Trainer(net, optimizer=gr.optim.SGD(1e-3), comm=comm, replicas=replicas)
    rng = np.random.default_rng(comm.rank)
    rows = 16 if comm.rank else 4096
    batch = rng.standard_normal((rows, 256)).astype(np.float32), rng.integers(0, 5, rows)
    for _ in range(3):
        trainer.step(*batch)
    native, main, ended = trainer.session.peers.native, threading.main_thread().ident, ""

    def send():
        while not native.busy:  # until rank 0 is in its step
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    try:
        if comm.rank == 0:
            threading.Thread(target=send, daemon=True).start()
        trainer.step(*batch)
        trainer.step(*batch)
    except BaseException as error:
        ended = type(error).__name__
    count = trainer.step_count
    trainer.save(path)
    return ended, count


def steps_of_replicas(count):
    return steps(count, 2)


def steps(count, replicas=1):
    """The digest after so many steps, and the memory that this rank has in common with others."""
    comm = gr.comm.init(timeout=60)
    trainer, batch = trainer_of(comm, replicas=replicas), data(comm.rank)
    for _ in range(count):
        trainer.step(*batch)
    comm.barrier()
    found = digest(trainer)
    comm.barrier()
    return found


def restarted(path, epochs=8, milliseconds=0, kills=True):
    """A fit that is killed in its first generation, if ``kills``, and goes on from its checkpoint in the next."""
    comm = gr.comm.init(timeout=60)
    trainer = trainer_of(comm)
    x, y = (np.concatenate(parts) for parts in zip(data(0), data(1), data(2), strict=True))

    class Dies(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            time.sleep(milliseconds / 1000)
            if run.epoch == 3 and comm.generation == 0 and comm.rank == 1 and kills:
                os.kill(os.getpid(), signal.SIGKILL)

    saves = gr.callbacks.Checkpoint(path)
    trainer.fit((x, y), epochs=epochs, batch_size=8, callbacks=[Dies(), saves], resume="auto", verbose=0)
    comm.barrier()
    if comm.rank == 0:
        print(comm.generation, digest(trainer), flush=True)
    comm.barrier()


if __name__ == "__main__":
    restarted(sys.argv[1], *map(int, sys.argv[2:]), kills="killed" in sys.argv[1])
