"""Several trainers at once, and one trainer from two Python threads."""

import threading

import numpy as np
import pytest

import gradring as gr
from helpers import mlp, snapshot


def in_threads(*works):
    """Run them at the same time; return what each raised, or None."""
    raised = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(number, work):
        barrier.wait()
        try:
            work()
        except BaseException as error:
            raised[number] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return raised


@pytest.mark.parametrize("threads", [1, 2, "auto"])
def test_two_trainers_at_once_are_as_alone(blobs, threads):
    def trainer(seed):
        return gr.Trainer(mlp(8, 64, 3), seed=seed, threads=threads)

    alone, together = [trainer(0), trainer(1), trainer(2)], [trainer(0), trainer(1), trainer(2)]
    for made in alone:
        made.fit(blobs, epochs=20)
    assert in_threads(*(lambda made=made: made.fit(blobs, epochs=20) for made in together)) == [None] * 3
    for a, b in zip(alone, together, strict=True):
        assert snapshot(a) == snapshot(b)


def test_one_trainer_serves_one_thread_at_a_time(blobs):
    trainer = gr.Trainer(mlp(8, 16, 3))
    inside, leave = threading.Event(), threading.Event()

    class Hold(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            inside.set()
            assert leave.wait(30)

    fit = threading.Thread(target=lambda: trainer.fit(blobs, epochs=1, callbacks=[Hold()]))
    fit.start()
    assert inside.wait(30)
    for name, call in {
        "fit": lambda: trainer.fit(blobs),
        "load": lambda: trainer.load("never"),
    }.items():
        with pytest.raises(gr.GradringError, match=rf"\[Trainer.{name}\] this trainer is in use by another thread"):
            call()
    leave.set()
    fit.join(30)
    trainer.fit(blobs)


def test_steps_of_one_trainer_from_two_threads_are_whole_or_refused(blobs):
    """However they fall together, each step counts once or raises, and nothing tears."""
    trainer = gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.SGD(0.0))
    x, y = blobs
    first = {name: array.copy() for name, array in trainer.params.items()}
    refused, done = [0, 0], [0, 0]

    def steps(number):
        for _ in range(300):
            try:
                assert np.isfinite(trainer.step(x, y))
                done[number] += 1
            except gr.GradringError:
                refused[number] += 1

    assert in_threads(lambda: steps(0), lambda: steps(1)) == [None, None]
    assert sum(done) + sum(refused) == 600 and trainer.step_count == sum(done) > 0
    for name, array in first.items():
        np.testing.assert_array_equal(trainer.params[name], array)


def test_callbacks_may_use_the_trainer_that_runs_them(blobs, tmp_path):
    class Use(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.trainer.evaluate(blobs)
            run.trainer.predict(blobs[0])
            run.trainer.save(tmp_path / "a")

    gr.Trainer(mlp(8, 16, 3)).fit(blobs, epochs=2, callbacks=[Use()])
    assert (tmp_path / "a").exists()


def test_a_step_within_a_step_is_refused(blobs):
    """A layer, or a loader's function, that uses the trainer that runs it gets an error, and so does its step."""
    inner, predicting = [], []

    def predicts(x):
        """Its own layer is this one again, which may not predict."""
        predicting.append(1)
        try:
            trainer.predict(x)
        finally:
            predicting.clear()
        raise gr.GradringError("in use")

    def forward(x):
        for use in (
            lambda: trainer.step(*blobs),
            lambda: trainer.fit(blobs, epochs=1),
            *([] if predicting else [lambda: predicts(blobs[0])]),
        ):
            with pytest.raises(gr.GradringError, match="is running already|in use"):
                use()
            inner.append(use)
        return x * 1

    layers = gr.nn.Linear(8, 3), gr.nn.Function(forward, lambda *given: given[-1] * 1)
    trainer = gr.Trainer(gr.nn.Sequential(*layers), optimizer=gr.optim.SGD(0.1))
    assert np.isfinite(trainer.step(*blobs)) and len(inner) >= 3
    count = trainer.step_count
    trainer.fit(blobs, epochs=1, batch_size=100)
    assert trainer.step_count == count + 3


@pytest.mark.parametrize("way", ["load", "load_state_dict", "reset", "restore_best"])
def test_parameters_that_are_replaced_are_never_seen_half_written(way, blobs, tmp_path):
    """A reader that is inside keeps the writer out, and the writer keeps later readers out until it is done."""
    trainer = gr.Trainer(mlp(8, 16, 3), seed=1)
    trainer.fit(blobs, epochs=1)
    path = tmp_path / "saved.safetensors"
    trainer.save(path)
    state = trainer.state_dict()
    before = snapshot(trainer)
    entered, leave, done = threading.Event(), threading.Event(), threading.Event()

    def batches():
        yield blobs[0][:4]
        entered.set()
        assert leave.wait(60)
        yield blobs[0][4:8]

    class Restore(gr.callbacks.EarlyStop):
        def on_epoch_end(self, run):
            super().on_epoch_end(run)
            for array in run.trainer.params.values():
                array += 1
            reader.start()
            assert entered.wait(60)

    replace = {
        "load": lambda: trainer.load(path),
        "load_state_dict": lambda: trainer.load_state_dict(state),
        "reset": lambda: trainer.reset(5),
        "restore_best": lambda: trainer.fit(blobs, epochs=1, callbacks=[Restore("loss", restore_best=True)]),
    }[way]

    def write():
        replace()
        done.set()

    seen = []
    reader = threading.Thread(target=lambda: seen.append(trainer.predict(batches())))
    writer = threading.Thread(target=write)
    if way != "restore_best":
        for array in trainer.params.values():
            array += 1
        before = snapshot(trainer)
        reader.start()
        assert entered.wait(60)
    writer.start()
    assert entered.wait(60)
    held = None if way == "restore_best" else before
    assert not done.wait(0.2)
    assert held is None or snapshot(trainer) == held
    leave.set()
    writer.join(60)
    reader.join(60)
    assert done.is_set()
    assert seen[0].shape == (8, 3)
