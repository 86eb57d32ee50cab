"""model.save and gr.load give back the same model, and refuse a bad file before they allocate anything."""

import json
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradring as gr
from gradring import checkpoint
from gradring.model_file import ARCHITECTURE
from gradring.nn import architecture

nn = gr.nn


class Scaled(nn.Layer):
    """A user's class."""

    def __init__(self, inner, times=1):
        self.inner = inner
        self.times = times

    def children(self):
        return {"inner": self.inner}

    def trace(self, tracer, x):
        for _ in range(self.times):
            x = tracer.call("inner", self.inner, x)
        return x


MODELS = {
    "linear": (lambda: nn.Linear(5, 3), (7, 5)),
    "no bias": (lambda: nn.Sequential(nn.Linear(5, 3, bias=False), nn.Tanh()), (2, 5)),
    "no parameters": (lambda: nn.Sequential(nn.ReLU(), nn.Flatten()), (3, 2, 2)),
    "empty": (lambda: nn.Sequential(), (3, 2)),
    "residual": (lambda: nn.Residual(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)), (1, 4)),
    "nested": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Sequential(nn.Linear(6, 6), nn.Dropout(p=0.25)), nn.GELU(approximate="none")
        ),
        (3, 2, 3),
    ),
    "norms": (
        lambda: nn.Sequential(
            nn.LayerNorm(5, 1e-3, bias=False), nn.Linear(5, 4), nn.RMSNorm(4), nn.BatchNorm1d(4, momentum=1)
        ),
        (3, 5),
    ),
    "scalars of NumPy": (
        lambda: nn.Sequential(nn.Linear(np.int64(3), np.int32(2)), nn.Dropout(np.float32(0.5))),
        (4, 3),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back(tmp_path, name, dtype):
    make, shape = MODELS[name]
    model = make().init(seed=4, dtype=dtype)
    x = np.random.default_rng(1).standard_normal(shape)
    model.save(tmp_path / "m")
    again = gr.load(tmp_path / "m")
    assert repr(again) == repr(model) and again.params.keys() == model.params.keys()
    assert again.params == {} or again.store.dtype == dtype
    np.testing.assert_array_equal(again(x.astype(dtype)), model(x.astype(dtype)))
    again.save(tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()


@pytest.mark.cpu("it compares the bits of a model on the CPU")
def test_ids_and_buffers(tmp_path):
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 2))
    ids = np.random.default_rng(0).integers(0, 9, (64, 2))
    gr.Trainer(model).fit((ids, ids[:, 0] % 2), epochs=2, verbose=False)
    model.save(tmp_path / "m")
    again = gr.load(tmp_path / "m")
    assert again.buffers.keys() == model.buffers.keys() and not np.all(again.buffers["2.running_var"] == 1)
    np.testing.assert_array_equal(again(ids), model(ids))


@pytest.mark.parametrize("copied", [lambda m: pickle.loads(pickle.dumps(m)), __import__("copy").deepcopy])
def test_a_copy_can_be_saved(tmp_path, copied):
    model = MODELS["nested"][0]().init(1)
    copied(model).save(tmp_path / "m")
    assert repr(gr.load(tmp_path / "m")) == repr(model)


def test_every_layer_of_the_package_is_known_by_its_name():
    layers = {
        name for name in nn.__all__ if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), nn.Layer)
    }
    assert architecture._library().keys() == layers - {"Layer"}


@pytest.mark.cpu("it compares the bits of a model on the CPU")
def test_files_of_a_trainer_and_of_a_checkpoint(tmp_path, blobs):
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.1), nn.Linear(6, 3))
    trainer = gr.Trainer(model)
    callbacks = [gr.callbacks.Checkpoint(tmp_path / "c"), gr.callbacks.EarlyStop("loss", 3)]
    trainer.fit(blobs, epochs=2, callbacks=callbacks, verbose=False)
    trainer.save(tmp_path / "t")
    for name in "ct":
        again = gr.load(tmp_path / name)
        np.testing.assert_array_equal(again(blobs[0]), trainer.predict(blobs[0]))
    # And the other way: a trainer takes the weights of a saved model.
    gr.load(tmp_path / "t").save(tmp_path / "m")
    other = gr.Trainer(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.1), nn.Linear(6, 3)))
    with pytest.raises(gr.CheckpointMismatch, match=r"has a model alone.*: weights_only=True takes its parameters"):
        other.load(tmp_path / "m")
    assert sorted(other.load(tmp_path / "m", weights_only=True)) == sorted(model.params)
    np.testing.assert_array_equal(other.predict(blobs[0]), trainer.predict(blobs[0]))


