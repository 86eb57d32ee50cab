"""Bad files, tables, numbers of samples and callbacks: each is refused by name."""

import json
import re

import numpy as np
import pytest

import gradring as gr
from cases.bad_input import N, X, Y, expect_refusal, trainer
from gradring import checkpoint

# Files of a model

ARCHITECTURES = {
    "an unknown layer": (
        {"layer": "Transformer"},
        r"gr\.nn\.Transformer, which this version of gradring does not have",
    ),
    "a foreign class": ({"class": "os.system"}, r"a class 'os.system' outside gradring.*layers="),
    "10**12 units": ({"layer": "Linear", "given": [4, 10**12]}, r"'(weight|bias)' is \(4, 5\).*|'weight' is missing"),
    "absurd units": ({"layer": "Linear", "given": [4, 10**30]}, r"'weight' is missing.*|architecture does not fit"),
    "a negative size": ({"layer": "Linear", "given": [4, -5]}, r"architecture does not fit"),
    "an unknown argument": ({"layer": "Linear", "given": [4, 5], "named": {"units": 3}}, r"architecture does not fit"),
    "no name": ({}, r"architecture does not fit"),
    "a list": ([1, 2], r"architecture does not fit"),
}


def deep(levels):
    entry = {"layer": "ReLU"}
    for _ in range(levels):
        entry = {"layer": "Sequential", "given": [entry]}
    return json.dumps(entry)


def model_file(folder, architecture):
    gr.nn.Sequential(gr.nn.Linear(4, 5)).init(0).save(folder / "m.safetensors")
    tensors, metadata = checkpoint.read(folder / "m.safetensors")
    checkpoint.write(folder / "m.safetensors", tensors, {**metadata, "architecture": architecture})
    return folder / "m.safetensors"


@pytest.mark.parametrize("way", ["load", "the command"])
@pytest.mark.parametrize("case", [*ARCHITECTURES, "nested 300 deep", "nested 100000 deep", "no JSON"])
def test_files_of_a_model(case, way, tmp_path, command):
    if case in ARCHITECTURES:
        entry, words = ARCHITECTURES[case]
        text = json.dumps(entry)
    elif case == "no JSON":
        text, words = "{", "the architecture is no JSON"
    elif case == "nested 300 deep":
        text, words = deep(300), "layers deep"
    else:
        text, words = "[" * 100_000, "the architecture"
    path = model_file(tmp_path, text)
    np.save(tmp_path / "x.npy", X)
    ways = {"load": lambda: gr.load(path), "the command": lambda: command("predict", path, "--x", tmp_path / "x.npy")}
    expect_refusal(ways[way], words)


# Tables

