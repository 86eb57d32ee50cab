import csv
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import gradring as gr
from gradring import checkpoint, cuda_devices
from gradring.cli import main


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_is_the_main_job(tmp_path, capsys, seed):
    assert main(["train", "digits", "--seed", str(seed), "--out", str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert sorted(os.listdir(tmp_path)) == ["digits.safetensors", "history.csv"]
    rows = table(tmp_path / "history.csv")
    assert float(rows[-1]["val_accuracy"]) >= 0.97
    first, second = output.out.splitlines()
    assert first.startswith(f"digits: accuracy {float(rows[-1]['val_accuracy']):.2%}".replace("%", " %"))
    assert second.startswith("where the time went: ") and "the bottleneck is" in second
    assert "epoch 40/40: loss" in output.err and "val_accuracy" in output.err
    tensors, metadata = checkpoint.read(tmp_path / "digits.safetensors")
    assert tensors["0.weight"].shape[0] == 64 and int(metadata["epoch"]) == len(rows)


@pytest.fixture
def own(tmp_path):
    """Files x.npy and y.npy of two classes; returns the arguments that name them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    np.save(tmp_path / "x.npy", (rng.standard_normal((400, 2, 3)) + y[:, None, None]).astype("f4"))
    np.save(tmp_path / "y.npy", y)
    return ["train", "--x", str(tmp_path / "x.npy"), "--y", str(tmp_path / "y.npy"), "--out", str(tmp_path / "out")]


def test_a_device_that_cannot_be_used_is_refused_before_anything_is_written(own, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cuda_devices, "report", lambda: None)
    assert main([*own, "--device", "cuda:1"]) == 1
    said = capsys.readouterr().err
    assert "[train --device] device 'cuda:1': gradring was built without CUDA; CUDACXX=nvcc pip install" in said
    assert main([*own, "--device", "tpu"]) == 1
    assert "[train --device] device is 'tpu': write 'cpu', 'cuda' or 'cuda:0'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(cuda_devices.obstacle() is not None, reason="no CUDA device")
def test_a_device_trains_as_the_cpu_and_its_file_goes_on_there(own, tmp_path, capsys):
    options = ["--hidden", "8", "--lr", "0.01", "--quiet"]
    assert main([*own, *options, "--epochs", "3", "--device", "cuda"]) == 0
    assert main([*own[:-1], str(tmp_path / "cpu"), *options, "--epochs", "3"]) == 0
    device, cpu = (checkpoint.read(tmp_path / place / "x.safetensors") for place in ("out", "cpu"))
    for name, array in cpu[0].items():
        np.testing.assert_allclose(device[0][name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    assert device[1]["epoch"] == cpu[1]["epoch"] == "3"
    assert main([*own, *options, "--epochs", "5", "--resume"]) == 0  # on the CPU
    assert checkpoint.read(tmp_path / "out" / "x.safetensors")[1]["epoch"] == "5"
    assert main([*own, *options, "--replicas", "2", "--overwrite", "--device", "cuda"]) == 1
    assert "are planned; this version trains on one CUDA device" in capsys.readouterr().err


def test_own_files(own, tmp_path, capsys):
    options = ["--hidden", "8,4", "--epochs", "12", "--batch-size", "16", "--lr", "0.01", "--threads", "1"]
    assert main([*own, *options]) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["history.csv", "x.safetensors"]
    tensors, _ = checkpoint.read(tmp_path / "out" / "x.safetensors")
    assert [tensors[f"{i}.weight"].shape for i in (0, 2, 4)] == [(6, 8), (8, 4), (4, 2)]
    assert float(table(tmp_path / "out" / "history.csv")[-1]["val_accuracy"]) > 0.8
    said = capsys.readouterr().out
    assert "on 80 test samples" in said
    assert re.match(
        r"task: classify, 2 classes \(0, 1\), because .*y.npy holds whole numbers, 2 of which differ in 400", said
    )


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop", "lion"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_optimizers_and_dtypes(own, tmp_path, optimizer, dtype):
    assert main([*own, "--optimizer", optimizer, "--dtype", dtype, "--hidden", "", "--epochs", "2"]) == 0
    tensors, metadata = checkpoint.read(tmp_path / "out" / "x.safetensors")
    assert tensors["0.weight"].dtype == dtype and metadata["optimizer"].lower().startswith(optimizer)


def test_replicas_train_the_same_but_for_rounding(own, tmp_path):
    given = ["--dtype", "float64", "--hidden", "7", "--epochs", "2", "--batch-size", "50", "--overwrite", "--quiet"]
    found = []
    for replicas in ("1", "3"):
        assert main([*own, *given, "--replicas", replicas]) == 0
        found.append(checkpoint.read(tmp_path / "out" / "x.safetensors")[0])
    one, three = found
    assert all(np.allclose(one[name], three[name], rtol=0, atol=1e-12) for name in ("0.weight", "2.bias"))


def test_regression(tmp_path, capsys):
    x = np.random.default_rng(0).standard_normal((200, 3))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", x @ [1.0, 2.0, 3.0])
    paths = ["--x", str(tmp_path / "x.npy"), "--y", str(tmp_path / "y.npy"), "--out", str(tmp_path)]
    assert main(["train", *paths, "--epochs", "60", "--lr", "0.01"]) == 0
    rows = table(tmp_path / "history.csv")
    assert "accuracy" not in rows[0] and float(rows[-1]["val_loss"]) < 0.05 * float(rows[0]["val_loss"])
    said = capsys.readouterr().out
    assert re.match(r"task: regress, one number, because .*y\.npy holds fractions\n", said)
    score, error = map(float, re.search(r"x: R2 ([\d.]+), root mean square error (\S+) on 40", said).groups())
    assert score > 0.95 and error < 0.25 * np.std(x @ [1.0, 2.0, 3.0])


def test_resume_ends_where_one_run_ends(own, tmp_path):
    assert main([*own, "--epochs", "6", "--seed", "3"]) == 0
    whole, _ = checkpoint.read(tmp_path / "out" / "x.safetensors")
    assert main([*own, "--epochs", "6", "--overwrite"]) == 0
    # The learning rate depends on the number of epochs, so a run that is broken off is one of six epochs all the same.
    trainer_stops_after(3, lambda: main([*own, "--epochs", "6", "--seed", "3", "--overwrite"]))
    broken, metadata = checkpoint.read(tmp_path / "out" / "x.safetensors")
    assert metadata["epoch"] == "3" and not np.array_equal(broken["0.weight"], whole["0.weight"])
    assert main([*own, "--epochs", "6", "--seed", "3", "--resume"]) == 0
    resumed, _ = checkpoint.read(tmp_path / "out" / "x.safetensors")
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array)
    assert [row["epoch"] for row in table(tmp_path / "out" / "history.csv")] == list("123456")


def trainer_stops_after(epochs, work):
    """Run `work` and interrupt its fit after so many epochs, as Ctrl-C would."""
    real = gr.callbacks.Progress.on_epoch_end

    def interrupting(self, run):
        real(self, run)
        if run.epoch + 1 == epochs:
            raise KeyboardInterrupt

    gr.callbacks.Progress.on_epoch_end = interrupting
    try:
        assert work() == 130
    finally:
        gr.callbacks.Progress.on_epoch_end = real


def test_ctrl_c_saves_what_there_is(tmp_path):
    command = [sys.executable, "-m", "gradring", "train", "digits", "--epochs", "1000000", "--out", str(tmp_path)]
    # A test run in the background ignores Ctrl-C, and so would its children.
    heard = ["env", "--default-signal=INT", *command]
    process = subprocess.Popen(heard, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.2)
    seen = ""
    while "val_accuracy" not in seen:  # the first epoch is over
        seen += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "--resume continues from it" in error
    _, metadata = checkpoint.read(tmp_path / "digits.safetensors")
    assert int(metadata["step"]) > 0


def bad(own, *options):
    return [*own, *options]


def damaged(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: damaged(d / "x.npy"), r"x\.npy is not an \.npy file of numbers, or is damaged"),
        (lambda d: (d / "y.npy").write_bytes(b"PK\x03\x04"), r"y\.npy is not an \.npy file of numbers"),
        (lambda d: (d / "x.npy").unlink(), r"there is no file .*x\.npy"),
        (lambda d: np.save(d / "y.npy", np.zeros(399, int)), r"x\.npy has 400 samples, .*y\.npy has 399"),
        (lambda d: np.save(d / "y.npy", np.full(400, -1)), r"y\.npy has only one class, -1: at least two"),
        (lambda d: np.save(d / "y.npy", np.zeros((400, 2), int)), r"y\.npy is \(400, 2\); int labels must be \(N,\)"),
        (lambda d: np.save(d / "y.npy", np.array(["a"] * 400)), r"y\.npy has only one class, a: at least"),
        (lambda d: np.save(d / "y.npy", np.zeros(400, complex)), r"y\.npy must hold labels \(N,\), or numbers"),
        (lambda d: np.save(d / "y.npy", np.full(400, np.nan)), r"y\.npy: the target of sample 0 is nan: every target"),
        (lambda d: np.save(d / "x.npy", np.zeros((0, 3))), r"x\.npy"),
        (lambda d: np.save(d / "x.npy", np.zeros(())), r"x\.npy is \(\): there must be at least one sample"),
        (
            lambda d: np.save(d / "x.npy", np.zeros((400, 2), complex)),
            r"x\.npy must hold numbers, got dtype complex128",
        ),
        (
            lambda d: np.save(d / "x.npy", np.full((400, 2), np.nan)),
            r"x\.npy: element 0 of sample 0 is nan: every value must be finite",
        ),
        (
            lambda d: (np.save(d / "x.npy", np.zeros((1, 2))), np.save(d / "y.npy", np.zeros(1, int))),
            r"--test-share must",
        ),
        (lambda d: (d / "out").write_text("a file"), r"out"),
    ],
)
def test_bad_files(own, tmp_path, capsys, change, words):
    change(tmp_path)
    assert main(own) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gradring: error: ")
    assert re.search(words, error), error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "give digits, fashion-mnist, or your own arrays"),
        (["train", "--x", "a.npy"], "give digits, fashion-mnist, or your own arrays"),
        (["train", "digits", "--x", "a.npy"], "give either digits or --x and --y, not both"),
        (["train", "digits", "--threads", "1000"], r"threads must be 'auto' or an int from 1 to 256"),
        (["train", "fashion-mnist", "--folder", "/nowhere"], "install it with 'apt install dataset-fashion-mnist'"),
        (["train", "digits", "--resume"], "there is no file digits.safetensors"),
        (["train", "digits", "--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gradring: error: ") and re.search(words, error), error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--hidden", "a"],
        ["--hidden", "3,0"],
        ["--threads", "0"],
        ["--seed", "-4"],
        ["--replicas", "0"],
        ["--dtype", "int8"],
        ["mnist"],
        ["--epochs", "-1"],
        ["--batch-size", "0"],
        ["--lr", "-1"],
    ],
)
def test_options_that_the_parser_refuses(options, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", *options])
    assert ended.value.code == 2 and "usage: gradring train" in capsys.readouterr().err


def test_the_command_itself():
    for command in (["gradring"], [sys.executable, "-m", "gradring"]):
        if command[0] == "gradring" and not __import__("shutil").which("gradring"):
            continue
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0 and result.stdout == f"gradring {gr.__version__}\n"
