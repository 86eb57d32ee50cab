"""Trainer(step=fn, params=...) with arrays on a CUDA device does what it does with arrays of the host."""

import numpy as np
import pytest

import gradring as gr
from device_producers import Interface, Tensor, Torch, on_device, run_lazily
from gradring import cuda
from helpers import snapshot

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((48, 4)), RNG.standard_normal((48, 2))


def start(dtype="float64"):
    rng = np.random.default_rng(1)
    return {"w": rng.standard_normal((4, 2)).astype(dtype), "b": rng.standard_normal(2).astype(dtype)}


def gradients(w, b, batch):
    x, y = batch
    error = x @ w + b - y
    return float(np.mean(error**2)), {"w": 2 / error.size * (x.T @ error), "b": 2 / error.size * error.sum(0)}, len(x)


def here(params, batch):
    return gradients(params["w"], params["b"], batch)


def there(params, batch):
    """The same for arrays on a device, as a function in CuPy would be: gradients that lie there."""
    w, b = (cuda.as_array(params[name]).numpy() for name in ("w", "b"))
    loss, grads, count = gradients(w, b, batch)
    return loss, {name: on_device(grad.astype(w.dtype)) for name, grad in grads.items()}, count


def pair(form=lambda array: array, dtype="float64", **options):
    """A trainer of the host and one of the device, of the same values."""
    host = gr.Trainer(step=here, params=start(dtype), **options)
    arrays = {name: form(on_device(array)) for name, array in start(dtype).items()}
    return host, gr.Trainer(step=there, params=arrays, **options), arrays


def compare(host, device, tolerance=1e-12):
    for name, array in host.params.items():
        np.testing.assert_allclose(cuda.as_array(device.params[name]).numpy(), array, rtol=tolerance, atol=tolerance)
    for name, array in host.state_dict()["optimizer"].items():
        np.testing.assert_allclose(device.state_dict()["optimizer"][name], array, rtol=tolerance, atol=tolerance)
    assert host.step_count == device.step_count


@pytest.mark.parametrize("form", [lambda array: array, Interface, Tensor, Torch], ids=["own", "CuPy", "DLPack", "PyTorch"])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": gr.optim.SGD(0.05)},
        {"optimizer": gr.optim.SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.1)},
        {"optimizer": gr.optim.Adam(gr.optim.schedule.cosine(0.05, 9))},
        {"optimizer": gr.optim.AdamW(0.05, groups=[{"params": "b", "weight_decay": 0.0, "lr": 0.01}])},
        {"optimizer": gr.optim.RMSprop(0.01)},
        {"optimizer": gr.optim.Lion(0.01)},
        {"optimizer": gr.optim.SGD(0.05), "clip_norm": 0.1},
        {"optimizer": gr.optim.SGD(0.05), "accumulate": 3},
        {"optimizer": gr.optim.Adam(0.05), "accumulate": 3, "clip_norm": 0.1},
        {"optimizer": gr.optim.Adam(0.05), "frozen": "b"},
    ],
    ids=lambda options: ", ".join(f"{name}={value}"[:40] for name, value in options.items()),
)
def test_updates_are_those_of_the_host(form, options):
    host, device, arrays = pair(form, **options)
    for begin in (0, 7, 3, 20, 1, 30, 11):
        batch = X[begin : begin + 8 + begin % 3], Y[begin : begin + 8 + begin % 3]
        assert device.step(*batch) == pytest.approx(host.step(*batch), rel=1e-12)
    compare(host, device)
    for name, array in arrays.items():  # updated where they lie
        np.testing.assert_array_equal(cuda.as_array(array).numpy(), cuda.as_array(device.params[name]).numpy())