HEAD, ROWS = "size,price,kind\n", "".join(f"{i},{i % 5}.5,{'ab'[i % 2]}\n" for i in range(12))
NUMBERS = "size,price\n" + "".join(f"{i},{i % 5}.5\n" for i in range(12))
TABLES = {
    "a text": (HEAD + ROWS.replace("7,2.5", "seven,2.5"), ["--target", "kind"], r"line 9, size: 'seven' is no finite number"),
    "a column of texts": (HEAD + ROWS, ["--target", "size"], r"line 2, kind: 'a' is no finite number; encode"),
    "missing": (HEAD + ROWS.replace("7,2.5", "7,"), ["--target", "kind"], r"line 9, price: the value is missing"),
    "NA": (HEAD + ROWS.replace("7,2.5", "7,NA"), ["--target", "kind"], r"line 9, price: the value is missing \('NA'\)"),
    "a label is missing": (HEAD + ROWS.replace("7,2.5,b", "7,2.5,"), ["--target", "kind"], r"line 9, kind: .*missing"),
    "a label is NaN": (NUMBERS.replace("7,2.5", "7,nan"), ["--target", "price"], r"line 9, price: .*missing"),
    "a label is infinite": (NUMBERS.replace("7,2.5", "7,inf"), ["--target", "price"], r"sample 7 is inf.*finite"),
    "a row is short": (HEAD + ROWS.replace("7,2.5,b", "7,b"), ["--target", "kind"], r"line 9: 2 cells, expected 3"),
    "no such column": (HEAD + ROWS, ["--target", "colour"], r"no column 'colour': the names are size, price, kind"),
    "no target": (HEAD + ROWS, [], r"--target COLUMN"),
    "a header alone": (HEAD, ["--target", "kind"], r"has no rows"),
    "empty": ("", ["--target", "kind"], r"is empty"),
    "one class": (HEAD + ROWS.replace("b\n", "a\n"), ["--target", "kind"], r"only one class, a: at least two"),
    "an empty part": (HEAD + ROWS, ["--target", "kind", "--test-share", "0.01"], r"--test-share must leave samples"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_tables(case, command):
    table, options, words = TABLES[case]
    expect_refusal(lambda: command.train(table, *options), words)


def test_a_column_as_a_file(command):
    (command.folder / "t.csv").write_text(HEAD + ROWS)
    options = ["--x", command.folder / "t.csv", "--y", "kind", "--out", command.folder / "out"]
    expect_refusal(lambda: command("train", *options), r"--y kind is no file, but a column of .*t\.csv: give --target kind")


def test_a_table_is_no_model(tmp_path):
    (tmp_path / "m.csv").write_text(HEAD + ROWS)
    with pytest.raises(gr.CheckpointCorrupt, match=r"is a text, such as a \.csv or \.json file"):
        gr.load(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("u,v\n1,x\n", r"line 2, v: 'x' is no finite number"),
        ("u,v\n1,\n", r"line 2, v: the value is missing"),
        ("u,v\n1,nan\n", r"line 2, v: the value is missing"),
        ("u,w\n1,2\n", r"has no column 'v'; the model was trained on the columns u, v"),
        ("1,2,3\n", r"the model was trained on samples of shape \(2,\)"),
        ("u,v\n", r"has no rows"),
    ],
)
def test_tables_of_new_samples(table, words, command):
    expect_refusal(lambda: command.predict(table), words)


@pytest.mark.parametrize("name", ["none.npy", "none.npz", "none.csv", "folder", "folder.csv", "folder.npy", "no/x.npy"])
@pytest.mark.parametrize("option", ["--x", "--y"])
def test_files_that_are_not_there(name, option, command):
    folder = command.folder
    if name.startswith("folder"):
        (folder / name).mkdir()
    np.save(folder / "good.npy", X)
    given = {"--x": folder / "good.npy", "--y": folder / "good.npy", option: folder / name}
    words = "is a folder" if name.startswith("folder") else f"there is no file .*{re.escape(name)}"
    expect_refusal(lambda: command("train", "--x", given["--x"], "--y", given["--y"], "--out", folder / "out"), words)


def test_files_that_are_no_files(command):
    folder = command.folder
    np.save(folder / "x.npy", X)
    expect_refusal(lambda: command("predict", folder, "--x", folder / "x.npy"), r"is a folder: give the NAME\.safetensors")
    for call in (gr.load, trainer().load, lambda path: trainer().fit((X, Y), resume=path, verbose=False)):
        with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file"):
            call(folder)
    with pytest.raises(FileNotFoundError, match=r"\[checkpoint\] there is no file '.*none'"):
        gr.load(folder / "none")
    with pytest.raises(FileNotFoundError, match=r"\[Trainer.predict\] there is no file '.*none.npy'"):
        trainer().predict(folder / "none.npy")


# Parts and numbers of samples


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gr.Loader((X, Y), 4).split(0.001), r"part 0 is empty.*each part needs one"),
        (lambda: gr.Loader((X, Y), 4).split(0.999), r"part 1 is empty"),
        (lambda: gr.Loader((X, Y), 4).split([0.5, 0.001, 0.3]), r"part 1 is empty"),
        (lambda: gr.Loader((X, Y), 4).split([0.5, 0.6]), r"add up to at most 1"),
        (lambda: gr.Loader((X, Y), 4).split(np.nan), r"shares must be above 0"),
        (lambda: gr.Loader((X, Y), 4).split("half"), r"share must be a number"),
        (lambda: gr.Loader((X, Y), 4).folds(41), r"41 folds of 40 samples: a fold would be empty"),
        (lambda: gr.Loader((X, Y), 4).folds(1), r"count must be an int of at least 2"),
        (lambda: gr.Loader((X, Y), 4, indices=[0, 40]), r"indices\[1\] is 40: the source has the samples 0 to 39"),
        (lambda: gr.Loader((X, Y), 4, indices=[0, -1]), r"indices\[1\] is -1.*do not count from the end"),
        (lambda: gr.Loader((X, Y), 4, indices=np.array([2**63], np.uint64)), r"indices\[0\] is 9223372036854775808"),
        (lambda: gr.Loader((X, Y), 4, indices=[]), r"indices are empty"),
        (lambda: gr.Loader((X, Y), 4, indices=[1.5]), r"must be whole numbers"),
        (lambda: gr.Loader((X, Y), 4, indices=np.ones(N, bool)), r"numpy\.flatnonzero\(mask\)"),
        (lambda: gr.Loader((X, Y), 4, indices=slice(40, 50)), r"indices are empty"),
        (lambda: gr.Loader((X, Y), 4, indices=3), r"one list of samples' numbers"),
    ],
)
def test_parts_and_numbers_of_samples(call, words):
    expect_refusal(call, words)


