"""What the command makes of users' files: which task, which labels, and what it refuses."""

import json
import re
import tracemalloc

import numpy as np
import pytest

from gradring import checkpoint
from gradring.cli import inputs, main, tables
from gradring.cli.inputs import Scaling
from gradring.cli.targets import Goal, goal
from gradring.model_file import notes_of

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("y", "kind", "why"),
    [
        (np.array(["b", "a", "b"] * 5), "classify", "holds texts"),
        (np.array([b"b", b"a"] * 5), "classify", "holds texts"),
        (np.array([True, False] * 5), "classify", "holds true and false"),
        (np.arange(1, 6).repeat(4), "classify", "5 of which differ in 20 samples"),
        (np.array([-1, 1] * 4), "classify", "2 of which differ"),
        (np.array([0.0, 1.0, 2.0] * 9), "classify", "3 of which differ"),
        (np.array([[0], [1]] * 9), "classify", "2 of which differ"),
        (np.arange(200).repeat(12), "classify", "200 of which differ in 2400"),
        (RNG.integers(100_000, 450_000, 500), "regress", "different whole numbers"),
        (np.arange(18), "regress", "18 different whole numbers in 18"),
        (np.linspace(0, 1, 30), "regress", "holds fractions"),
        (RNG.standard_normal((30, 2)), "regress", "2 numbers per sample"),
    ],
)
def test_the_task_and_its_reason(y, kind, why):
    found = goal("train", "y.npy", y, None)
    assert found.kind == kind and re.search(why, str(found)), str(found)


def test_what_is_asked_for_decides():
    assert goal("train", "y", np.arange(18), "classify").outputs == 18
    assert goal("train", "y", np.array([0, 1] * 4), "regress").mean == (0.5,)
    assert goal("train", "y", np.zeros((6, 2), int), "regress").outputs == 2
    with pytest.raises(ValueError, match=r"--task regress needs numbers, but y holds texts"):
        goal("train", "y", np.array(["a", "b"]), "regress")
    with pytest.raises(ValueError, match=r"y is \(6, 2\); labels of classes must be \(N,\)"):
        goal("train", "y", np.zeros((6, 2), int), "classify")
    with pytest.raises(ValueError, match=r"100001 different values: too many classes"):
        goal("train", "y", np.arange(100_001), "classify")


LABELS = [
    np.array(["red", "a,b", 'q"t', "ä\n"]),
    np.array([1, 2, 3]),
    np.array([-1, 1], np.int8),
    np.array([0.5, 1.5, 1e300]),
    np.array([False, True]),
    np.array([0, 2**63], np.uint64),
]


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: str(labels.dtype))
def test_labels_of_any_kind_come_back(labels):
    y = labels[RNG.integers(0, len(labels), 50)]
    y[: len(labels)] = labels
    made = goal("train", "y", y, "classify")
    again = Goal.from_note(made.note())
    hot = np.eye(again.outputs)[made.encoded(y)]
    np.testing.assert_array_equal(again.decoded(hot), y)


def test_numbers_come_back_in_their_units():
    y = RNG.standard_normal((40, 2)) * [1e5, 1e-5] + [3e6, 0]
    made = goal("train", "y", y, None)
    scaled = made.encoded(y)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1)
    np.testing.assert_allclose(Goal.from_note(made.note()).decoded(scaled), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"task": "classify"}', '{"task": "classify", "labels": []}', '{"task":"classify","labels":[[]]}',
             '{"task": "guess", "mean": [0], "deviation": [1]}', '{"task":"regress","mean":[0],"deviation":[]}', "[" * 99999]
)  # fmt: skip
def test_damaged_notes(text):
    with pytest.raises(ValueError):
        Goal.from_note(text)
    with pytest.raises(ValueError):
        Scaling.from_note(text)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1]},
        {"shape": [2**40, 2**40]},
        {"shape": None},
        {"mean": [1]},
        {"mean": {}},
        {"deviation": [0, 1]},
        {"deviation": [float("nan"), 1]},
        {"bytes": 1},
    ],
)
def test_damaged_scaling(change):
    good = json.loads(Scaling((2,), False, np.zeros(2), np.ones(2)).note())
    assert Scaling.from_note(json.dumps(good)).shape == (2,)
    with pytest.raises(ValueError):
        Scaling.from_note(json.dumps({**good, **change}))


def test_scaling_in_parts_is_that_of_the_whole(monkeypatch):
    monkeypatch.setattr(inputs, "_CHUNK", 70)
    x = RNG.standard_normal((101, 2, 5)) * 3 + 1e4
    rows = np.sort(RNG.permutation(101)[:77])
    found = Scaling.of("train", "x", x, rows, True)
    np.testing.assert_allclose(found.mean, x[rows].mean(axis=0).ravel(), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, x[rows].std(axis=0).ravel(), rtol=1e-9)
    np.testing.assert_array_equal(found.in_memory(x, rows, "float64"), found.applied(x[rows], "float64"))


