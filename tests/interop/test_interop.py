"""gr.interop: the same numbers in PyTorch and in ONNX's reference runtime, for all layers."""

import sys

import numpy as np
import pytest

import gradring as gr
from gradring.interop import from_torch, to_onnx, to_torch

nn = gr.nn
RNG = np.random.default_rng(8)


def floats(*shape):
    return RNG.standard_normal(shape)


MODELS = {
    "linear": (lambda: nn.Linear(5, 3), floats(7, 5)),
    "square": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4, bias=False)), floats(3, 4)),
    "more axes": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Sigmoid()), floats(2, 6, 5)),
    "activations": (
        lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.GELU(), nn.Linear(9, 9), nn.SiLU(), nn.Dropout(0.5)),
        floats(11, 6),
    ),
    "exact gelu": (lambda: nn.Sequential(nn.GELU("none"), nn.Linear(6, 5), nn.GELU("none")), 4 * floats(11, 6)),
    "residual": (
        lambda: nn.Sequential(nn.Flatten(), nn.Residual(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)), nn.Linear(6, 1)),
        floats(4, 2, 3),
    ),
    "norms": (
        lambda: nn.Sequential(
            nn.LayerNorm(5, 1e-3), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.RMSNorm(4), nn.BatchNorm1d(4, affine=False)
        ),
        floats(9, 5) * 3 + 1,
    ),
    "no bias": (lambda: nn.Sequential(nn.LayerNorm(5, bias=False), nn.Residual(nn.RMSNorm(5))), floats(9, 5)),
    "ids": (lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 2)), RNG.integers(0, 9, (6, 2))),
    "empty": (lambda: nn.Sequential(), floats(3, 2)),
}


def prepared(name, dtype):
    """A model whose parameters and buffers are all other than at the start, and an input for it."""
    make, x = MODELS[name]
    model = make().init(2, dtype)
    for full, array in model.store.saved.items():
        array[...] = RNG.uniform(0.5, 1.5, array.shape) if "var" in full else RNG.standard_normal(array.shape)
    return model, x if x.dtype.kind == "i" else x.astype(dtype)


def close(got, wanted, dtype):
    tolerance = 1e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * max(1, np.abs(wanted).max(initial=0)))
    assert got.dtype == wanted.dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_pytorch_there_and_back(name, dtype):
    torch = pytest.importorskip("torch")
    model, x = prepared(name, dtype)
    module = to_torch(model)
    assert not module.training
    with torch.no_grad():
        close(module(torch.from_numpy(x)).numpy(), np.asarray(model(x)), dtype)
    again = MODELS[name][0]().init(7, dtype)
    for state in (module, module.state_dict(), {n: t.numpy() for n, t in module.state_dict().items()}):
        assert from_torch(state, again) is again
        for full, array in model.store.saved.items():
            np.testing.assert_array_equal(again.store.saved[full], array)
            array[...] += 0  # the copies are independent
    if model.params:
        before = {full: array.copy() for full, array in model.params.items()}
        with torch.no_grad():
            for tensor in module.parameters():
                tensor.fill_(9)
        assert all(np.array_equal(model.params[full], array) for full, array in before.items())


def test_a_module_of_other_names():
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4, dtype=torch.bfloat16)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)).bfloat16())

    module = Net()
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    from_torch(module, model, names={"0": "first", "2": "last"})
    x = floats(5, 4).astype("f4")
    np.testing.assert_allclose(model(x), module(torch.from_numpy(x)).float().detach().numpy(), atol=0.05)
    np.testing.assert_array_equal(model.params["0.weight"], module.first.weight.detach().numpy().T)


def state(**changes):
    made = {"0.weight": np.ones((3, 4)), "0.bias": np.ones(3), "2.weight": np.ones((3, 3)), "2.bias": np.ones(3)}
    made |= changes
    return {name: array for name, array in made.items() if array is not None}


