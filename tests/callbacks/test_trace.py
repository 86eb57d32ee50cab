import json

import pytest

import gradring as gr


def test_a_trace_is_written_also_when_the_run_fails(trainer, data, tmp_path):
    path = tmp_path / "trace.json"
    trainer.fit(data, callbacks=[gr.callbacks.Trace(path)])
    assert isinstance(json.loads(path.read_text())["traceEvents"], list)
    path.unlink()
    with pytest.raises(TypeError):
        trainer.fit(data, callbacks=[gr.callbacks.Trace(path), Fail()])
    assert path.exists() and not gr._core.trace_is_on()


class Fail(gr.callbacks.Callback):
    def on_epoch_end(self, run):
        raise TypeError("mine")


def test_an_unwritable_folder_is_known_before_the_training(trainer, data, tmp_path):
    with pytest.raises(OSError, match=r"\[Trace\] .*none is not a folder"):
        trainer.fit(data, callbacks=[gr.callbacks.Trace(tmp_path / "none" / "trace.json")])
    assert trainer.step_count == 0
