"""The command binds columns by name, keeps labels as they were written, and never tests on what it trained on."""

import re

import numpy as np
import pytest

from gradring.cli import main
from gradring.cli.tables import labels_of_file, read_table, typed

RNG = np.random.default_rng(11)
X = RNG.standard_normal((120, 3)) * [1, 10, 100]
Y = (X[:, 0] > 0).astype(int)


def table(path, columns, rows=X, header=True):
    """A CSV file of these columns of rows: their numbers, or texts for all rows."""
    names = ["width", "height", "depth"]
    cells = [[repr(v) for v in rows[:, names.index(c)].tolist()] if c in names else [c] * len(rows) for c in columns]
    lines = [",".join(row) for row in zip(*cells, strict=True)]
    path.write_text("\n".join(([",".join(columns)] if header else []) + lines) + "\n")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    np.save(folder / "y.npy", Y)
    given = ["--x", str(table(folder / "x.csv", ["width", "height", "depth"])), "--y", str(folder / "y.npy")]
    assert main(["train", *given, "--epochs", "12", "--lr", "0.05", "--out", str(folder), "--quiet"]) == 0
    return folder / "x.safetensors"


def predicted(model, path, folder):
    assert main(["predict", str(model), "--x", str(path), "--out", str(folder / "p.npy"), "--overwrite"]) == 0
    return np.load(folder / "p.npy")


def test_columns_are_bound_by_name(model, tmp_path, capsys):
    want = predicted(model, table(tmp_path / "a.csv", ["width", "height", "depth"]), tmp_path)
    assert (want == Y).mean() > 0.9
    for columns in (["depth", "width", "height"], ["height", "depth", "width"]):
        np.testing.assert_array_equal(predicted(model, table(tmp_path / "b.csv", columns), tmp_path), want)
    nameless = table(tmp_path / "c.csv", ["width", "height", "depth"], header=False)
    np.testing.assert_array_equal(predicted(model, nameless, tmp_path), want)
    assert capsys.readouterr().err == ""
    more = table(tmp_path / "d.csv", ["colour", "depth", "width", "remark", "height"])
    np.testing.assert_array_equal(predicted(model, more, tmp_path), want)
    assert "does not read the columns colour, remark" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            ["width", "height", "deep"],
            "has no column 'depth'; the model was trained on the columns width, height, depth",
        ),
        (["width", "height", "depth", "width"], "has two columns 'width'"),
    ],
)
def test_columns_that_do_not_fit(model, tmp_path, capsys, columns, words):
    assert main(["predict", str(model), "--x", str(table(tmp_path / "x.csv", columns))]) == 1
    assert words in capsys.readouterr().err


def test_a_column_is_taken_out_by_name_too(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("b,kind,a\n1,x,2\n3,y,4\n")
    read = read_table("train", path, "kind")
    assert read.names == ("b", "a") and read.x.tolist() == [[1, 2], [3, 4]] and read.target.tolist() == ["x", "y"]
    assert read_table("predict", path, None, ["a", "b"]).x.tolist() == [[2, 1], [4, 3]]


@pytest.mark.parametrize(
    ("texts", "want"),
    [
        (["1", "-2", "+3"], [1, -2, 3]),
        (["0", "10"], [0, 10]),
        (["007", "12"], ["007", "12"]),
        (["01.5", "2"], ["01.5", "2"]),
        (["1_000", "2"], ["1_000", "2"]),
        (["0x10", "1"], ["0x10", "1"]),
        (["1.", ".5", "-2e3"], [1.0, 0.5, -2000.0]),
        (["9" * 25, "1"], [1e25, 1.0]),
        (["1", "red"], ["1", "red"]),
        (["inf", "1"], [float("inf"), 1.0]),
    ],
)
def test_texts_become_numbers_only_if_nothing_is_lost(texts, want):
    found = typed(np.array(texts)).tolist()
    assert found == want and [type(v) for v in found] == [type(v) for v in want]


def test_labels_keep_their_zeros(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "y.csv").write_text("\n".join(np.array(["007", "12"])[Y]))
    given = ["--x", str(tmp_path / "x.npy"), "--y", str(tmp_path / "y.csv")]
    assert main(["train", *given, "--epochs", "1", "--out", str(tmp_path), "--quiet"]) == 0
    assert set(predicted(tmp_path / "x.safetensors", tmp_path / "x.npy", tmp_path).tolist()) <= {"007", "12"}
    out = ["--task", "regress", "--epochs", "1", "--out", str(tmp_path / "r"), "--quiet"]
    assert main(["train", *given, *out]) == 0  # they were asked to be numbers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind\n\na\n\n\nnan\n", "line 6, y: the value is missing ('nan')"),
        ('"two\nlines"\na\n\nb,c\n', "line 5: 2 cells, expected 1"),
        ("a\n\n\n?\nb\n", r"line 4, y: the value is missing"),
        ("", "is empty"),
    ],
)
def test_errors_of_label_files_name_the_line(tmp_path, text, words):
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)):
        labels_of_file("train", tmp_path / "y.csv", 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--seed", "1"], "--seed is 1, but was 0"),
        (["--test-share", "0.3"], "--test-share is 0.3, but was 0.2"),
        (["longer"], "has 121 samples, but had 120"),
        (["shuffled"], "the targets differ from before"),
    ],
)
def test_resuming_never_tests_on_what_was_trained_on(tmp_path, capsys, change, words):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    given = ["train", "--x", str(tmp_path / "x.npy"), "--y", str(tmp_path / "y.npy"), "--out", str(tmp_path)]
    assert main([*given, "--epochs", "1", "--quiet"]) == 0
    before = (tmp_path / "x.safetensors").read_bytes()
    assert main([*given, "--epochs", "2", "--resume", "--quiet"]) == 0
    capsys.readouterr()
    assert main([*given, "--epochs", "2", "--resume"]) == 0
    assert "because the file of the model says so" in capsys.readouterr().out
    assert (tmp_path / "x.safetensors").read_bytes() != before
    before = (tmp_path / "x.safetensors").read_bytes()
    if change == ["longer"]:
        np.save(tmp_path / "x.npy", np.concatenate([X, X[:1]]))
        np.save(tmp_path / "y.npy", np.concatenate([Y, Y[:1]]))
    if change == ["shuffled"]:
        np.save(tmp_path / "y.npy", Y[::-1].copy())
    options = change if change[0].startswith("--") else []
    capsys.readouterr()
    assert main([*given, "--epochs", "3", "--resume", *options]) == 1
    assert words in capsys.readouterr().err
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_what_is_read_is_not_replaced(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "history.csv", ["width", "height", "depth", "kind"])
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "history.csv").symlink_to(tmp_path / "history.csv")
    before = (tmp_path / "history.csv").read_bytes()
    for x, out in (("history.csv", "."), ("history.csv", "link"), ("link/history.csv", str(tmp_path))):
        assert main(["train", "--x", x, "--target", "width", "--overwrite", "--out", out]) == 1
        assert "is an input: it would be replaced" in capsys.readouterr().err
    new = table(tmp_path / "new.csv", ["width", "height", "depth"])
    for name in ("new.csv", "./new.csv"):
        assert main(["predict", str(model), "--x", "new.csv", "--out", name, "--overwrite"]) == 1
        assert "is an input" in capsys.readouterr().err
    assert (tmp_path / "history.csv").read_bytes() == before and new.read_text().startswith("width")
