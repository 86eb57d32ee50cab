"""Kind 5: the parameters survive."""

import gc
import io
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib

import numpy as np
import pytest
from tqdm import tqdm

import gradring as gr
from gradring import checkpoint
from helpers import heed_signals

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((64, 4)).astype(np.float32), RNG.integers(0, 3, 64)


def trainer(optimizer=None):
    model = gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.Tanh(), gr.nn.Linear(5, 3))
    return gr.Trainer(model, optimizer=optimizer or gr.optim.SGD(0.1))


def own(function, params, **options):
    return gr.Trainer(step=function, params=params, optimizer=gr.optim.SGD(1.0), **options)


# A step of one's own


@pytest.mark.parametrize("clip_norm", [None, 100.0])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_accumulation_is_exact_for_any_shape(shape, clip_norm):
    made = own(lambda p, b: (0.0, {"w": np.full(shape, b[0], np.float64)}), {"w": np.zeros(shape)}, accumulate=4,
               clip_norm=clip_norm)  # fmt: skip
    for value in (4.0, 0.0, -1.0, 1.0):
        made.step(np.array([value, value]))
    np.testing.assert_allclose(made.params["w"], -1.0, rtol=1e-6)


BATCHES = {
    "arrays": lambda x: x,
    "pairs": lambda x: (x, x),
    "lists": lambda x: [x, x],
    "dicts": lambda x: {"y": x, "x": x},
    "lists of lists": lambda x: (x.tolist(), x.tolist()),
}


@pytest.mark.parametrize("form", BATCHES)
def test_the_mean_of_uneven_batches_is_that_of_the_samples(form):
    def step(params, batch):
        x = batch if isinstance(batch, np.ndarray) else batch["x"] if isinstance(batch, dict) else batch[0]
        return float(np.mean(x)), {"w": np.mean(x, keepdims=True).reshape(1)}

    values = np.array([1.0] * 64 + [99.0])

    class Batches:
        def __iter__(self):
            return iter([BATCHES[form](values[:64]), BATCHES[form](values[64:])])

    batches = Batches()
    made = own(step, {"w": np.zeros(1)})
    assert made.evaluate(batches)["loss"] == pytest.approx(values.mean())
    assert made.fit(batches, verbose=False).last["loss"] == pytest.approx(values.mean())
    made = own(step, {"w": np.zeros(1)}, accumulate=2)
    made.fit(batches, verbose=False)
    assert made.params["w"] == pytest.approx(-values.mean())


@pytest.mark.parametrize("name", ["__metadata__", "optimizer/m.w", "callbacks/EarlyStop/best", 3, None])
def test_a_name_that_no_file_can_hold(name):
    with pytest.raises((ValueError, TypeError), match=r"\[Trainer\] params:"):
        own(lambda p, b: (0.0, {}), {name: np.zeros(2), "w": np.zeros(2)})


def test_a_good_file_is_not_replaced_by_one_that_cannot_be_read(tmp_path):
    checkpoint.write(tmp_path / "a", {"w": np.ones(2)}, {})
    for name in ("__metadata__", 3):
        with pytest.raises(ValueError, match="cannot be called"):
            checkpoint.write(tmp_path / "a", {name: np.zeros(2)}, {})
    assert checkpoint.read(tmp_path / "a")[0]["w"].tolist() == [1, 1]


# Counts that cannot be


@pytest.mark.parametrize("value", [2**70, 2**63, -1, "many", None, float("inf")])
@pytest.mark.parametrize("name", ["step", "draw", "epoch", "batch", "seed"])
def test_counts_that_cannot_be(name, value, tmp_path):
    made = trainer(gr.optim.Adam())
    made.step(X, Y)
    before = made.params["0.weight"].copy()
    made.save(tmp_path / "a")
    tensors, metadata = checkpoint.read(tmp_path / "a")
    checkpoint.write(tmp_path / "a", {n: a + 1 for n, a in tensors.items()}, {**metadata, name: str(value)})
    with pytest.raises(gr.CheckpointCorrupt, match="the metadata do not fit"):
        made.load(tmp_path / "a")
    state = made.state_dict()
    state["params"] = {n: a + 1 for n, a in state["params"].items()}
    with pytest.raises(ValueError, match=r"\[Trainer\.load_state_dict\]"):
        made.load_state_dict({**state, name: value})
    np.testing.assert_array_equal(made.params["0.weight"], before)


