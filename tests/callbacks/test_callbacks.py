import pytest

import gradring as gr


class Recorder(gr.callbacks.Callback):
    def __init__(self):
        self.calls = []

    def on_fit_start(self, run):
        self.calls.append(("start", run.epoch, run.first_epoch, run.last_epoch, run.batches))

    def on_report(self, run):
        self.calls.append(("report", run.epoch, run.batch, dict(run.metrics)))

    def on_epoch_end(self, run):
        self.calls.append(("epoch", run.epoch, run.batch, run.trainer.epoch))

    def on_fit_end(self, run):
        self.calls.append(("end",))


def test_the_order_of_calls(trainer, data):
    recorder = Recorder()
    trainer.fit(data, epochs=2, callbacks=[recorder])
    assert recorder.calls == [("start", 0, 0, 2, 4), ("epoch", 0, 4, 1), ("epoch", 1, 4, 2), ("end",)]
    recorder.calls.clear()
    trainer.fit(data, epochs=1, callbacks=[recorder])
    assert recorder.calls == [("start", 2, 2, 3, 4), ("epoch", 2, 4, 3), ("end",)]


def test_reports_come_between_steps(trainer, data, monkeypatch):
    monkeypatch.setattr(gr.session.user, "REPORT_SECONDS", -1.0)
    recorder = Recorder()
    trainer.fit(data, epochs=1, callbacks=[recorder])
    assert [call[2] for call in recorder.calls if call[0] == "report"] == [1, 2, 3, 4]
    assert recorder.calls[1] == ("report", 0, 1, {"loss": 1.0})


def test_stop_ends_after_the_epoch(trainer, data):
    class Stop(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.stop = "enough"

    assert len(trainer.fit(data, epochs=5, callbacks=[Stop()])) == 1


def test_an_exception_of_a_callback_ends_the_run_cleanly(trainer, data):
    class Fail(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            raise RuntimeError("mine")

    recorder = Recorder()
    with pytest.raises(RuntimeError, match="mine"):
        trainer.fit(data, epochs=5, callbacks=[recorder, Fail()])
    assert recorder.calls[-1] == ("end",)
    assert len(trainer.fit(data, epochs=2)) == 2


def test_what_is_no_callback(trainer, data):
    with pytest.raises(TypeError, match=r"\[Trainer.fit\] callbacks must be of gr.callbacks, got builtin_function"):
        trainer.fit(data, callbacks=[print])