def test_a_loaded_model_is_trained_further(tmp_path, blobs):
    nn.Sequential(nn.Linear(8, 3)).init(2).save(tmp_path / "m")
    trainer = gr.Trainer(gr.load(tmp_path / "m"), seed=5)
    before = trainer.evaluate(blobs)["loss"]
    trainer.fit(blobs, epochs=3, verbose=False)
    assert trainer.evaluate(blobs)["loss"] < before


def test_classes_of_the_user_come_from_the_caller_alone(tmp_path):
    model = nn.Sequential(Scaled(nn.Linear(3, 3), times=2), nn.ReLU()).init(1)
    model.save(tmp_path / "m")
    with pytest.raises(
        gr.CheckpointMismatch, match=r"layer 0 is of a class 'Scaled' outside gradring.*layers=\{'Scaled'"
    ):
        gr.load(tmp_path / "m")
    x = np.ones((2, 3), np.float32)
    again = gr.load(tmp_path / "m", layers={"Scaled": Scaled})
    assert again[0].times == 2
    np.testing.assert_array_equal(again(x), model(x))
    built = nn.Sequential(Scaled(nn.Linear(3, 3), times=2), nn.ReLU())
    assert gr.load(tmp_path / "m", model=built) is built
    np.testing.assert_array_equal(built(x), model(x))
    with pytest.raises(TypeError, match=r"what layers= gives for 'Scaled' made a dict"):
        gr.load(tmp_path / "m", layers={"Scaled": lambda *a, **k: {}})


def test_a_layer_of_the_user_that_was_changed_is_not_made_from_its_old_arguments(tmp_path):
    for change, words in [
        (lambda layer: setattr(layer, "times", 3), r"its times is 3, but it was made with 1"),
        (
            lambda layer: setattr(layer, "inner", nn.Linear(3, 3, bias=False)),
            r"its inner is Linear\(3, 3, bias=False\), but",
        ),
    ]:
        layer = Scaled(nn.Linear(3, 3))
        change(layer)
        nn.Sequential(layer).save(tmp_path / "m")
        with pytest.raises(gr.CheckpointMismatch, match=rf"layer 0, Scaled, cannot be made from a file: {words}"):
            gr.load(tmp_path / "m", layers={"Scaled": Scaled})
        built = Scaled(layer.inner, layer.times)
        x = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(gr.load(tmp_path / "m", model=nn.Sequential(built))(x), nn.Sequential(layer)(x))


class Counted(nn.Linear):
    """A layer whose constructor takes what no file and no pickle can hold."""

    def __init__(self, size, source):
        super().__init__(size, len(source))


def test_arguments_that_are_no_data_are_not_kept(tmp_path):
    source = np.zeros(3)
    layer = Counted(4, source)
    references = sys.getrefcount(source)
    other = Counted(4, source)
    assert sys.getrefcount(source) == references and other.outputs == 3
    assert pickle.loads(pickle.dumps(Counted(4, memoryview(b"ab")))).outputs == 2  # which cannot be pickled itself
    layer.save(tmp_path / "m")
    with pytest.raises(
        gr.CheckpointMismatch, match=r"Counted, cannot be made from a file: argument 1 is of ndarray, which is no"
    ):
        gr.load(tmp_path / "m", layers={"Counted": Counted})


def test_a_list_that_is_changed_later(tmp_path):
    sizes = [3, 2]

    class Sized(nn.Linear):
        def __init__(self, sizes):
            super().__init__(*sizes)

    layer = Sized(sizes)
    sizes.append(7)
    layer.save(tmp_path / "m")
    assert repr(gr.load(tmp_path / "m", layers={"Sized": Sized})) == repr(layer)

    class Within(nn.ReLU):
        def __init__(self, parts):
            pass

    sizes.append(sizes)  # a list that is in itself
    Within(sizes).save(tmp_path / "m")
    with pytest.raises(
        gr.CheckpointMismatch, match=r"Within, cannot be made from a file: argument 0 is of list, which is no"
    ):
        gr.load(tmp_path / "m", layers={"Within": Within})


def test_functions_are_not_loaded(tmp_path):
    def make():
        return nn.Sequential(nn.Linear(3, 3), nn.Function(lambda x: 2 * x, lambda dy, x, y: 2 * dy))

    model = make().init(6)
    model.save(tmp_path / "m")
    with pytest.raises(gr.CheckpointMismatch, match=r"layer 1, Function, cannot be made from a file.*model=model"):
        gr.load(tmp_path / "m")
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(gr.load(tmp_path / "m", model=make())(x), model(x))