def sealed(path, header, metadata, data=b""):
    """A file whose header has a right checksum, even if its contents are wrong."""
    whole = {**header, "__metadata__": dict(metadata)}
    whole["__metadata__"]["header_crc32"] = str(zlib.crc32(json.dumps(whole, sort_keys=True).encode()))
    text = json.dumps(whole).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


SUMS = {"w": zlib.crc32(bytes(8))}
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "sums", ["[1]", "{}", "{", "null", "3", '"w"', '{"w": null}', '{"w": "1"}', '{"v": 1}', "[" * 100_000, '{"w": -1}']
)
def test_checksums_that_are_none(sums, tmp_path):
    sealed(tmp_path / "a", {"w": ENTRY}, {"crc32": sums}, bytes(8))
    with pytest.raises(gr.CheckpointCorrupt):
        checkpoint.read(tmp_path / "a")


@pytest.mark.parametrize("shape", [[0, 2**62], [2**62, 0, 2**62], [2**40, 2**40, 0], [1] * 40 + [0]])
def test_shapes_that_no_array_can_have(shape, tmp_path):
    sealed(
        tmp_path / "a", {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}, {"crc32": json.dumps({"w": 0})}
    )
    with pytest.raises(gr.CheckpointCorrupt, match="'w' is said to be"):
        checkpoint.read(tmp_path / "a")


@pytest.mark.parametrize("metadata", [{"crc32": 3}, {"crc32": json.dumps(SUMS), "epoch": [1]}, {"crc32": None}])
def test_metadata_that_are_no_texts(metadata, tmp_path):
    sealed(tmp_path / "a", {"w": ENTRY}, metadata, bytes(8))
    with pytest.raises(gr.CheckpointCorrupt):
        checkpoint.read(tmp_path / "a")


@pytest.mark.parametrize("name", ["history", "callbacks"])
@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 100_000, "null", "3", '{"a": 3}', '{"a": "bc"}', '{"a": [[1]]}'])
def test_histories_that_are_none(name, text, tmp_path):
    made = trainer()
    made.save(tmp_path / "a")
    tensors, metadata = checkpoint.read(tmp_path / "a")
    checkpoint.write(tmp_path / "a", {n: a + 1 for n, a in tensors.items()}, {**metadata, name: text})
    before = made.params["0.weight"].copy()
    with pytest.raises(gr.CheckpointCorrupt, match="the metadata do not fit"):
        made.load(tmp_path / "a")
    np.testing.assert_array_equal(made.params["0.weight"], before)


# Numbers at the edge


@pytest.mark.parametrize("update", [gr.ops.adam_update, gr.ops.adamw_update])
@pytest.mark.parametrize("size", [1e15, 3e18, 3e19, -3e19, 5e20])
def test_adam_survives_one_large_gradient(update, size):
    param, m, v = np.zeros(5, np.float32), np.zeros(5, np.float32), np.zeros(5, np.float32)
    want = np.zeros(5), np.zeros(5), np.zeros(5)
    for step in range(1, 4):
        grad = np.full(5, size if step == 1 else 1.0, np.float32)
        update(param, grad, m, v, step=step, lr=0.1, weight_decay=0.0)
        want[1][:] = 0.9 * want[1] + 0.1 * grad.astype(np.float64)
        want[2][:] = 0.999 * want[2] + 0.001 * grad.astype(np.float64) ** 2
        want[0][:] -= 0.1 * want[1] / (1 - 0.9**step) / (np.sqrt(want[2] / (1 - 0.999**step)) + 1e-8)
        assert np.isfinite(v).all()
        np.testing.assert_allclose(param, want[0], rtol=1e-4)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (2, 7), (40, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_infinite_logit(shape, dtype):
    logits = np.zeros(shape, dtype)
    for sign, target, want in ((1, 0, np.inf), (-1, 1, np.inf), (1, 1, 0), (-1, 0, 0), (1, 0.5, np.inf)):
        logits[...] = sign * np.inf
        losses = gr.ops.binary_cross_entropy(logits, np.full(shape, target, dtype), reduction="sample")
        assert (losses == want).all(), (sign, target, losses)
    logits[...] = 2.0
    usual = gr.ops.binary_cross_entropy(logits, np.full(shape, 0.25, dtype))
    assert usual == pytest.approx(2.0 * 0.75 + np.log1p(np.exp(-2.0)), rel=1e-6)


# Signals and broken output


SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
import gradring as gr
x, y = np.random.default_rng(0).random((4000, 32), np.float32), np.zeros(4000, np.int64)
model = gr.nn.Sequential(gr.nn.Linear(32, 64), gr.nn.ReLU(), gr.nn.Linear(64, 3))
trainer = gr.Trainer(model)

class Tell(gr.callbacks.Callback):
    def on_report(self, run):
        if run.trainer.step_count > 20:
            print("training", flush=True)

try:
    trainer.fit((x, y), 10**6, callbacks=[gr.callbacks.Checkpoint(sys.argv[1], every=10**6), Tell()],
                on_signal=sys.argv[2], verbose=False)
except KeyboardInterrupt as error:
    print("ended", trainer.step_count, error, flush=True)
    sys.exit(7)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_the_state_after_a_whole_step(number, tmp_path):
    path = tmp_path / "m.safetensors"
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path), "save"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals
    ) as process:
        assert "training" in process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 7, err
    ended = next(line for line in out.splitlines() if line.startswith("ended"))
    assert signal.Signals(number).name in ended
    model = gr.nn.Sequential(gr.nn.Linear(32, 64), gr.nn.ReLU(), gr.nn.Linear(64, 3))
    again = gr.Trainer(model)
    again.load(path)
    assert str(again.step_count) == ended.split()[1] and again.step_count > 20


