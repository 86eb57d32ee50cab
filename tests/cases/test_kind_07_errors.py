"""Kind 7: errors name the cure."""

import copy
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import gradring as gr
from gradring.cli import main
from helpers import Lazy

X = np.random.default_rng(7).standard_normal((40, 4)).astype(np.float32)
Y = np.arange(40) % 3


def model():
    return gr.nn.Sequential(gr.nn.Linear(4, 3))


def trainer(**options):
    return gr.Trainer(model(), optimizer=gr.optim.SGD(0.1), **options)


def test_a_file_that_opens_at_the_first_sample(tmp_path):
    (tmp_path / "data").write_bytes(bytes(range(20)))
    lazy = Lazy(tmp_path / "data")
    with gr.Loader(gr.sources.Callable(lazy, 20, workers="processes", num_workers=1), 5) as loader:
        for _ in range(2):
            assert np.concatenate(list(loader)).ravel().tolist() == list(range(20))
    lazy.file.close()


def test_a_lambda_in_worker_processes():
    pytest.importorskip("cloudpickle")
    offset = 5
    with gr.Loader(gr.sources.Callable(lambda i: i + offset, 20, workers="processes", num_workers=1), 5) as loader:
        assert np.concatenate(list(loader)).tolist() == list(range(5, 25))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_lambda_as_a_transform(protocol):
    pytest.importorskip("cloudpickle")
    table = np.arange(30.0)
    double = gr.transforms.Python(lambda row: row * 2 + table[3])
    assert copy.deepcopy(double) is double
    again = pickle.loads(pickle.dumps(double, protocol))
    assert gr.sources.open_source(np.arange(4.0)).transformed([again]).read([1]).tolist() == [5.0]


def test_a_lambda_as_a_transform_in_worker_processes():
    pytest.importorskip("cloudpickle")
    source = gr.sources.Callable(lambda i: float(i), 8, workers="processes", num_workers=1)
    with gr.Loader(source, 4, transforms=[gr.transforms.Python(lambda row: row * 2)]) as loader:
        assert np.concatenate(list(loader)).tolist() == [2.0 * i for i in range(8)]


SESSION = """
import sys
{hide}
import numpy as np, gradring as gr
class Squares:
    def __call__(self, i):
        return np.int64(i * i)
loader = gr.Loader(gr.sources.Callable(Squares(), 10, workers="processes", num_workers=1), 5)
print(np.concatenate(list(loader)).tolist())
"""


@pytest.mark.parametrize("installed", [True, False])
def test_a_class_of_an_interactive_session(installed):
    pytest.importorskip("cloudpickle")
    script = textwrap.dedent(SESSION).format(hide="" if installed else "sys.modules['cloudpickle'] = None")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    if installed:
        assert done.stdout.strip() == str([i * i for i in range(10)]), done.stderr
    else:
        assert "Put it into a module, install cloudpickle, or use workers='threads'" in done.stderr


@pytest.mark.parametrize("make", [trainer, lambda: gr.Loader((X, Y), 4)], ids=["trainer", "loader"])
@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda way: way.__name__)
def test_what_cannot_be_copied_says_so(make, way):
    with pytest.raises(TypeError, match=r"cannot be copied or pickled: (use|make)"):
        way(make())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shuffle", [False, True])
def test_one_bad_number_in_x_is_found(value, shuffle):
    x = X.copy()
    x[29, 2] = value
    words = rf"x of sample 29 is {value} in column 2"
    for way in (
        lambda made: made.fit(gr.Loader((x, Y), 8, shuffle=shuffle, seed=3), 1, verbose=False),
        lambda made: made.step(x, Y),
        lambda made: made.evaluate((x, Y)),
    ):
        made = trainer()
        with pytest.raises(gr.NonFinite, match=words):
            way(made)
    images = gr.nn.Sequential(gr.nn.Flatten(), gr.nn.Linear(4, 3))
    with pytest.raises(gr.NonFinite, match="sample 29"):
        gr.Trainer(images).step(x.reshape(40, 2, 2), Y)