def test_fit_evaluate_and_the_batches_of_a_device():
    host, device, _ = pair(optimizer=gr.optim.Adam(0.02), dtype="float32")
    data = X.astype("float32"), Y.astype("float32")
    losses = []
    for trainer in (host, device):
        history = trainer.fit(gr.Loader(data, 16, shuffle=True), epochs=3, verbose=False)
        losses.append((history.metrics["loss"], trainer.evaluate(gr.Loader(data, 16))["loss"]))
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-5)
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-5)
    compare(host, device, 1e-5)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_saved_training_goes_on_with_the_same_bits(tmp_path, accumulate):
    def made():
        arrays = {name: on_device(array) for name, array in start().items()}
        return gr.Trainer(step=there, params=arrays, optimizer=gr.optim.AdamW(0.05), accumulate=accumulate)

    whole, first, second = made(), made(), made()
    for begin in range(8):
        whole.step(X[begin : begin + 8], Y[begin : begin + 8])
        if begin < 4:
            first.step(X[begin : begin + 8], Y[begin : begin + 8])
    first.save(tmp_path / "a.safetensors")
    second.load(tmp_path / "a.safetensors")
    third = made()
    third.load_state_dict(first.state_dict())
    for trainer in (second, third):
        for begin in range(4, 8):
            trainer.step(X[begin : begin + 8], Y[begin : begin + 8])
        assert snapshot(trainer) == snapshot(whole)
    on_host = gr.Trainer(step=here, params=start(), optimizer=gr.optim.AdamW(0.05), accumulate=accumulate)
    on_host.load(tmp_path / "a.safetensors")  # a file of a device loads on the host
    assert on_host.step_count == first.step_count


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_not_finite_change_nothing(bad):
    value = [None]

    def function(params, batch):
        loss, grads, count = there(params, batch)
        if value[0] is not None:
            grads["b"][1:] = value[0]
        return loss, grads, count

    arrays = {name: on_device(array) for name, array in start().items()}
    trainer = gr.Trainer(step=function, params=arrays, optimizer=gr.optim.Adam(0.05))
    trainer.step(X[:8], Y[:8])
    before, value[0] = snapshot(trainer), bad
    with pytest.raises(gr.NonFinite, match=r"the gradient of 'b' is not finite in step 1, though the loss is"):
        trainer.step(X[:8], Y[:8])
    assert snapshot(trainer) == before
    value[0] = 1e200  # whose square overflows
    trainer.step(X[:8], Y[:8])
    assert trainer.step_count == 2


def test_bad_arrays_are_refused_by_name():
    arrays = {name: on_device(array) for name, array in start().items()}
    made = {"optimizer": gr.optim.SGD(0.1)}
    with pytest.raises(ValueError, match=r"params\['b'\] \(ndarray\) is in the host's memory, and params are on cuda:0"):
        gr.Trainer(step=there, params={**arrays, "b": np.zeros(2)}, **made)
    with pytest.raises(TypeError, match=r"params\['b'\] must be float32 or float64, got int64"):
        gr.Trainer(step=there, params={**arrays, "b": on_device(np.zeros(2, int))}, **made)
    with pytest.raises(ValueError, match=r"params\['w'\] must be C-contiguous"):
        gr.Trainer(step=there, params={**arrays, "w": on_device(np.zeros((4, 4)))[:, ::2]}, **made)
    with pytest.raises(ValueError, match=r"params\['b'\] and params\['c'\] share memory"):
        gr.Trainer(step=there, params={**arrays, "c": arrays["b"][1:]}, **made)
    with pytest.raises(gr.NotBuilt, match="step= and params on a CUDA device"):
        gr.Trainer(step=there, params=arrays, replicas=2, **made)
    with pytest.raises(gr.NotBuilt, match="device is 'cuda', and params are in the host's memory"):
        gr.Trainer(step=here, params=start(), device="cuda", **made)
    gr.Trainer(step=there, params=arrays, device="cuda:0", **made).step(X, Y)
    before = {name: array.numpy() for name, array in arrays.items()}
    for wrong, error, words in (
        ({"w": arrays["w"]}, ValueError, r"missing \['b'\]"),
        ({**arrays, "b": np.zeros(2)}, ValueError, r"grads\['b'\] \(ndarray\) is in the host's memory"),
        ({**arrays, "b": on_device(np.zeros(3))}, ValueError, r"grads\['b'\] is \(3,\) of float64, params\['b'\] is \(2,\)"),
        ({**arrays, "b": on_device(np.zeros(2, "float32"))}, ValueError, r"of float32, params\['b'\] is .* float64"),
    ):
        trainer = gr.Trainer(step=lambda params, batch, wrong=wrong: (0.0, wrong), params=arrays, **made)
        with pytest.raises(error, match=words):
            trainer.step(X, Y)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array.numpy(), before[name])