def test_another_model_is_refused_and_left_as_it_was(tmp_path):
    nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).init(1).save(tmp_path / "m")
    for other, words in [
        (
            nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)),
            r"tensor '1.weight' is \(2, 2\), but the model has it as \(2, 3\)",
        ),
        (nn.Sequential(nn.Linear(3, 2)), r"tensor '1.bias' belongs to no layer"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 2)), r"tensor '2.weight' is missing"),
    ]:
        before = {name: array.copy() for name, array in other.init(9).params.items()}
        with pytest.raises(gr.CheckpointMismatch, match=words):
            gr.load(tmp_path / "m", model=other)
        assert all(np.array_equal(other.params[name], array) for name, array in before.items())
    with pytest.raises(TypeError, match=r"model must be a gradring layer, got dict"):
        gr.load(tmp_path / "m", model={})


def test_a_file_without_architecture(tmp_path):
    trainer = gr.Trainer(step=lambda p, b: (0.0, {"w": np.zeros(2)}), params={"w": np.zeros(2)})
    trainer.save(tmp_path / "m")
    with pytest.raises(gr.CheckpointMismatch, match=r"has no architecture.*model=model"):
        gr.load(tmp_path / "m")


def sealed(path, description, tensors=None):
    """A file with sound checksums, and any text as its architecture."""
    text = description if isinstance(description, str) else json.dumps(description)
    tensors = (
        {"0.weight": np.ones((3, 2), np.float32), "0.bias": np.ones(2, np.float32)} if tensors is None else tensors
    )
    checkpoint.write(path, tensors, {"format": "gradring", "version": "1", ARCHITECTURE: text})
    return path


def sequential(*layers):
    return {"layer": "Sequential", "given": list(layers)}


def deep(levels):
    entry = {"layer": "ReLU"}
    for _ in range(levels):
        entry = {"layer": "Residual", "given": [entry]}
    return entry