def test_one_bad_number_in_y_is_found():
    targets = np.zeros((40, 3), np.float32)
    targets[11, 1] = np.nan
    with pytest.raises(gr.NonFinite, match="y of sample 11 is nan in column 1"):
        gr.Trainer(model(), loss="mse").fit((X, targets), verbose=False)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda f: gr.nn.Sequential([gr.nn.Linear(4, 3)]), TypeError, r"one by one, Sequential\(\*layers\)"),
        (lambda f: gr.nn.Residual([gr.nn.Linear(4, 4)]), TypeError, r"one by one, Residual\(\*layers\)"),
        (lambda f: gr.Trainer(model(), optimizer="adam"), TypeError, r"write optimizer=gr\.optim\.Adam\(lr\)"),
        (lambda f: gr.Trainer(model(), optimizer=gr.optim.SGD), TypeError, r"write optimizer=gr\.optim\.SGD\(lr\)"),
        (lambda f: trainer().save(f / "no" / "m"), OSError, r"'.*no/m': there is no folder '.*no'; make it"),
        (lambda f: trainer().fit((X, Y), verbose=False).to_csv(f / "no" / "c"), OSError, "there is no folder"),
        (lambda f: gr.callbacks.Checkpoint("lr={0.1}/m"), ValueError, r"double any other brace, 'lr=\{\{0\.1\}\}/m'"),
        (lambda f: gr.Loader(f / "x.npz", 4), ValueError, r"numpy\.load\(path\)\['name'\]"),
        (lambda f: gr.Loader(f / "x.csv", 4), ValueError, r"read_csv"),
        (lambda f: trainer().predict(f / "x.csv"), ValueError, r"read_csv"),
        (lambda f: gr.Trainer(type("Net", (gr.nn.Layer,), {"forward": print})()).step(X, Y), NotImplementedError,
         r"Net has forward, but a layer says what it does in trace"),
        (lambda f: gr.Trainer(type("Net", (gr.nn.Layer,), {})()).step(X, Y), NotImplementedError, "must override trace"),
    ],
)  # fmt: skip
def test_the_way_out_is_named(call, error, words, tmp_path):
    with pytest.raises(error, match=words):
        call(tmp_path)


def test_files_of_others_are_named(tmp_path):
    np.savez(tmp_path / "m.npz", w=X)
    np.save(tmp_path / "m.npy", X)
    with open(tmp_path / "m.pkl", "wb") as file:
        pickle.dump({"weight": 1.5}, file, protocol=4)
    for name, words in (("m.npz", "zip archive.*PyTorch"), ("m.npy", ".npy file"), ("m.pkl", "pickle, which is never")):
        with pytest.raises(gr.CheckpointCorrupt, match=words):
            trainer().load(tmp_path / name)


def test_a_sound_file_of_another_model(tmp_path):
    trainer().save(tmp_path / "m")
    other = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.Linear(5, 3)))
    with pytest.raises(gr.CheckpointMismatch, match="weights_only=True.*strict=False"):
        other.load(tmp_path / "m")
    with pytest.raises(gr.CheckpointMismatch, match="strict=False"):
        other.load(tmp_path / "m", weights_only=True)
    adam = gr.Trainer(model(), optimizer=gr.optim.Adam())
    assert sorted(adam.load(tmp_path / "m", weights_only=True)) == ["0.bias", "0.weight"]
    head = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 3), gr.nn.Linear(3, 2)))
    assert sorted(head.load(tmp_path / "m", strict=False)) == ["0.bias", "0.weight"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "-3"], "--epochs"),
        (["--lr", "-1"], "--lr"),
        (["--lr", "nan"], "--lr"),
        (["--batch-size", "0"], "--batch-size"),
        (["--weight-decay", "-1"], "--weight-decay"),
        (["--test-share", "1.5"], "--test-share"),
        (["--resume"], "--resume.*no file.*leave --resume out"),
    ],
)
def test_the_command_refuses_before_it_writes(arguments, words, tmp_path, capsys):
    (tmp_path / "digits.safetensors").write_bytes(b"precious") if "--resume" not in arguments else None
    before = sorted(p.name for p in tmp_path.iterdir())
    try:
        status = main(["train", "digits", "--out", str(tmp_path), *arguments])
    except SystemExit as end:
        status = end.code
    import re

    assert status != 0 and re.search(words, capsys.readouterr().err)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["NumPy by hand", "numpy by hand", "NUMPY BY HAND"])
def test_the_benchmark_takes_a_peer_as_the_table_writes_it(name):
    from gradring.bench.peers import chosen_names

    assert list(chosen_names(["numpy by hand", "torch"], [name])) == ["numpy by hand"]
    with pytest.raises(ValueError, match="no peer is called 'nobody'"):
        chosen_names(["numpy by hand", "torch"], ["nobody"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fit", r"gr\.Trainer\(model, \.\.\.\) has fit"),
        ("predict", r"gr\.Trainer"),
        ("train", "there is no mode"),
        ("eval", "there is no mode"),
        ("state_dict", r"model\.params"),
        ("load_state_dict", r"params\.update"),
        ("forward", r"model\(x\)"),
        ("half", "astype"),
        ("modules", r"model\.walk"),
        ("cuda", r"model\.to\('cuda'\)"),
        ("cpu", r"model\.to\('cpu'\)"),
        ("none_of_these", "has no attribute 'none_of_these'"),
    ],
)
def test_habits_from_other_libraries(name, words):
    for made in (model(), gr.nn.Linear(4, 3), copy.deepcopy(model()), pickle.loads(pickle.dumps(model()))):
        with pytest.raises(AttributeError, match=words):
            getattr(made, name)
        assert not hasattr(made, name)


