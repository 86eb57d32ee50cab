"""gradring predict: the labels and numbers of a trained model, in the users' own terms."""

import csv
import re
import subprocess
import sys

import numpy as np
import pytest

import gradring as gr
from gradring.cli import main

RNG = np.random.default_rng(11)


def train(folder, x, y, *more):
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    files = ["--x", str(folder / "x.npy"), "--y", str(folder / "y.npy"), "--out", str(folder), "--quiet"]
    assert main(["train", *files, "--epochs", "30", "--lr", "0.01", "--threads", "1", *more]) == 0
    return str(folder / "x.safetensors"), ["--x", str(folder / "x.npy")]


@pytest.mark.parametrize("labels", [["cat", "dog, wet"], [1, 2], [0.5, 2.5], [False, True]], ids=str)
def test_labels(tmp_path, capsys, labels):
    y = RNG.integers(0, 2, 200)
    x = RNG.standard_normal((200, 3)) + 4 * y[:, None]
    given = np.array(labels)[y]
    model, files = train(tmp_path, x, given, "--task", "classify")
    assert main(["predict", model, *files]) == 0
    lines = [row[0] for row in csv.reader(capsys.readouterr().out.splitlines())]
    assert np.mean(np.array(lines) == given.astype(str)) > 0.95
    for out in ("p.npy", "p.csv"):
        assert main(["predict", model, *files, "--out", str(tmp_path / out)]) == 0
    saved = np.load(tmp_path / "p.npy")
    assert saved.dtype.kind == given.dtype.kind and saved.astype(str).tolist() == lines
    with open(tmp_path / "p.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == lines
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("numbers", [1, 3])
def test_numbers_in_their_own_units(tmp_path, capsys, numbers):
    x = RNG.standard_normal((300, 4)) * [1, 1e3, 1, 1] + [0, 5e5, 0, 0]
    y = (x - [0, 5e5, 0, 0]) / [1, 1e3, 1, 1] @ RNG.standard_normal((4, numbers)) * 1e4 + 3e5
    model, files = train(tmp_path, x, y[:, 0] if numbers == 1 else y)
    assert main(["predict", model, *files, "--out", str(tmp_path / "p.npy")]) == 0
    predicted = np.load(tmp_path / "p.npy")
    assert predicted.shape == ((300,) if numbers == 1 else (300, 3))
    assert np.std(predicted.reshape(300, -1) - y) < 0.2 * np.std(y)
    assert main(["predict", model, *files]) == 0
    lines = [[float(cell) for cell in line.split(",")] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_array_equal(np.array(lines).reshape(predicted.shape), predicted)


def test_bytes_stay_bytes(tmp_path, capsys):
    y = RNG.integers(0, 2, 120)
    x = (RNG.integers(0, 60, (120, 4, 4)) + 150 * y[:, None, None]).astype(np.uint8)
    model, files = train(tmp_path, x, y)
    assert main(["predict", model, *files]) == 0
    assert np.mean(np.array(capsys.readouterr().out.split(), int) == y) > 0.95
    np.save(tmp_path / "x.npy", x / 255)
    assert main(["predict", model, *files]) == 1
    assert "is of float64: the model was trained on bytes (uint8) of 0 to 255" in capsys.readouterr().err


def test_the_embedded_digits(tmp_path, capsys):
    assert main(["train", "digits", "--epochs", "3", "--out", str(tmp_path), "--quiet"]) == 0
    _, test = gr.datasets.digits()
    np.save(tmp_path / "t.npy", test.x)
    assert main(["predict", str(tmp_path / "digits.safetensors"), "--x", str(tmp_path / "t.npy")]) == 0
    assert np.mean(np.array(capsys.readouterr().out.split(), int) == test.y) > 0.9


@pytest.fixture
def model(tmp_path):
    return train(tmp_path, RNG.standard_normal((60, 3)), RNG.standard_normal(60))[0]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ones((5, 4)), r"n\.npy is \(5, 4\): the model was trained on samples of shape \(3,\)"),
        (np.ones((5, 3), np.uint8), r"is of uint8: the model was trained on numbers of another dtype"),
        (np.ones((5, 3), complex), r"must hold numbers, got dtype complex128"),
        (np.ones((0, 3)), r"there must be at least one sample|is damaged"),
        (np.ones(()), r"there must be at least one sample"),
    ],
)
def test_other_samples_are_refused(model, tmp_path, capsys, x, words):
    np.save(tmp_path / "n.npy", x)
    assert main(["predict", model, "--x", str(tmp_path / "n.npy"), "--out", str(tmp_path / "p.npy")]) == 1
    assert re.search(words, capsys.readouterr().err) and not (tmp_path / "p.npy").exists()


def test_nothing_is_overwritten_in_silence(model, tmp_path, capsys):
    (tmp_path / "p.npy").write_text("precious")
    command = ["predict", model, "--x", str(tmp_path / "x.npy"), "--out", str(tmp_path / "p.npy")]
    assert main(command) == 1
    assert "p.npy is there already: give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "p.npy").read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0 and np.load(tmp_path / "p.npy").shape == (60,)
    assert main([*command[:-1], str(tmp_path / "p.txt")]) == 1
    assert "--out must be an .npy or .csv file" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough(model, tmp_path):
    np.save(tmp_path / "many.npy", np.ones((50_000, 3)))
    command = [sys.executable, "-m", "gradring", "predict", model, "--x", str(tmp_path / "many.npy")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert float(process.stdout.readline()) == pytest.approx(float(process.stdout.readline()))
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 0 and said == ""


def test_files_that_say_nothing_of_samples(tmp_path, capsys):
    gr.nn.Linear(3, 2).save(tmp_path / "m")
    np.save(tmp_path / "n.npy", np.ones((5, 3)))
    assert main(["predict", str(tmp_path / "m"), "--x", str(tmp_path / "n.npy")]) == 1
    assert "is no file of gradring train" in capsys.readouterr().err
    gr.nn.Linear(3, 2).save(tmp_path / "m", notes={"goal": "{", "input": "{"})
    assert main(["predict", str(tmp_path / "m"), "--x", str(tmp_path / "n.npy")]) == 1
    assert capsys.readouterr().err.startswith(f"gradring: error: [predict] {tmp_path / 'm'}: ")
    with pytest.raises(TypeError, match=r"notes must be a dict of texts"):
        gr.nn.Linear(3, 2).save(tmp_path / "m", notes={"goal": 3})