HOSTILE = {
    "units": (
        sequential({"layer": "Linear", "given": [3, 10**12]}),
        r"0.weight' is \(3, 2\), but .* \(3, 1000000000000\), 3",
    ),
    "more units": (sequential({"layer": "Linear", "given": [2**70, 2**70]}), r"the model has it as"),
    "deep": (deep(200), r"is more than 64 layers deep"),
    "very deep": ('{"layer":"Residual","given":[' * 100_000, r"no JSON that can be read"),
    "deep list": ({"layer": "Linear", "given": json.loads("[" * 200 + "]" * 200)}, r"lists more than 64 deep"),
    "unknown": (sequential({"layer": "Quantum", "given": [1]}), r"layer 0 is a gr.nn.Quantum, which this version"),
    "not a layer": (sequential({"layer": "ParameterSpec", "given": [1, 2]}), r"gr.nn.ParameterSpec, which"),
    "the base": (sequential({"layer": "Layer"}), r"gr.nn.Layer, which"),
    "a module": (sequential({"layer": "os.system", "given": ["true"]}), r"gr.nn.os.system, which"),
    "a class": (sequential({"class": "os.system", "given": ["true"]}), r"a class 'os.system' outside gradring"),
    "function": (sequential({"layer": "Function", "given": ["a", "b"]}), r"layer 0, Function, cannot be made"),
    "negative": (
        sequential({"layer": "Linear", "given": [3, -2]}),
        r"layer 0 cannot be made as Linear: outputs must be",
    ),
    "a text": (
        sequential({"layer": "Linear", "given": [3, "2"]}),
        r"layer 0 cannot be made as Linear: outputs must be",
    ),
    "a bool": (sequential({"layer": "Linear", "given": [3, True]}), r"layer 0 cannot be made"),
    "NaN": ('{"layer":"Dropout","given":[NaN]}', r"the model cannot be made as Dropout: p must be"),
    "too many": (sequential({"layer": "Linear", "given": [3, 2, True, 4]}), r"layer 0 cannot be made"),
    "odd name": (sequential({"layer": "Linear", "named": {"_store": 1}}), r"layer 0 cannot be made"),
    "no name": (sequential({"given": [3, 2]}), r"layer 0 has no name of a class"),
    "two names": (sequential({"layer": "Linear", "class": "Linear"}), r"layer 0 has no name of a class"),
    "odd key": (sequential({"layer": "Linear", "code": "x"}), r"layer 0 is not described by a name and arguments"),
    "given": ({"layer": "Sequential", "given": {"0": 1}}, r"the model has arguments that are neither a list nor a dict"),
    "named": ({"layer": "Sequential", "named": []}, r"the model has arguments that are neither a list nor a dict"),
    "list": ([], r"the model is not described"),
    "null": ("null", r"the model is not described"),
    "empty": ("", r"no JSON that can be read"),
    "digits": ('{"layer":"Linear","given":[3,' + "9" * 5000 + "]}", r"the architecture does not fit"),
    "no layer": (sequential(3), r"the model cannot be made as Sequential: layer 0 must be a gradring layer"),
    "other tensors": (sequential({"layer": "Linear", "given": [3, 2, False]}), r"tensor '0.bias' belongs to no layer"),
    "missing": (
        sequential({"layer": "Linear", "given": [3, 2]}, {"layer": "Linear", "given": [2, 2]}),
        r"'1.weight' is missing",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_architectures(tmp_path, name):
    description, words = HOSTILE[name]
    path = sealed(tmp_path / "m", description)
    tracemalloc.start()
    try:
        with pytest.raises((gr.CheckpointCorrupt, gr.CheckpointMismatch), match=words) as caught:
            gr.load(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and len(str(caught.value)) < 800


def test_too_many_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(architecture, "MOST_LAYERS", 50)
    with pytest.raises(gr.CheckpointCorrupt, match=r"is one too many: the most are 50"):
        gr.load(sealed(tmp_path / "m", sequential(*[{"layer": "ReLU"}] * 50)))


@pytest.mark.parametrize("saved_by", ["model", "trainer"])
def test_a_model_too_deep_to_be_described_is_saved_for_a_model_built_in_python(saved_by, tmp_path):
    def nested():
        model = nn.Linear(3, 3)
        for _ in range(70):
            model = nn.Residual(model)
        return model

    model = nested().init(1)
    x = np.ones((2, 3), np.float32)
    (model if saved_by == "model" else gr.Trainer(model)).save(tmp_path / "m")
    with pytest.raises(gr.CheckpointMismatch, match=r"Residual, cannot be made from a file: .* more than 64 deep"):
        gr.load(tmp_path / "m")
    again = gr.load(tmp_path / "m", model=nested())
    assert np.array_equal(again(x), model(x))


def test_weights_of_odd_dtypes(tmp_path):
    description = sequential({"layer": "Linear", "given": [3, 2]})
    for weight, bias, words in [
        (
            np.ones((3, 2), np.int32),
            np.ones(2, np.float32),
            r"tensor '0.weight' is of int32, but parameters are floats",
        ),
        (np.ones((3, 2), np.float16), np.ones(2, np.float16), r"of float16, must all be"),
        (np.ones((3, 2), np.float64), np.ones(2, np.float32), r"of float32, float64, must all be"),
    ]:
        path = sealed(tmp_path / "m", description, {"0.weight": weight, "0.bias": bias})
        with pytest.raises(gr.CheckpointCorrupt, match=words):
            gr.load(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*architecture._library(), "Layer", "ParameterSpec", "Nothing", ""])
VALUES = st.none() | st.booleans() | st.integers(-2, 2**64) | st.floats() | st.text(max_size=4) | JSON
KEYS = st.sampled_from(["bias", "inputs", "p", "eps", "approximate", "features", "x"])
LAYERS = st.recursive(
    st.builds(lambda n, g, k: {"layer": n, "given": g, "named": k}, NAMES, st.lists(VALUES, max_size=4),
              st.dictionaries(KEYS, VALUES, max_size=2)),
    lambda inner: st.builds(lambda n, g: {"layer": n, "given": g}, st.sampled_from(["Sequential", "Residual"]),
                            st.lists(inner | VALUES, max_size=4)),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LAYERS | JSON)
def test_any_description_is_a_model_or_a_clear_error(description):
    try:
        built = architecture.build(json.dumps(description), "[load] m")
        built.named_parameters()
    except (gr.CheckpointCorrupt, gr.CheckpointMismatch) as error:
        assert str(error).startswith("[load] m: ")
    else:
        assert isinstance(built, nn.Layer)
        assert (
            architecture.build(architecture.describe(built), "[load] m").named_parameters().keys()
            == built.named_parameters().keys()
        )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_damage_of_a_description_is_an_error_or_a_model(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "m"
    text = architecture.describe(nn.Sequential(nn.Linear(3, 2), nn.Residual(nn.Dropout(0.5))))
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]
    try:
        sealed(path, changed)
    except UnicodeEncodeError:
        return
    try:
        loaded = gr.load(path)
    except (gr.CheckpointCorrupt, gr.CheckpointMismatch) as error:
        assert str(path) in str(error)
    else:
        assert loaded.params["0.weight"].shape == (3, 2)
