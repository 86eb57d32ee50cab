"""Trainer(step=fn, params=...) with arrays on a CUDA device does what it does with arrays of the host."""

from contextlib import nullcontext

import numpy as np
import pytest

import gradring as gr
from device_producers import Interface, Tensor, Torch, on_device, run_lazily
from gradring import cuda
from gradring.session import user_device
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
def test_gradients_that_are_not_finite_change_nothing(monkeypatch, bad):
    monkeypatch.setattr(user_device, "REPORT_SECONDS", 1e9)
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
    failed = trainer.step(X[:8], Y[:8])  # the device finds it
    value[0] = None
    later = trainer.step(X[:8], Y[:8])
    with pytest.raises(gr.NonFinite, match=r"the gradient of 'b' is not finite in step 1, though the loss is"):
        float(failed)
    with pytest.raises(gr.GradringError, match=r"this step has changed nothing, because one before it had failed"):
        float(later)
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


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"clip_norm": 0.5}], ids=str)
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("reader", ["params", "save", "evaluate", "float", "step_count and state_dict"])
def test_a_fault_that_was_never_read_is_raised_by_who_looks_next(tmp_path, monkeypatch, options, where, reader):
    monkeypatch.setattr(user_device, "REPORT_SECONDS", 1e9)
    bad = [False]

    def function(params, batch):
        loss, grads, count = there(params, batch)
        if bad[0] and where == "gradient":
            grads["w"][0, 1:] = np.nan
        return on_device(np.array([np.nan if bad[0] and where == "loss" else loss])), grads, count

    def made():
        arrays = {name: on_device(array) for name, array in start().items()}
        return gr.Trainer(step=function, params=arrays, optimizer=gr.optim.Adam(0.05), **options)

    trainer, good = made(), made()
    losses = [trainer.step(X[i : i + 8], Y[i : i + 8]) for i in range(7)]
    for i in range(7):
        good.step(X[i : i + 8], Y[i : i + 8])
    bad[0] = True
    last = trainer.step(X[:8], Y[:8])
    bad[0] = False
    for i in range(5):
        last = trainer.step(X[i : i + 8], Y[i : i + 8])
    read = {
        "params": lambda: trainer.params,
        "save": lambda: trainer.save(tmp_path / "a.safetensors"),
        "evaluate": lambda: trainer.evaluate([(X, Y)]),
        "float": lambda: trainer.step(X, Y) + 1,
        "step_count and state_dict": lambda: (trainer.step_count, trainer.state_dict()),
    }[reader]
    kind = gr.GradringError if reader == "float" else gr.NonFinite
    with pytest.raises(kind, match="is not finite in step" if where == "gradient" else "the loss of step . is nan"):
        read()
    with pytest.raises(gr.GradringError):
        float(last)
    assert np.isfinite([float(loss) for loss in losses]).all()
    if where == "gradient" and "accumulate" in options:  # the batches of its group are dropped
        good = made()
        for i in range(6):
            good.step(X[i : i + 8], Y[i : i + 8])
    with pytest.raises(gr.NonFinite) if reader == "float" else nullcontext():
        trainer.save(tmp_path / "b.safetensors")
    assert snapshot(trainer) == snapshot(good)
    for one in (trainer, good):
        one.step(X, Y)
    assert snapshot(trainer) == snapshot(good)


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["by time", "by number"])
def test_a_step_raises_the_fault_that_a_report_has_brought(monkeypatch, seconds):
    monkeypatch.setattr(user_device, "REPORT_SECONDS", seconds)
    taken = []

    def function(params, batch):
        taken.append(1)
        cuda.as_array(params["w"]).numpy()  # waits for all that was queued, so reports have come
        return 0.0, {"w": on_device(np.full(3, np.inf if len(taken) == 3 else 1.0))}

    weight = on_device(np.zeros(3))
    trainer = gr.Trainer(step=function, params={"w": weight}, optimizer=gr.optim.SGD(1.0))
    with pytest.raises(gr.NonFinite, match=r"the gradient of 'w' is not finite in step 2"):
        for _ in range(200):
            trainer.step(0)
    assert len(taken) < (6 if seconds == 0 else 80)
    assert trainer.step_count == 2 and weight.numpy().tolist() == [-2.0] * 3
    for _ in range(600):  # more than a report has room for
        loss = trainer.step(0)
    assert float(loss) == 0.0 and trainer.step_count == 602 and weight.numpy().tolist() == [-602.0] * 3


def test_fit_ends_at_the_batch_that_failed():
    def function(params, batch):
        loss, grads, count = there(params, batch)
        return on_device(np.float32(np.nan if batch[0][0, 0] == 99 else loss)), grads, count

    arrays = {name: on_device(array) for name, array in start().items()}
    trainer = gr.Trainer(step=function, params=arrays, optimizer=gr.optim.SGD(0.1))
    x = X.copy()
    x[34, 0] = 99
    with pytest.raises(gr.NonFinite, match="the loss of step 4 is nan"):
        trainer.fit(gr.Loader((np.roll(x, -2, 0), Y), 8, shuffle=False), epochs=2, verbose=False)
    assert trainer.step_count == 4
    history = trainer.fit(gr.Loader((X, Y), 8), epochs=1, verbose=False)
    assert trainer.step_count == 10 and np.isfinite(history.last["loss"])


def test_steps_that_nothing_reads_wait_for_nothing():
    script = """
import numpy as np
import gradring as gr
from device_producers import on_device
from gradring.cuda.streams import native

weight, gradient, loss = on_device(np.zeros(5000)), on_device(np.ones(5000)), on_device(np.full((), 0.5))
trainer = gr.Trainer(
    step=lambda params, batch: (loss, {"w": gradient, "b": gradient[:7]}),
    params={"w": weight, "b": on_device(np.zeros(7))},
    optimizer=gr.optim.AdamW(0.1, groups=[{"params": "b", "lr": 0.2}]),
    clip_norm=1.0,
)
trainer.step(0)
before = native().software_calls()
losses = [trainer.step(0) for _ in range(10)]
after = native().software_calls()
made = {name: after[name] - before.get(name, 0) for name in after if after[name] > before.get(name, 0)}
waits = [name for name in made if "Synchronize" in name or name in ("cudaMemcpy", "cudaMemset", "cudaMalloc", "cudaFree")]
launches = made["cudaLaunchKernel"]
print("waits", waits, "launches", launches, sum(map(float, losses)) == 5.0)
del trainer, weight, gradient, loss, losses
"""
    # For each step the loss, the squares, the decision, and a group for each learning rate.
    assert run_lazily(script, whole=True) == "waits [] launches 50 True"


def test_an_update_that_fails_midway_says_so():
    script = """
import os
import numpy as np
import gradring as gr
from device_producers import on_device

def function(params, batch):
    return 0.0, {name: on_device(np.ones(3)) for name in params}

params = {name: on_device(np.zeros(3)) for name in ("a", "b", "c")}
groups = [{"params": "b", "lr": 0.5}]
trainer = gr.Trainer(step=function, params=params, optimizer=gr.optim.SGD(1.0, groups=groups), nonfinite="ignore")
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
        says.append("2 of 3 parameters were updated" in str(error))
print(says == [True, True, True] and trainer.step_count == 1)
del params, trainer
"""
    # Three launches of the first step, a decision and two groups, and the third of the next one.
    assert run_lazily(script, GRADRING_CUDA_FAIL="cudaLaunchKernel:6:701") == "True"
