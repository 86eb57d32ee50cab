"""A trace of steps on a device has the device's own time of each instruction."""

import itertools
import json

import gradring as gr
from device_producers import run_lazily

SCRIPT = """
import sys
import numpy as np
import gradring as gr
rng = np.random.default_rng(0)
x, y = rng.normal(size=(96, 8)).astype("float32"), rng.integers(0, 3, 96)
params = []
for traced in (False, True):
    layers = gr.nn.Linear(8, 16), gr.nn.ReLU(), gr.nn.Linear(16, 3)
    trainer = gr.Trainer(gr.nn.Sequential(*layers), device="cuda", accumulate=2, optimizer=gr.optim.SGD(0.1), seed=1)
    callbacks = [gr.callbacks.Trace(PATH)] if traced else []
    trainer.fit((x, y), epochs=2, batch_size=32, callbacks=callbacks, verbose=False)
    launches = gr.cuda.streams.native().software_calls().get("cudaGraphLaunch")
    for rows in (32, 40):
        trainer.step(x[:rows], y[:rows])  # as graphs again
    assert gr.cuda.streams.native().software_calls()["cudaGraphLaunch"] == launches + 2
    params.append({name: array.numpy() for name, array in trainer.params.items()})
print(sum(int((params[0][name] != array).sum()) for name, array in params[1].items()))
"""


def spans_of(path):
    events = json.loads(path.read_text())["traceEvents"]
    (row,) = {event["tid"] for event in events if event["ph"] == "M" and event["args"]["name"] == "cuda:0"}
    return [
        (event["name"], event["ts"], event["ts"] + event["dur"])
        for event in events
        if event["ph"] == "X" and event["tid"] == row
    ]


def test_each_instruction_has_the_time_that_the_device_took_for_it(tmp_path):
    for schedule in ("eager", "lazy", "3"):
        path = tmp_path / f"{schedule}.json"
        script = SCRIPT.replace("PATH", repr(str(path)))
        # Every operation takes a microsecond of the device's clock, but the check of a step.
        assert run_lazily(script, GRADRING_CUDA_SCHEDULE=schedule, GRADRING_CUDA_TIMES="check_step_kernel:500") == "0"
        spans = spans_of(path)
        steps = [span for span in spans if span[0] == "step"]
        whole = [span for span in spans if span[0] in ("step", "flush")]
        inner = [span for span in spans if span not in whole]
        assert len(steps) == 6 and len(whole) == 8  # each epoch ends with an update for its third batch
        updates = [span for span in inner if span[0].startswith("sgd")]
        checks = [span for span in inner if span[0].startswith("check_step")]
        assert (len(updates), len(checks)) == (4, 6), inner
        for name, begin, end in inner:
            assert (500 <= end - begin < 510) if name.startswith("check_step") else end - begin < 50, (name, begin, end)
        layers = {name for name, _, _ in inner if "(" in name}
        assert any(name.startswith("linear (0.Linear(8, 16))") for name in layers), layers
        for name, begin, end in inner:
            assert end >= begin and any(a - 0.01 <= begin and end <= b + 0.01 for _, a, b in whole), (name, begin, end)
        ordered = sorted(inner, key=lambda span: span[1])
        assert all(one[2] <= other[1] + 0.01 for one, other in itertools.pairwise(ordered))


def test_a_trainer_goes_on_after_a_trace_that_ended_by_an_error(tmp_path, blobs):
    x, y = blobs
    bad = y.copy()
    bad[20] = 9
    trainer = gr.Trainer(gr.nn.Linear(8, 3), device="cuda", optimizer=gr.optim.SGD(0.1))
    for labels in (bad, y):
        failed = False
        try:
            callbacks = [gr.callbacks.Trace(tmp_path / "t.json")]
            trainer.fit((x, labels), epochs=1, batch_size=16, callbacks=callbacks, verbose=False)
        except ValueError as error:
            failed = "label is 9" in str(error)
        assert failed == (labels is bad)
        assert any(name == "step" for name, _, _ in spans_of(tmp_path / "t.json"))