def test_what_is_read_only_says_what_to_do():
    made = trainer()
    with pytest.raises(
        AttributeError, match=r"\[SGD\] lr is read-only: assign another .*trainer\.optimizer = gr\.optim\.SGD"
    ):
        made.optimizer.lr = 0.01
    with pytest.raises(AttributeError, match=r"\[CrossEntropy\] weight is read-only: make another loss"):
        gr.losses.CrossEntropy().weight = [1.0, 2.0, 3.0]

    class Mine(gr.optim.SGD):
        def __init__(self, lr):
            super().__init__(lr)
            self.remark = "mine"

    assert Mine(0.1).remark == "mine" and gr.optim.SGD(0.1) == pickle.loads(pickle.dumps(copy.copy(gr.optim.SGD(0.1))))


@pytest.mark.parametrize("path", [3, None, True, 1.5, ["m"]])
def test_what_is_no_path(path):
    for call in (
        lambda: trainer().save(path),
        lambda: trainer().load(path),
        lambda: model().save(path),
        lambda: gr.load(path),
        lambda: trainer().fit((X, Y), verbose=False).to_csv(path),
        lambda: gr.callbacks.Checkpoint(path),
        lambda: gr.callbacks.Csv(path),
        lambda: gr.callbacks.TensorBoard(path),
        lambda: gr.callbacks.Trace(path),
    ):
        with pytest.raises(
            TypeError, match=rf"\[[\w.]+\] path must be a text or a pathlib.Path, got {type(path).__name__}"
        ):
            call()


def test_a_path_of_bytes_is_one(tmp_path):
    path = bytes(tmp_path / "m")
    trainer().save(path)
    trainer().load(path)
    assert gr.load(path).params.keys() == model().params.keys()
    trainer().fit((X, Y), callbacks=[gr.callbacks.Checkpoint(path), gr.callbacks.Csv(path + b".csv")], verbose=False)


def test_a_state_that_is_none():
    made, state = trainer(), trainer().state_dict()
    for given in (None, {}, {"params": {}}, {"params": [], "optimizer": {}}, 3):
        with pytest.raises(ValueError, match=r"\[Trainer.load_state_dict\] a state is what state_dict\(\) returned"):
            made.load_state_dict(given)
    with pytest.raises(TypeError, match=r"'0.bias' is a Masked.*hides values"):
        hidden = {**state["params"], "0.bias": np.ma.masked_less(state["params"]["0.bias"], 0)}
        made.load_state_dict({**state, "params": hidden})
    with pytest.raises(ValueError, match=r"'0.bias' is \(3,\) of float64, expected \(3,\) of float32"):
        made.load_state_dict({**state, "params": {**state["params"], "0.bias": [1.0, 2.0, 3.0]}})


def test_history_is_read_by_name():
    history = trainer().fit((X, Y), 2, verbose=False)
    assert history["loss"] == history.metrics["loss"] and list(history) == list(history.metrics)
    with pytest.raises(KeyError, match="there is no metric 'los'"):
        history["los"]


def test_what_predict_takes_like_evaluate():
    made = trainer()

    class Samples:
        def __getitem__(self, number):
            return X[number], Y[number]

        def __len__(self):
            return len(X)

    for source in (
        Samples(),
        gr.sources.Callable(lambda number: (X[number], Y[number]), len(X)),
        gr.sources.Concat([X[:9], X[9:]]),
    ):
        np.testing.assert_array_equal(made.predict(source), made.predict(X))


def test_a_class_that_stands_behind_the_main_guard(tmp_path):
    """A worker imports the script without that part."""
    script = tmp_path / "script.py"
    script.write_text(
        'if __name__ == "__main__":\n'
        "    import numpy as np, gradring as gr\n"
        "    class Squares:\n"
        "        def __call__(self, i):\n"
        "            return np.int64(i * i)\n"
        '    source = gr.sources.Callable(Squares(), 10, workers="processes", num_workers=1)\n'
        "    list(gr.Loader(source, 5))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100, check=False)
    words = done.stderr.strip().splitlines()[-1]
    assert words.startswith("TypeError: [Callable] a worker process cannot make fn: ") and "'Squares'" in words
    assert 'not what stands behind its `if __name__ == "__main__"`' in words and "workers='threads'" in words


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ([gr.nn.Linear(4, 3)], r"got list: gr\.nn\.Sequential\(\*layers\)"),
        (gr.nn.ReLU, r"got the class ReLU: did you forget the brackets"),
        ("m.safetensors", r"got str: gr\.load\(path\)"),
        (type("Net", (), {"__module__": "torch.nn", "state_dict": dict})(), r"got Net of torch: .*from_torch.*step=function"),
        (3, r"got int$"),
    ],
)
def test_what_is_no_model(model, words):
    with pytest.raises(TypeError, match=r"model must be a gradring layer, " + words):
        gr.Trainer(model)


@pytest.mark.parametrize("validate", [(X[:, :3], Y), (X, Y[:, None, None]), [(X[:, :3], Y)]])
def test_validation_data_that_do_not_fit_are_named(validate):
    made = trainer()
    with pytest.raises(ValueError, match=r"\[Trainer\.fit\] validate: .*\(.*3|1.*\)"):
        made.fit((X, Y), validate=validate, verbose=False)
    assert made.step_count == 0