def test_by_default_a_signal_does_what_it_does(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "m"), "raise"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert "training" in process.stdout.readline()
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM and not (tmp_path / "m").exists()


def test_handlers_are_put_back_and_other_threads_are_told_that_they_see_no_signals():
    import threading

    def elsewhere():
        with pytest.raises(
            ValueError, match=r"\[Trainer\.fit\] on_signal='save'.*main thread.*'side'.*give a Checkpoint"
        ):
            trainer().fit((X, Y), on_signal="save", verbose=False)
        trainer().fit((X, Y), verbose=False)
        done.append(True)

    done = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    trainer().fit((X, Y), on_signal="save", verbose=False)
    thread = threading.Thread(target=elsewhere, name="side")
    thread.start()
    thread.join()
    assert done == [True]
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(ValueError, match="on_signal must be 'raise' or 'save'"):
        trainer().fit((X, Y), on_signal="ignore")


class Broken:
    """A text file whose reader has gone, after some calls."""

    def __init__(self, calls, error, terminal):
        self.calls, self.error, self.terminal = calls, error, terminal

    def isatty(self):
        return self.terminal

    def fileno(self):
        raise OSError("none")

    def write(self, text):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return len(text)

    def flush(self):
        if self.calls <= 0:
            raise self.error


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left"), ValueError("closed")]
)
@pytest.mark.parametrize("calls", [0, 1, 5])
def test_output_that_breaks_ends_no_training(terminal, error, calls, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Broken(calls, error, terminal))
    history = trainer().fit((X, Y), 5)
    monkeypatch.undo()
    assert len(history) == 5
    gc.disable()  # it would remove a broken bar that is left behind
    try:
        with tqdm(file=io.StringIO()) as later:
            assert later.pos == 0, "a later bar keeps a line free for the one that broke"
    finally:
        gc.enable()


def test_what_was_printed_last_makes_no_failure_of_success():
    """Python flushes at its exit, and exits with 120 where that fails: a reader may go at the last moment."""
    script = (
        "import os, sys; from gradring.cli import main; from gradring.cli import train\n"
        "def run(options):\n"
        "    reader, writer = os.pipe(); os.dup2(writer, 1); os.dup2(writer, 2); os.close(reader)\n"
        "    sys.stdout.write('a line without its end')\n"
        "    return 0\n"
        "train.run = run; sys.exit(main(['train', 'digits']))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 0


def test_the_command_survives_a_reader_that_goes(tmp_path):
    command = f"{sys.executable} -m gradring train digits --epochs 3 --out {tmp_path} 2>&1 >/dev/null | head -c 50"
    done = subprocess.run(
        ["bash", "-c", command + "; exit ${PIPESTATUS[0]}"], capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "digits.safetensors").exists() and (tmp_path / "history.csv").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_command_saves_at_a_signal(number, tmp_path):
    command = [sys.executable, "-m", "gradring", "train", "digits", "--epochs", "100000", "--out", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals
    ) as process:
        assert "epoch 1/" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "--resume" in err and (tmp_path / "digits.safetensors").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert time.time() - (tmp_path / "digits.safetensors").stat().st_mtime < 60