def arguments(folder, *more):
    return ["train", *more, "--out", str(folder / "out"), "--epochs", "3", "--quiet", "--threads", "1"]


@pytest.fixture
def samples(tmp_path):
    y = RNG.integers(0, 3, 300)
    x = RNG.standard_normal((300, 4)) + y[:, None] * 2
    return tmp_path, x, y


def test_many_samples_stay_on_the_disk_and_give_the_same_model(samples, monkeypatch):
    folder, x, y = samples
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    files = ["--x", str(folder / "x.npy"), "--y", str(folder / "y.npy")]
    assert main(arguments(folder / "a", *files)) == 0
    monkeypatch.setattr(inputs, "IN_MEMORY", 100)
    assert main(arguments(folder / "b", *files)) == 0
    (near, _), (far, _) = (checkpoint.read(folder / name / "out" / "x.safetensors") for name in "ab")
    for name, array in near.items():
        np.testing.assert_array_equal(far[name], array)


def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "IN_MEMORY", 1 << 20)
    rows, width = 20_000, 400  # 64 MB as float64
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, (rows, width))
    for first in range(0, rows, 2000):
        x[first : first + 2000] = RNG.standard_normal((2000, width))
    np.save(tmp_path / "y.npy", (x[:, 0] > 0).astype(int))
    del x
    files = ["--x", str(tmp_path / "x.npy"), "--y", str(tmp_path / "y.npy"), "--hidden", "4", "--batch-size", "512"]
    monkeypatch.setattr(inputs, "_CHUNK", 1 << 18)
    tracemalloc.start()
    try:
        assert main([*arguments(tmp_path, *files), "--epochs", "1"]) == 0
        out = ["--out", str(tmp_path / "p.npy")]
        assert main(["predict", str(tmp_path / "out" / "x.safetensors"), "--x", files[1], *out]) == 0
        assert tracemalloc.get_traced_memory()[1] < 24 << 20  # bytes; the file has 64 MB
    finally:
        tracemalloc.stop()
    assert len(np.load(tmp_path / "p.npy")) == rows


def test_an_npz_file_has_both(samples):
    folder, x, y = samples
    np.savez(folder / "d.npz", x=x, y=y, other=1)
    assert main(arguments(folder, "--x", str(folder / "d.npz"))) == 0
    assert json.loads(notes_of(checkpoint.read(folder / "out" / "d.safetensors")[1])["goal"])["labels"] == [0, 1, 2]


def write(path, x, y, header=True, text=str):
    lines = [",".join(map(repr, row)) + f",{text(label)}" for row, label in zip(x.tolist(), y.tolist(), strict=True)]
    path.write_text("\n".join((["a,b,c,d,kind"] if header else []) + lines) + "\n")


@pytest.mark.parametrize(("header", "target"), [(True, "kind"), (True, "5"), (False, "5")])
def test_a_csv_table_is_the_same_as_its_arrays(samples, header, target):
    folder, x, y = samples
    write(folder / "x.csv", x, y, header, lambda label: f"class {label}")
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", np.array([f"class {label}" for label in y]))
    assert main(arguments(folder / "a", "--x", str(folder / "x.csv"), "--target", target)) == 0
    assert main(arguments(folder / "b", "--x", str(folder / "x.npy"), "--y", str(folder / "y.npy"))) == 0
    (near, said), (far, too) = (checkpoint.read(folder / name / "out" / "x.safetensors") for name in "ab")
    notes = notes_of(said)
    assert json.loads(notes.pop("columns", '["a", "b", "c", "d"]')) == ["a", "b", "c", "d"]
    assert notes == notes_of(too) and "class 2" in said["note.goal"]
    for name, array in near.items():
        np.testing.assert_array_equal(far[name], array)