# Callbacks and resuming


class Counter(gr.callbacks.Callback):
    """A callback with a state."""

    def __init__(self):
        self.epochs = 0

    def on_epoch_end(self, run):
        self.epochs += 1

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


class Stateless(gr.callbacks.Callback):
    """A callback that says nothing of a state."""


def returning(state):
    return type("Odd", (gr.callbacks.Callback,), {"state_dict": lambda self: state})()


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ([returning(None)], r"\[Odd\] state_dict must return a dict, got NoneType"),
        ([returning({1: 2})], r"state_dict has the key 1: keys must be texts"),
        ([returning({"a": object()})], r"\[Odd\] state_dict has something that a checkpoint cannot hold"),
        ([returning({"a": np.array([None])})], r"tensor 'callbacks/Odd/a' has dtype object.*convert it"),
        ([Counter], r"did you forget the brackets of Counter\(\)"),
        ([print], r"callbacks must be of gr\.callbacks, got builtin_function_or_method"),
        (Counter(), r"callbacks must be a list of gr\.callbacks, got Counter"),
        ([gr.callbacks.EarlyStop("val_loss")], r"no metric 'val_loss'.*give fit validate="),
    ],
)
def test_callbacks(callbacks, words, tmp_path):
    listeners = [*callbacks, gr.callbacks.Checkpoint(tmp_path / "m")] if isinstance(callbacks, list) else callbacks
    expect_refusal(lambda: trainer().fit((X, Y), callbacks=listeners, verbose=False), words)


def test_a_callback_without_a_state_is_resumed(tmp_path):
    callbacks = [Stateless(), gr.callbacks.Checkpoint(tmp_path / "m")]
    trainer().fit((X, Y), 2, callbacks=callbacks, verbose=False)
    assert trainer().fit((X, Y), 3, callbacks=callbacks[::-1], resume=tmp_path / "m", verbose=False).last["epoch"] == 3


def test_resuming_with_other_callbacks(tmp_path):
    trainer().fit((X, Y), 2, callbacks=[Counter(), gr.callbacks.Checkpoint(tmp_path / "m")], verbose=False)
    file = (tmp_path / "m").read_bytes()
    made = trainer()
    expect_refusal(
        lambda: made.fit((X, Y), 4, callbacks=[Stateless()], resume=tmp_path / "m", verbose=False),
        r"has the state of .*Counter.*not among callbacks: give it, or take the file without it, by trainer\.load",
    )
    assert (tmp_path / "m").read_bytes() == file
    more = [Stateless(), Counter(), gr.callbacks.Checkpoint(tmp_path / "m"), gr.callbacks.EarlyStop("loss")]
    assert trainer().fit((X, Y), 4, callbacks=more, resume=tmp_path / "m", verbose=False).last["epoch"] == 4
    assert more[1].epochs == 4
