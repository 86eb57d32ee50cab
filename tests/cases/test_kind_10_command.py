"""Kind 10: the command says what it assumes, and keeps in the file what the assumption needs."""

import json
import re

import numpy as np
import pytest

import gradring as gr
from gradring.cli import main
from gradring.model_file import read_model


@pytest.mark.parametrize(
    ("case", "y", "kind", "outputs"),
    [
        ("prices", np.random.default_rng(0).integers(50_000, 400_000, 240), "regress", 1),
        ("classes as floats", np.arange(240) % 3 * 1.0, "classify", 3),
        ("labels from 1", np.arange(240) % 4 + 1, "classify", 4),
        ("texts", np.array(["no", "yes"])[np.arange(240) % 2], "classify", 2),
    ],
)
def test_targets_mean_what_they_look_like(tmp_path, capsys, case, y, kind, outputs):
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((240, 5)))
    np.save(tmp_path / "y.npy", y)
    files = ["--x", str(tmp_path / "x.npy"), "--y", str(tmp_path / "y.npy"), "--out", str(tmp_path)]
    assert main(["train", *files, "--epochs", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"task: {kind}, ")
    model, metadata = read_model(tmp_path / "x.safetensors")
    assert model.params["2.bias"].shape == (outputs,)
    goal = json.loads(metadata["note.goal"])
    assert goal["task"] == kind and (kind == "regress" or goal["labels"] == np.unique(y).tolist())
    assert json.loads(metadata["note.input"])["shape"] == [5]
    assert main(["predict", str(tmp_path / "x.safetensors"), *files[:2]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 240 and (kind == "regress" or set(lines) <= {str(label) for label in np.unique(y).tolist()})
    if kind == "regress":
        assert np.abs(np.array(lines, float) - y.mean()).max() < 5 * y.std()
    assert repr(gr.load(tmp_path / "x.safetensors")).startswith("Sequential(Linear(5, 128), ReLU()")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--seed", "-1"], "argument --seed: expected a whole number of at least 0 and below 2**63, got '-1'"),
        (["--seed", str(2**63)], "argument --seed: expected a whole number of at least 0 and below 2**63"),
        (["--seed", "1.5"], "argument --seed: expected a whole number"),
        (["--epochs", "²"], "argument --epochs: expected a number of at least 1, got '²'"),
        (["--epochs", "9" * 5000], "argument --epochs: expected a number of at least 1"),
        (["--threads", "٣"], "argument --threads: expected a number of at least 1, or auto"),
    ],
)
def test_a_number_that_is_none_names_the_option(capsys, tmp_path, option, words):
    with pytest.raises(SystemExit) as caught:
        main(["train", "digits", "--out", str(tmp_path / "out"), *option])
    assert caught.value.code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predict_without_the_file_of_a_model(capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    assert main(["predict", str(tmp_path / "none.safetensors"), "--x", str(tmp_path / "x.npy")]) == 1
    assert "none.safetensors' is no such file: give the NAME.safetensors" in capsys.readouterr().err
    assert main(["predict", str(tmp_path), "--x", str(tmp_path / "x.npy")]) == 1
    assert "is a folder: give the NAME.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "target", "words"),
    [
        (b"a,a,c\n1,2,x\n3,4,y\n", "a", r"has two columns 'a': give the number of one, from 1 to 3"),
        (b"a,b\n1,2\n3,\xe9\n", "b", r"line \d+: byte 0xe9 is no UTF-8: save the table as UTF-8 text"),
        ("a,b\n1,2\n3,4\n".encode("utf-16"), "b", r"line \d+: byte 0xff is no UTF-8: save the table as UTF-8 text"),
        (b"a,b\n1,2\n3,4\n", "3", r"has no column '3': .* a number from 1 to 2 is"),
    ],
)
def test_tables_that_cannot_be_read(capsys, tmp_path, content, target, words):
    (tmp_path / "t.csv").write_bytes(content)
    out = tmp_path / "out"
    assert main(["train", "--x", str(tmp_path / "t.csv"), "--target", target, "--out", str(out)]) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not out.exists() or not list(out.iterdir())


def test_predict_refuses_what_is_not_finite_and_needs_an_output(capsys, monkeypatch, tmp_path):
    assert main(["train", "digits", "--epochs", "1", "--out", str(tmp_path), "--quiet"]) == 0
    x = np.zeros((3, 64), np.float32)
    np.save(tmp_path / "good.npy", x)
    x[1, 7] = np.nan
    np.save(tmp_path / "bad.npy", x)
    given = ["predict", str(tmp_path / "digits.safetensors"), "--x"]
    assert main([*given, str(tmp_path / "bad.npy")]) == 1
    assert "element 7 of sample 1 is nan: every value must be finite" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdout", None)
    assert main([*given, str(tmp_path / "good.npy")]) == 1
    assert "standard output is closed: give --out" in capsys.readouterr().err


def test_rows_with_a_single_one_are_labels(capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((60, 5)))
    for y, refused in ((np.eye(3)[np.arange(60) % 3], True), (np.eye(3, dtype="?")[np.arange(60) % 3], True),
                       (np.random.default_rng(2).random((60, 2)), False)):  # fmt: skip
        np.save(tmp_path / "y.npy", y)
        files = ["--x", str(tmp_path / "x.npy"), "--y", str(tmp_path / "y.npy"), "--epochs", "1", "--overwrite"]
        assert main(["train", *files, "--out", str(tmp_path / "out")]) == int(refused)
        assert ("take argmax(1)" in capsys.readouterr().err) == refused
        assert main(["train", *files, "--out", str(tmp_path / "out"), "--task", "regress"]) == 0


def test_folders_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("precious")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert main(["train", "digits", "--epochs", "1", "--out", str(folder)]) == 1
        assert "is a file, or inside one: give a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"
    assert main(["train", "digits", "--epochs", "1", "--out", "/proc/none"]) == 1
    assert "[train] --out: no file can be written in the folder /proc/none" in capsys.readouterr().err
