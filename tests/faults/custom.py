"""Functions of ranks that train together by gradients of their own."""

import hashlib
import os
import signal
import tempfile
from pathlib import Path

import numpy as np

import gradring as gr

from .training import data, refusal_of, report


def squares(params, batch):
    """A step of the user's own."""
    x, y = batch
    difference = x @ params["w"] + params["b"] - y
    grads = {"w": 2 * x.T @ difference / len(x), "b": np.array(2 * difference.mean())}
    return float((difference**2).mean()), grads, len(x)


def custom_trainer(comm, **options):
    params = {"w": np.full(12, 0.5), "b": np.array(1.0)}
    return gr.Trainer(step=squares, params=params, optimizer=gr.optim.AdamW(0.05), comm=comm, **options)


def custom_sharded(ranks, replicas=1):
    """Fifty updates with shards on a communicator of so many ranks, or on two replicas."""
    comm, rng = gr.comm.init(timeout=60) if ranks else None, np.random.default_rng(32)
    options = {"shards": 8, "replicas": replicas if ranks else 2, "accumulate": 3, "clip_norm": 0.3}
    trainer, x = custom_trainer(comm, **options), rng.standard_normal((99, 12))
    loader = gr.Loader(
        (x, x @ rng.standard_normal(12)), global_batch=24, shuffle=True, seed=5
    )  # the last one has 3 rows
    trainer.fit(loader, epochs=25, validate=(x, x[:, 0]), verbose=0)
    return (
        trainer.step_count,
        custom_digest(trainer),
        trainer.history.metrics["loss"],
        trainer.history.metrics["val_loss"],
    )


def custom_digest(trainer):
    return hashlib.sha256(trainer.params["w"].tobytes() + trainer.params["b"].tobytes()).hexdigest()


def custom_steps(comm, count):
    trainer, (x, y) = custom_trainer(comm), data(comm.rank)
    for _ in range(count):
        trainer.step((x.astype(np.float64), y))
    return custom_digest(trainer)


def killed_in_a_custom_update(whole):
    """Rank 1 dies in its third update: before its first write or, unless its parameters are to stay ``whole``, after it.
    Whether the survivor, whose parameters are arrays of its own, can save them and load the file."""
    comm = gr.comm.init(timeout=60)
    trainer, (x, y) = custom_trainer(comm), data(comm.rank)
    session = trainer._session
    update = session._uninterrupted

    def dies(calls, after):
        if comm.rank == 1 and trainer.step_count == 2 and "_updates" in after:
            if not whole:
                calls[0]()
            os.kill(os.getpid(), signal.SIGKILL)
        update(calls, after)

    session._uninterrupted = dies
    found = {}
    try:
        for _ in range(10):
            trainer.step((x.astype(np.float64), y))
    except gr.GradringError as error:
        found = {"error": type(error).__name__, "steps": trainer.step_count, "digest": custom_digest(trainer)}
    found["again"] = refusal_of(lambda: trainer.step((x.astype(np.float64), y)))
    with tempfile.TemporaryDirectory() as folder:
        trainer.save(Path(folder) / "custom.safetensors")
        other = custom_trainer(None)
        other.load(Path(folder) / "custom.safetensors")
        found["loaded"] = custom_digest(other) == found["digest"] and other.step_count == found["steps"]
    report(found)