@pytest.mark.parametrize(
    ("given", "names", "words"),
    [
        (
            state(**{"0.weight": np.ones((4, 3))}),
            None,
            r"'0.weight' is \(4, 3\), must be \(3, 4\) for the model's '0.weight' of L",
        ),
        (state(**{"2.bias": None}), None, r"has no '2.bias' for the model's '2.bias'; it has .*names=\{'2': 'fc1'\}"),
        (state(**{"4.bias": np.ones(3)}), None, r"the model has nothing for '4.bias'"),
        (state(), {"1.x": "fc"}, r"the model has no layer '1.x'; its layers are , 0, 1, 2"),
        (state(), {"0": "fc"}, r"has no 'fc.weight' for the model's '0.weight'"),
    ],
)
def test_states_that_do_not_fit_change_nothing(given, names, words):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)).init(1)
    before = {name: array.copy() for name, array in model.params.items()}
    with pytest.raises(ValueError, match=words):
        from_torch(given, model, names=names)
    assert all(np.array_equal(model.params[name], array) for name, array in before.items())


def test_what_is_neither():
    with pytest.raises(TypeError, match=r"state_dict must be a module or its state_dict\(\), got list"):
        from_torch([1], nn.Linear(2, 2))
    for call in (lambda: from_torch({}, {}), lambda: to_onnx({}, "m.onnx")):
        with pytest.raises(TypeError, match=r"model must be a gradring layer, got dict"):
            call()


def twice():
    return nn.Sequential(nn.Linear(3, 3), nn.Function(lambda x: 2 * x, lambda dy, x, y: 2 * dy))


class Own(nn.Layer):
    """A layer of the user, made of the library's."""

    def __init__(self):
        self.inner = nn.Linear(3, 3)

    def children(self):
        return {"inner": self.inner}

    def trace(self, tracer, x):
        for _ in range(2):
            x = tracer.call("inner", self.inner, x)
        return x


def test_layers_that_pytorch_does_not_have():
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"layer 1, Function\(.*\), has no counterpart in PyTorch"):
        to_torch(twice())
    with pytest.raises(ValueError, match=r"layer the model, Own\(\), has no counterpart"):
        to_torch(Own())


def run(path, x):
    reference = pytest.importorskip("onnx.reference")
    return reference.ReferenceEvaluator(str(path)).run(None, {"x": x})[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_onnx(tmp_path, name, dtype):
    pytest.importorskip("onnx")
    model, x = prepared(name, dtype)
    to_onnx(model, tmp_path / "m.onnx", x.shape)
    for rows in (x, x[:1]):  # the batch is of any length
        # The reference runtime computes Erf in float32.
        precision = "float32" if name == "exact gelu" else dtype
        close(run(tmp_path / "m.onnx", rows).astype(precision), np.asarray(model(rows)).astype(precision), precision)


def test_onnx_of_a_users_own_layer(tmp_path):
    pytest.importorskip("onnx")
    model, x = Own().init(3), floats(4, 3).astype("f4")
    to_onnx(model, tmp_path / "m.onnx", (1, 3))
    close(run(tmp_path / "m.onnx", x), np.asarray(model(x)), "float32")


def test_onnx_finds_the_input_where_the_first_layer_says_it(tmp_path):
    onnx = pytest.importorskip("onnx")
    for model, width in [
        (nn.Sequential(nn.Dropout(0.1), nn.Residual(nn.Linear(5, 5))), 5),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(7)), 7),
    ]:
        to_onnx(model.init(0), tmp_path / "m.onnx")
        dims = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim
        assert dims[0].dim_param == "batch" and dims[1].dim_value == width
    for model in (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), nn.Embedding(3, 2), nn.Sequential()):
        with pytest.raises(ValueError, match=r"give input_shape=\(batch, ...\)"):
            to_onnx(model.init(0), tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()


def test_what_onnx_cannot_have(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match=r"layer 1.Function\(.*\) computes 'function', which ONNX cannot have"):
        to_onnx(twice().init(0), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_packages_that_are_not_installed(tmp_path, monkeypatch):
    model = nn.Linear(2, 2).init(0)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"\[to_torch\] needs PyTorch: pip install torch"):
        to_torch(model)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"\[to_onnx\] needs the package onnx: pip install onnx"):
        to_onnx(model, tmp_path / "m.onnx")
