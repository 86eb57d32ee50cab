import json
from collections import defaultdict

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(8)
X, Y = RNG.standard_normal((2048, 64)).astype(np.float32), RNG.integers(0, 10, 2048)


def network(**options):
    layers = gr.nn.Linear(64, 256), gr.nn.ReLU(), gr.nn.Linear(256, 10)
    return gr.Trainer(gr.nn.Sequential(*layers).init(0), optimizer=gr.optim.SGD(0.1, momentum=0.9), **options)


def recorded(path):
    """The spans of each thread, by its number, and the threads' names."""
    spans, names, dropped = defaultdict(list), {}, 0
    for event in json.loads(path.read_text())["traceEvents"]:
        if event["ph"] == "M":
            names[event["tid"]] = event["args"]["name"]
            dropped += event["args"]["dropped"]
        else:
            assert event["ph"] == "X" and event["dur"] >= 0 and event["pid"] > 0
            spans[event["tid"]].append(event)
    return spans, names, dropped


def traced(trainer, data, path, epochs=2, **options):
    size = None if isinstance(data, list) else 256
    trainer.fit(data, epochs, callbacks=[gr.callbacks.Trace(path, **options)], batch_size=size, verbose=False)
    return recorded(path)


def counted(spans, name):
    return sum(event["name"] == name for events in spans.values() for event in events)


def test_every_threads_instructions_and_barriers(tmp_path):
    trainer = network(threads=2)
    spans, names, dropped = traced(trainer, (X, Y), tmp_path / "t.json")
    assert counted(spans, "step") == trainer.step_count == 16 and dropped == 0
    assert counted(spans, "callbacks") >= 2 and counted(spans, "validation") == 0
    graph = trainer.plan().graph
    ops = {node.op for node in graph.nodes}
    seen = {event["name"].split(" ")[0] for events in spans.values() for event in events}
    assert len(ops & seen) >= 3 and "gather" in seen
    layers = {event["name"] for events in spans.values() for event in events if "(" in event["name"]}
    assert "linear (0.Linear(64, 256))" in layers and any("(2.Linear" in name for name in layers), layers
    if trainer.session.device != "cpu":
        (row,) = (tid for tid, name in names.items() if name == "cuda:0")
        assert counted({row: spans[row]}, "step") == 16 and counted(spans, "gather") == 16
    elif gr._core.usable_cores() > 1:  # both numbers of lanes are tried at first
        assert counted(spans, "barrier") > 0 and len(spans) >= 2
        others = [events for events in spans.values() if not any(event["name"] == "step" for event in events)]
        assert any(event["name"] == "wait for lane 0" for events in others for event in events)


def test_spans_lie_within_each_other_or_apart(tmp_path):
    """As a viewer of stacks needs it."""
    loader = gr.Loader((X, Y), 256, shuffle=True, num_threads=2, transforms={0: gr.transforms.Scale(0.5)})
    spans, _, _ = traced(network(threads=2), loader, tmp_path / "t.json")
    for events in spans.values():
        ends = []
        for begin, end in sorted(((e["ts"], e["ts"] + e["dur"]) for e in events), key=lambda one: (one[0], -one[1])):
            while ends and ends[-1] <= begin + 0.002:
                ends.pop()
            assert not ends or end <= ends[-1] + 0.002
            ends.append(end)


@pytest.mark.parametrize("kind", ["arrays", "a loader", "a function", "batches"])
def test_the_loaders_work_and_the_waits_for_it(kind, tmp_path):
    data = {
        "arrays": lambda: (X, Y),
        "a loader": lambda: gr.Loader((X, Y), 256, num_threads=1, transforms={0: gr.transforms.Scale(2.0)}),
        "a function": lambda: gr.Loader(gr.sources.Callable(lambda i: (X[i], Y[i]), 2048), 256, num_threads=1),
        "batches": lambda: [(X[i : i + 256], Y[i : i + 256]) for i in range(0, 2048, 256)],
    }[kind]()
    trainer = network()
    spans, names, _ = traced(trainer, data, tmp_path / "t.json", epochs=1)
    filled = {tid for tid, events in spans.items() if any(event["name"] == "fill batch" for event in events)}
    if kind in ("a loader", "a function"):
        assert {names[tid] for tid in filled} <= {"gradring-load"} and counted(spans, "fill batch") == 8
        assert counted(spans, "next batch") >= 8
    else:
        assert not filled
    assert any(event["name"].startswith("linear") for events in spans.values() for event in events)


def test_it_changes_no_bit_and_ends(tmp_path):
    one, other = network(threads=2), network(threads=2)
    one.fit((X, Y), 2, batch_size=100, verbose=False)
    other.fit((X, Y), 2, batch_size=100, callbacks=[gr.callbacks.Trace(tmp_path / "t.json")], verbose=False)
    for name, array in one.params.items():
        np.testing.assert_array_equal(other.params[name], array)
    for _ in range(3):
        assert one.step(X[:50], Y[:50]) == other.step(X[:50], Y[:50])
    gr._core.trace_start()
    other.step(X[:50], Y[:50])
    other.step(X[:60], Y[:60])  # a program that is made during the trace
    gr._core.trace_stop()
    gr._core.trace_write(str(tmp_path / "later.json"))
    later = recorded(tmp_path / "later.json")[0]
    assert not any("(" in event["name"] for events in later.values() for event in events), "instructions"
    assert other.timings()["compute"] > 0


def test_accumulation_and_faults_in_a_traced_run(tmp_path):
    trainer = network(accumulate=3)
    spans, _, _ = traced(trainer, (X[:1000], Y[:1000]), tmp_path / "t.json", epochs=1)
    assert counted(spans, "step") == 4 and trainer.step_count == 2
    check = [gr.callbacks.Trace(tmp_path / "v.json")]
    trainer.fit((X, Y), 3, validate=(X[:100], Y[:100]), callbacks=check, verbose=False)
    assert counted(recorded(tmp_path / "v.json")[0], "validation") == 3
    bad = X.copy()
    bad[1500, 3] = np.nan
    with pytest.raises(gr.errors.NonFinite, match="sample 1500"):
        traced(network(), (bad, Y), tmp_path / "bad.json")
    assert recorded(tmp_path / "bad.json")[0] and not gr._core.trace_is_on()


def test_what_is_too_much_is_counted(tmp_path):
    spans, _, dropped = traced(network(), (X, Y), tmp_path / "t.json", events=10)
    assert all(len(events) <= 10 for events in spans.values()) and dropped > 0
    for wrong in (0, -1, 1.5, "many"):
        with pytest.raises((TypeError, ValueError), match="events"):
            gr.callbacks.Trace(tmp_path / "t.json", events=wrong)


def test_one_trace_at_a_time(tmp_path):
    two = [gr.callbacks.Trace(tmp_path / name) for name in "ab"]
    with pytest.raises(RuntimeError, match="one at a time"):
        network().fit((X, Y), callbacks=two, verbose=False)
    assert (tmp_path / "a").exists() and not (tmp_path / "b").exists() and not gr._core.trace_is_on()


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
    with pytest.raises(OSError, match=r"\[Trace\] .*there is no folder .*none.; make it first"):
        trainer.fit(data, callbacks=[gr.callbacks.Trace(tmp_path / "none" / "trace.json")])
    with pytest.raises(OSError, match="is a folder"):
        trainer.fit(data, callbacks=[gr.callbacks.Trace(tmp_path)])
    assert trainer.step_count == 0