def test_a_gradient_that_is_a_parameter_or_has_gaps_is_copied():
    arrays = {"a": on_device(np.arange(1.0, 4.0)), "b": on_device(np.arange(2.0, 5.0))}

    def function(params, batch):  # d/da (a b) = b, d/db (a b) = a: the parameters themselves
        return 0.0, {"a": params["b"], "b": on_device(np.repeat(params["a"].numpy(), 2))[::2]}

    trainer = gr.Trainer(step=function, params=arrays, optimizer=gr.optim.SGD(0.5))
    trainer.step(X)
    assert arrays["a"].numpy().tolist() == [0.0, 0.5, 1.0] and arrays["b"].numpy().tolist() == [1.5, 2.0, 2.5]


def test_read_only_parameters_are_copied_once_as_those_of_jax():
    array = on_device(np.ones(3))
    given = Interface(array, data=(array.address, True))
    seen = []

    def function(params, batch):
        seen.append(params["w"])
        return 0.0, {"w": on_device(np.ones(3))}

    trainer = gr.Trainer(step=function, params={"w": given}, optimizer=gr.optim.SGD(0.5))
    trainer.step(X)
    trainer.step(X)
    assert array.numpy().tolist() == [1.0] * 3 and trainer.params["w"].numpy().tolist() == [0.0] * 3
    assert seen[0] is seen[1] and isinstance(seen[0], cuda.Array)


def test_updates_are_ordered_with_the_current_stream_and_the_gradients():
    script = """
import numpy as np
import gradring as gr
from device_producers import Torch, on_device
from gradring import cuda

first, second = cuda.Stream(), cuda.Stream()
weight = on_device(np.zeros(64))
gradient = on_device(np.zeros(64))

def function(params, batch):
    with cuda.use_stream(second):  # the framework's own stream, of which the trainer learns by DLPack
        gradient[...] = on_device(np.full(64, batch))
    return 0.0, {"w": Torch(gradient, second)}

with cuda.use_stream(first):
    trainer = gr.Trainer(step=function, params={"w": weight}, optimizer=gr.optim.SGD(1.0), nonfinite="ignore")
    for value in (1.0, 2.0, 4.0):
        trainer.step(value)
        cuda.streams.order(0, first.handle, second.handle)  # the function writes the gradient again
    total = float(weight.numpy().sum())
print(int(total))
del weight, gradient, trainer
"""
    assert run_lazily(script) == str(-7 * 64)


def test_an_update_that_fails_midway_says_so():
    script = """
import os
import numpy as np
import gradring as gr
from device_producers import on_device

def function(params, batch):
    return 0.0, {name: on_device(np.ones(3)) for name in params}

params = {name: on_device(np.zeros(3)) for name in ("a", "b", "c")}
trainer = gr.Trainer(step=function, params=params, optimizer=gr.optim.SGD(1.0), nonfinite="ignore")
trainer.step(0)
says = []
try:
    trainer.step(0)
except gr.GradringError as error:
    says.append("cudaLaunchKernel" in str(error))
for call in (lambda: trainer.step(0), lambda: trainer.save("never")):
    try:
        call()
    except gr.GradringError as error:
        says.append("1 of 3 parameters were updated" in str(error))
print(says == [True, True, True] and trainer.step_count == 1)
del params, trainer
"""
    # Three launches of the first step, and the second of the next one.
    assert run_lazily(script, GRADRING_CUDA_FAIL="cudaLaunchKernel:5:701") == "True"