@pytest.mark.parametrize("header", [False, True])
def test_labels_in_a_csv_file_of_their_own(samples, header):
    folder, x, y = samples
    np.save(folder / "x.npy", x)
    (folder / "y.csv").write_text("\n".join((["kind"] if header else []) + [f"k{label}" for label in y]))
    assert main(arguments(folder, "--x", str(folder / "x.npy"), "--y", str(folder / "y.csv"))) == 0
    assert '"k0", "k1", "k2"' in checkpoint.read(folder / "out" / "x.safetensors")[1]["note.goal"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"t\.csv is empty"),
        ("a,b,y\n", r"has no rows"),
        ("a,b,y\n1,2,3\n4,,6\n", r"line 3, b: the value is missing \(''\)"),
        ("a,b,y\n1,NA,3\n", r"line 2, b: the value is missing \('NA'\)"),
        ("a,b,y\n1,2,3\n1,2\n", r"line 3: 2 cells, expected 3"),
        ("a,b,y\n1,red,3\n", r"line 2, b: 'red' is no finite number; encode columns of text"),
        ("a,b,y\n1,inf,3\n", r"line 2, b: 'inf' is no finite number"),
        ("a,b,y\n1,2,nan\n", r"line 2, y: the value is missing \('nan'\)"),
        ("a,b,c\n1,2,3\n", r"has no column 'y': the names are a, b, c"),
        ("1,2,3\n", r"has no column 'y': it has no names"),
        ("y\n1\n2\n", r"has no column beside the target"),
        ('a,b,y\n1,"2\x00', r"t\.csv, line"),
        (b"a,b,y\n1,2,\xff\n", r"t\.csv, line"),
    ],
)
def test_bad_csv_files(tmp_path, capsys, text, words):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(arguments(tmp_path, "--x", str(tmp_path / "t.csv"), "--target", "y")) == 1
    error = capsys.readouterr().err
    assert error.startswith("gradring: error: [train]") and re.search(words, error), error


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda d: np.savez(d / "d.npz", a=np.ones(3), y=np.ones(3)),
            r"d\.npz has the arrays a, y, and none is called 'x'",
        ),
        (lambda d: (d / "d.npz").write_bytes(b"PK\x03\x04 and no more"), r"give digits, fashion-mnist, or your own"),
        (lambda d: np.savez(d / "d.npz", x=np.array([{}]), y=np.ones(1)), r"d\.npz is not an \.npz file of numbers"),
    ],
)
def test_bad_npz_files(tmp_path, capsys, make, words):
    make(tmp_path)
    assert main(arguments(tmp_path, "--x", str(tmp_path / "d.npz"))) == 1
    assert re.search(words, capsys.readouterr().err)


def test_every_damage_of_a_compressed_npz_file_is_named(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=np.arange(40.0).reshape(20, 2), y=np.arange(20) % 2)
    whole = (tmp_path / "d.npz").read_bytes()
    said = []
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x5A
        (tmp_path / "d.npz").write_bytes(damaged)
        for member in ("x", "y"):
            try:
                tables.has_member(tmp_path / "d.npz", member)
                tables.read_array("train", tmp_path / "d.npz", member)
            except ValueError as error:
                said.append(str(error))
    assert said and all(str(tmp_path / "d.npz") in text for text in said)


def test_targets_and_tables_that_exclude_each_other(tmp_path, capsys):
    for more in (["--x", "x.npy", "--target", "y"], ["--x", "x.csv", "--y", "y.csv", "--target", "y"]):
        assert main(arguments(tmp_path, *more)) == 1
        assert "--target is a column of --x TABLE.csv, instead of --y" in capsys.readouterr().err
    assert main(["train", "digits", "--task", "regress", "--out", str(tmp_path)]) == 1
    assert "the labels of digits are classes" in capsys.readouterr().err


def test_nothing_is_overwritten_in_silence(tmp_path, capsys):
    for name in ("digits.safetensors", "history.csv"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("precious")
        assert main(["train", "digits", "--epochs", "1", "--out", str(folder)]) == 1
        assert re.search(rf"{name} is there already: --resume continues from it, --overwrite", capsys.readouterr().err)
        assert (folder / name).read_text() == "precious"
        assert main(["train", "digits", "--epochs", "1", "--out", str(folder), "--overwrite", "--quiet"]) == 0
        assert (folder / name).read_bytes()[:8] != b"precious"
    said = capsys.readouterr()
    assert said.out == "" and said.err == ""


def test_resuming_on_other_data_is_refused(samples, capsys):
    folder, x, y = samples
    np.save(folder / "x.npy", x)
    files = ["--x", str(folder / "x.npy"), "--y", str(folder / "y.npy")]
    np.save(folder / "y.npy", y)
    assert main(arguments(folder, *files)) == 0
    assert main([*arguments(folder, *files), "--resume", "--epochs", "4"]) == 0
    for change, words in [
        (lambda: np.save(folder / "y.npy", np.array(["a", "b", "c"])[y]), "the file is of another task"),
        (lambda: np.save(folder / "x.npy", x[:, :3]), r"the file is of samples of shape \(4,\)"),
    ]:
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        change()
        assert main([*arguments(folder, *files), "--resume", "--epochs", "5"]) == 1
        assert re.search(words, capsys.readouterr().err)
