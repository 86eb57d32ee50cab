"""Bad input, item by item, through every entry point that takes it: an error that names the thing and the way out, and nothing
is changed."""

import json
import re

import numpy as np
import pytest

import gradring as gr
from gradring import checkpoint
from gradring.cli import main
from helpers import snapshot

N = 40
RNG = np.random.default_rng(21)
X, Y = RNG.standard_normal((N, 4)).astype(np.float32), np.arange(N) % 3
REAL = RNG.standard_normal((N, 3)).astype(np.float32)
GOOD = np.linspace(0.5, 1.5, N).astype(np.float32)


def model():
    return gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.Tanh(), gr.nn.Linear(5, 3))


def trainer(**options):
    return gr.Trainer(model(), **{"optimizer": gr.optim.SGD(0.1), **options})


def own(**options):
    """A trainer with a step of one's own, and parameters with the names of the model's."""
    params = {name: array.copy() for name, array in model().init(0).params.items()}
    return gr.Trainer(step=lambda p, b: (0.0, {n: np.zeros_like(a) for n, a in p.items()}), params=params,
                      **{"optimizer": gr.optim.SGD(0.1), **options})  # fmt: skip


class Refused(Exception):
    """The command's error."""


class Command:
    """The command, run in a folder of its own."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys

    def __call__(self, *arguments):
        before = sorted(self.folder.rglob("*"))
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        said = self.capsys.readouterr().err
        assert status != 0, "the command accepted it"
        made = [path for path in self.folder.rglob("*") if path not in before]
        assert all(path.is_dir() for path in made), f"the command left {made}"
        raise Refused(said.partition("error: ")[2])

    def train(self, table, *options):
        (self.folder / "t.csv").write_text(table)
        self("train", "--x", self.folder / "t.csv", "--out", self.folder / "out", "--epochs", 1, *options)

    def predict(self, table):
        rows = "".join(f"{i},{i * i % 7}.5,{'ab'[i % 2]}\n" for i in range(30))
        (self.folder / "t.csv").write_text("u,v,kind\n" + rows)
        assert main(["train", "--x", str(self.folder / "t.csv"), "--target", "kind", "--epochs", "1", "--quiet", "--out",
                     str(self.folder)]) == 0  # fmt: skip
        (self.folder / "n.csv").write_text(table)
        self("predict", self.folder / "t.safetensors", "--x", self.folder / "n.csv")


@pytest.fixture
def command(tmp_path, capsys):
    return Command(tmp_path, capsys)


def refuses(call, words, made=None):
    """The call raises an error that begins with a name and matches ``words``, and changes nothing of the trainer."""
    before = None if made is None else snapshot(made)
    with pytest.raises((ValueError, TypeError, gr.GradringError, Refused)) as raised:
        call()
    text = str(raised.value)
    assert re.match(r"\[[\w .]+\]", text), f"an error names its origin first: {text}"
    assert re.search(words, text, re.DOTALL), text
    if made is not None:
        after = snapshot(made)
        assert {n: after[n] for n in before if n not in ("draw", "batch")} == {
            n: before[n] for n in before if n not in ("draw", "batch")
        }


# Weights of samples

WEIGHTS = {
    "negative": (np.where(np.arange(N) == 17, -0.5, GOOD), r"weight of sample 17 is -0\.5.*at least 0"),
    "NaN": (np.where(np.arange(N) == 17, np.nan, GOOD), r"weight of sample 17 is nan.*finite"),
    "infinite": (np.where(np.arange(N) == 17, np.inf, GOOD), r"weight of sample 17 is inf.*finite"),
    "shorter": (GOOD[:-1], r"x has 40 samples, weight has 39"),
    "longer": (np.ones(N + 3), r"x has 40 samples, weight has 43"),
    "all zero": (np.zeros(N, np.int64), r"all 40 weights are zero.*leave weight out"),
    "a number per output": (np.ones((N, 3)), r"weight is \(\d+, 3\): must be \(samples,\)"),
    "texts": (np.array(["heavy"] * N), r"weight.*must be numbers.*|field 2.*must be numbers"),
}
WITH_WEIGHTS = {
    "step": lambda t, w: t.step(X, Y, w),
    "step by name": lambda t, w: t.step(x=X, y=Y, weight=w),
    "fit": lambda t, w: t.fit((X, Y, w), verbose=False),
    "fit by name": lambda t, w: t.fit({"weight": w, "y": Y, "x": X}, verbose=False),
    "fit of one batch": lambda t, w: t.fit([(X, Y, w)], verbose=False),
    "evaluate": lambda t, w: t.evaluate((X, Y, w)),
    "evaluate by name": lambda t, w: t.evaluate({"x": X, "weight": w, "y": Y}),
    "evaluate of one batch": lambda t, w: t.evaluate([{"x": X, "weight": w, "y": Y}]),
    "validate": lambda t, w: t.fit((X, Y), validate=(X, Y, w), epochs=0, verbose=False),
}


@pytest.mark.parametrize("way", WITH_WEIGHTS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_of_samples(weight, way):
    given, words = WEIGHTS[weight]
    made = trainer()
    late = (weight, way) == ("all zero", "fit of one batch")  # one batch of many may have no weight
    refuses(lambda: WITH_WEIGHTS[way](made, given), words, None if late else made)


@pytest.mark.parametrize("way", ["fit", "evaluate"])
@pytest.mark.parametrize("weight", [name for name in WEIGHTS if name not in ("shorter", "longer", "texts")])
def test_weights_of_samples_in_a_loader(weight, way):
    given, words = WEIGHTS[weight]
    made = trainer()
    loader = gr.Loader((X, Y, given), N)
    refuses(lambda: made.fit(loader, verbose=False) if way == "fit" else made.evaluate(loader), words, made)


@pytest.mark.parametrize("weight", ["negative", "NaN", "infinite", "all zero"])
def test_weights_that_a_loader_makes_batch_by_batch(weight):
    given, _ = WEIGHTS[weight]
    made = trainer()
    loader = gr.Loader(gr.sources.Callable(lambda i: (X[i], Y[i], np.float32(given[i])), N), 16, num_threads=0)
    refuses(lambda: made.fit(loader, verbose=False) if weight != "all zero" else made.evaluate(loader), "weight")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tiny", [1e-45, 1e-40, 5e-33])
def test_a_batch_whose_weights_are_too_small_to_divide_by(tiny, dtype):
    """The loss would be finite, and the gradients would not."""
    weights = np.where(np.arange(N) < 16, tiny, 1).astype(np.float32)
    data = (X.astype(dtype), Y, weights)
    one_by_one = gr.sources.Callable(lambda i: (data[0][i], Y[i], weights[i]), N)
    for given in (gr.Loader(data, 16), gr.Loader(one_by_one, 16, num_threads=0), [tuple(a[:16] for a in data)]):
        made = trainer(dtype=dtype)
        refuses(lambda: made.fit(given, verbose=False), r"weight.* (1e-30|too small)", made)  # noqa: B023
    assert np.isfinite(trainer(dtype=dtype).step(X[:16].astype(dtype), Y[:16], np.full(16, 1e-29)))


@pytest.mark.parametrize("weight", ["negative", "NaN", "shorter", "all zero"])
def test_weights_of_an_estimator(weight):
    pytest.importorskip("sklearn")
    given = WEIGHTS[weight][0]
    for made, y in ((gr.sklearn.Classifier((4,), epochs=1), Y), (gr.sklearn.Regressor((4,), epochs=1), REAL)):
        for method in ("fit", "partial_fit"):
            more = {"classes": [0, 1, 2]} if method == "partial_fit" and y is Y else {}
            with pytest.raises(ValueError, match=r"(?i)weight"):
                getattr(made, method)(X, y, sample_weight=given, **more)
            assert not hasattr(made, "history_")


# Weights of classes

CLASSES = {
    "both": (
        lambda: trainer(loss=gr.losses.CrossEntropy(weight=[1, 2, 3]), class_weight={0: 2.0}),
        r"class_weight and CrossEntropy\(weight=\) are both given: leave one",
    ),
    "both, balanced": (
        lambda: trainer(loss=gr.losses.CrossEntropy(weight=[1, 2, 3]), class_weight="balanced"),
        r"class_weight and CrossEntropy\(weight=\) are both given",
    ),
    "both, of labels": (
        lambda: trainer(loss=gr.losses.BinaryCrossEntropy(pos_weight=2.0), class_weight={0: 2.0}),
        r"class_weight and BinaryCrossEntropy\(pos_weight=\) are both given",
    ),
    "an absent class": (
        lambda: trainer(class_weight={0: 1.0, 7: 2.0}).step(X, Y),
        r"\[Trainer\] class_weight has class 7.*from 0 to 2",
    ),
    "too few": (
        lambda: trainer(class_weight=[1.0, 2.0]).fit((X, Y), verbose=False),
        r"\[Trainer\] class_weight: there are weights for 2 classes, and the model has 3 outputs",
    ),
    "too many": (
        lambda: trainer(class_weight=np.ones(5)).step(X, Y),
        r"\[Trainer\] class_weight: there are weights for 5 classes",
    ),
    "too many in the loss": (
        lambda: trainer(loss=gr.losses.CrossEntropy(weight=np.ones(5))).evaluate((X, Y)),
        r"\[CrossEntropy\] weight: there are weights for 5 classes",
    ),
    "by name": (lambda: trainer(class_weight={"cat": 1.0}), r"class_weight: a label must be an int.*'cat'"),
    "negative": (lambda: trainer(class_weight={0: -1.0}), r"the weight of class 0 must be .*at least 0, got -1"),
    "NaN": (lambda: trainer(class_weight=[1.0, np.nan, 1.0]), r"class_weight: number 1 is nan"),
    "all zero": (lambda: trainer(class_weight=np.zeros(3)), r"class_weight: all are zero"),
    "hidden": (lambda: trainer(class_weight=np.ma.masked_less(np.arange(3.0), 1)), r"class_weight is a Masked.*filled"),
    "a number": (lambda: trainer(class_weight=2.0), r"class_weight must be a vector of numbers"),
    "a misspelt word": (lambda: trainer(class_weight="balance"), r"class_weight must be 'balanced'.*got 'balance'"),
    "of no classes": (
        lambda: trainer(loss="mse", class_weight={0: 2.0}),
        r"class_weight goes with .*the field 'weight'",
    ),
    "of a step": (lambda: own(class_weight={0: 2.0}), r"class_weight goes with a model.*leave class_weight out"),
    "balanced, absent": (
        lambda: trainer(class_weight="balanced").fit((X, Y % 2), verbose=False),
        r"'balanced': class 2 of 3 has no sample.*as a dict",
    ),
    "balanced, by a function": (
        lambda: trainer(class_weight="balanced").fit(
            gr.Loader(gr.sources.Callable(lambda i: (X[i], Y[i]), N), 8, num_threads=0), verbose=False
        ),
        r"'balanced' counts the labels.*do not lie in memory.*as a dict",
    ),
    "balanced, batches": (
        lambda: trainer(class_weight="balanced").fit([(X, Y)], verbose=False),
        r"'balanced' counts the labels.*as a dict",
    ),
    "balanced, a step alone": (lambda: trainer(class_weight="balanced").step(X, Y), r"'balanced' is settled by.*fit"),
    "balanced, evaluate": (lambda: trainer(class_weight="balanced").evaluate((X, Y)), r"'balanced' is settled by.*fit"),
}


@pytest.mark.parametrize("case", CLASSES)
def test_weights_of_classes(case):
    refuses(*CLASSES[case])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cat": 1.0}, r"class_weight has the label 'cat', which is none of the classes"),
        ({0: -1.0}, r"class_weight\[0\] must be .*at least 0"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, "zero for every label"),
        ("balance", "class_weight must be 'balanced'"),
    ],
)
def test_weights_of_classes_of_an_estimator(given, words):
    pytest.importorskip("sklearn")
    refuses(lambda: gr.sklearn.Classifier((4,), epochs=1, class_weight=given).fit(X, Y), words)


# Groups and frozen parameters

MAKERS = {
    "a model": trainer,
    "a step": own,
    "another optimizer": lambda optimizer: setattr(trainer(), "optimizer", optimizer),
    "another optimizer of a step": lambda optimizer: setattr(own(), "optimizer", optimizer),
}  # fmt: skip
GROUPS = {
    "nothing": ([{"params": "*.bais", "lr": 1.0}], r"'\*\.bais' matches no parameter.*(did you mean|they are called)"),
    "a layer's name": ([{"params": "2", "lr": 1.0}], r"'2' matches no parameter: all of layer '2' is '2\.\*'"),
    "overlap": (
        [{"params": "0.*", "lr": 1.0}, {"params": "*.bias", "lr": 2.0}],
        r"parameter '0\.bias' is in two groups, groups\[0\] and groups\[1\]: choose patterns",
    ),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("case", GROUPS)
def test_groups(case, maker):
    groups, words = GROUPS[case]
    refuses(lambda: MAKERS[maker](optimizer=gr.optim.SGD(0.1, groups=groups)), words)


@pytest.mark.parametrize("case", GROUPS)
def test_groups_of_an_estimator(case):
    pytest.importorskip("sklearn")
    groups, words = GROUPS[case]
    refuses(lambda: gr.sklearn.Classifier((5,), optimizer=gr.optim.SGD(0.1, groups=groups), epochs=1).fit(X, Y), words)


@pytest.mark.parametrize("maker", ["a model", "a step"])
@pytest.mark.parametrize(
    ("frozen", "words"),
    [
        ("*", r"freezes all 4 parameters.*leave out the patterns"),
        (["0.*", "2.*"], r"freezes all 4 parameters"),
        (["0.wieght"], r"'0\.wieght' matches no parameter; did you mean '0\.weight'"),
        ([0], r"frozen must be patterns"),
        (3, r"frozen must be a pattern"),
    ],
)
def test_frozen(frozen, words, maker):
    refuses(lambda: MAKERS[maker](frozen=frozen), words)


def test_a_group_of_which_all_is_frozen():
    optimizer = gr.optim.SGD(0.1, groups=[{"params": "0.*", "lr": 1.0}])
    refuses(lambda: trainer(optimizer=optimizer, frozen="0.*"), r"all that it matches is frozen: leave the group out")


# Metrics and losses of one's own


def fails(predictions, targets):
    raise KeyError("missing")


METRICS = {
    "raises": (fails, r"metric 'fails' raised KeyError for .*: 'missing'; predictions were \(40, 3\)"),
    "an array": (lambda p, t: p - p, r"metric 'lambda' returned ndarray: must be a number"),
    "nothing": (lambda p, t: None, r"metric 'lambda' returned NoneType: must be a number"),
    "a pair": (lambda p, t: (1.0, 2.0), r"metric 'lambda' returned tuple: must be a number"),
}
MEASURED = {
    "fit": lambda t: t.fit((X, Y), verbose=False),
    "fit of batches": lambda t: t.fit([(X, Y)], verbose=False),
    "fit of a loader": lambda t: t.fit(gr.Loader((X, Y), 16), verbose=False),
    "evaluate": lambda t: t.evaluate((X, Y)),
    "evaluate of batches": lambda t: t.evaluate([(X[:30], Y[:30]), (X[30:], Y[30:])]),
}


@pytest.mark.parametrize("way", MEASURED)
@pytest.mark.parametrize("case", METRICS)
def test_metrics(case, way):
    metric, words = METRICS[case]
    made = trainer(metrics=[metric])
    refuses(lambda: MEASURED[way](made), words)
    assert np.isfinite(made.step(X, Y))


LOSSES = {
    "vjp, transposed": (lambda p, t: (p - t).mean(1), lambda d, p, t: (d[:, None] * p).T, r"vjp returned \(3, \d+\): must be"),
    "vjp, one per sample": (lambda p, t: (p - t).mean(1), lambda d, p, t: d, r"vjp returned \(\d+,\): must be \(\d+, 3\)"),
    "vjp, nothing": (lambda p, t: (p - t).mean(1), lambda d, p, t: None, r"vjp returned \(\): must be \(\d+, 3\)"),
    "vjp, hidden": (
        lambda p, t: (p - t).mean(1),
        lambda d, p, t: np.ma.masked_less(p, 0),
        r"vjp returned no array.*hides values",
    ),
    "forward, a mean": (lambda p, t: (p - t).mean(), lambda d, p, t: p, r"forward returned \(\): must be .*taken for you"),
    "forward, texts": (lambda p, t: ["a"] * len(p), lambda d, p, t: p, r"forward returned <U1: must be real numbers"),
}  # fmt: skip


@pytest.mark.parametrize("way", ["step", "fit", "batches"])
@pytest.mark.parametrize("case", LOSSES)
def test_losses_of_ones_own(case, way):
    forward, vjp, words = LOSSES[case]
    made = trainer(loss=gr.losses.Function(forward, vjp))
    ways = {
        "step": lambda: made.step(X, REAL),
        "fit": lambda: made.fit((X, REAL), verbose=False),
        "batches": lambda: made.fit([(X, REAL)], verbose=False),
    }
    refuses(ways[way], words, made)


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
    refuses(ways[way], words)


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
    refuses(lambda: command.train(table, *options), words)


def test_a_column_as_a_file(command):
    (command.folder / "t.csv").write_text(HEAD + ROWS)
    options = ["--x", command.folder / "t.csv", "--y", "kind", "--out", command.folder / "out"]
    refuses(lambda: command("train", *options), r"--y kind is no file, but a column of .*t\.csv: give --target kind")


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
    refuses(lambda: command.predict(table), words)


@pytest.mark.parametrize("name", ["none.npy", "none.npz", "none.csv", "folder", "folder.csv", "folder.npy", "no/x.npy"])
@pytest.mark.parametrize("option", ["--x", "--y"])
def test_files_that_are_not_there(name, option, command):
    folder = command.folder
    if name.startswith("folder"):
        (folder / name).mkdir()
    np.save(folder / "good.npy", X)
    given = {"--x": folder / "good.npy", "--y": folder / "good.npy", option: folder / name}
    words = "is a folder" if name.startswith("folder") else f"there is no file .*{re.escape(name)}"
    refuses(lambda: command("train", "--x", given["--x"], "--y", given["--y"], "--out", folder / "out"), words)


def test_files_that_are_no_files(command):
    folder = command.folder
    np.save(folder / "x.npy", X)
    refuses(lambda: command("predict", folder, "--x", folder / "x.npy"), r"is a folder: give the NAME\.safetensors")
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
    refuses(call, words)


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
    refuses(lambda: trainer().fit((X, Y), callbacks=listeners, verbose=False), words)


def test_a_callback_without_a_state_is_resumed(tmp_path):
    callbacks = [Stateless(), gr.callbacks.Checkpoint(tmp_path / "m")]
    trainer().fit((X, Y), 2, callbacks=callbacks, verbose=False)
    assert trainer().fit((X, Y), 3, callbacks=callbacks[::-1], resume=tmp_path / "m", verbose=False).last["epoch"] == 3


def test_resuming_with_other_callbacks(tmp_path):
    trainer().fit((X, Y), 2, callbacks=[Counter(), gr.callbacks.Checkpoint(tmp_path / "m")], verbose=False)
    file = (tmp_path / "m").read_bytes()
    made = trainer()
    refuses(
        lambda: made.fit((X, Y), 4, callbacks=[Stateless()], resume=tmp_path / "m", verbose=False),
        r"has the state of .*Counter.*not among callbacks: give it, or take the file without it, by trainer\.load",
    )
    assert (tmp_path / "m").read_bytes() == file
    more = [Stateless(), Counter(), gr.callbacks.Checkpoint(tmp_path / "m"), gr.callbacks.EarlyStop("loss")]
    assert trainer().fit((X, Y), 4, callbacks=more, resume=tmp_path / "m", verbose=False).last["epoch"] == 4
    assert more[1].epochs == 4
