"""A trainer on a CUDA device does what the one on the CPU does."""

import numpy as np
import pytest

import gradring as gr
from device_producers import Interface, Tensor, on_device, run_lazily
from gradring import cuda


def model(dropout=0.0, norm=False):
    nn = gr.nn
    layers = [nn.Linear(8, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []), nn.Linear(16, 3))


def trained(device, blobs, epochs=2, made=None, batch_size=64, **options):
    options.setdefault("optimizer", gr.optim.AdamW(1e-2))
    trainer = gr.Trainer(made or model(), device=device, seed=3, **options)
    trainer.fit(blobs, epochs=epochs, batch_size=batch_size, verbose=False)
    return trainer


def distance(a, b):
    assert a.keys() == b.keys()
    return max((float(np.max(np.abs(np.asarray(a[name]) - np.asarray(b[name])))) for name in a), default=0.0)


def test_digits_reaches_the_accuracy_of_the_cpu():
    train, test = gr.datasets.digits()
    reached = {}
    for device in ("cpu", "cuda"):
        made = gr.nn.Sequential(gr.nn.Linear(64, 32), gr.nn.ReLU(), gr.nn.Linear(32, 10))
        trainer = gr.Trainer(made, optimizer=gr.optim.AdamW(1e-2), device=device)
        history = trainer.fit(train, epochs=3, batch_size=128, validate=test, verbose=False)
        reached[device] = history.last["val_accuracy"]
    assert reached["cuda"] > 0.85
    assert abs(reached["cuda"] - reached["cpu"]) < 0.01


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": gr.optim.SGD(0.1, momentum=0.9, nesterov=True)},
        {"clip_norm": 0.5},
        {"accumulate": 3},
        {"accumulate": 3, "clip_norm": 0.5},
        {"made": lambda: model(dropout=0.3)},
        # Not with Adam: the gradient of a bias before a norm is rounding alone, which Adam scales up.
        {"made": lambda: model(norm=True), "optimizer": gr.optim.SGD(0.05)},
        {"frozen": "0.*"},
        {"optimizer": gr.optim.Adam(gr.optim.schedule.cosine(1e-2, 10))},
        {"optimizer": gr.optim.SGD(0.1, groups=[{"params": "*.bias", "lr": 0.01}])},
        {"dtype": "float64"},
    ],
    ids=(
        "plain",
        "momentum",
        "clip",
        "accumulate",
        "accumulate and clip",
        "dropout",
        "norm",
        "frozen",
        "schedule",
        "groups",
        "float64",
    ),
)
def test_fit_gives_the_parameters_losses_and_counts_of_the_cpu(blobs, options):
    options = dict(options)
    made = options.pop("made", model)
    results = {device: trained(device, blobs, made=made(), **options) for device in ("cpu", "cuda")}
    cpu, device = results["cpu"], results["cuda"]
    assert distance(cpu.params, device.params) < 1e-5
    assert distance(cpu.session.state, device.session.state) < 1e-5
    if cpu.buffers:
        assert distance(cpu.buffers, device.buffers) < 1e-5
    assert cpu.step_count == device.step_count
    assert cpu.session.counters() == device.session.counters()
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(device.history.metrics[name], cpu.history.metrics[name], rtol=1e-5)


def test_two_runs_have_the_same_bits(blobs):
    first, second = (trained("cuda", blobs, made=model(0.2)) for _ in range(2))
    for name, array in first.params.items():
        np.testing.assert_array_equal(array.numpy(), second.params[name].numpy())


def test_step_evaluate_and_predict_are_those_of_the_cpu(blobs):
    x, y = blobs
    cpu, device = (gr.Trainer(model(), device=name, optimizer=gr.optim.SGD(0.1)) for name in ("cpu", "cuda"))
    for begin in (0, 50, 100, 0):
        here, there = (t.step(x[begin : begin + 50], y[begin : begin + 50]) for t in (cpu, device))
        assert float(there) == pytest.approx(here, rel=1e-5)
    assert device.step_count == 4
    for name, value in cpu.evaluate((x, y)).items():
        assert device.evaluate((x, y))[name] == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(device.predict(x), cpu.predict(x), atol=1e-5)
    np.testing.assert_allclose(device.model(x), device.predict(x), atol=1e-6)
    weight = np.linspace(0, 1, len(y), dtype=np.float32)
    assert float(device.step(x, y, weight)) == pytest.approx(cpu.step(x, y, weight), rel=1e-5)


def test_a_checkpoint_has_the_bytes_of_the_cpu_and_loads_on_both(tmp_path, blobs):
    device = trained("cuda", blobs)
    device.save(tmp_path / "device.safetensors")
    cpu = gr.Trainer(model(), device="cpu", optimizer=gr.optim.AdamW(1e-2))
    cpu.load(tmp_path / "device.safetensors")
    cpu.save(tmp_path / "cpu.safetensors")
    assert (tmp_path / "device.safetensors").read_bytes() == (tmp_path / "cpu.safetensors").read_bytes()
    again = gr.Trainer(model(), device="cuda", optimizer=gr.optim.AdamW(1e-2))
    again.load(tmp_path / "cpu.safetensors")
    for trainer in (device, again):
        trainer.fit(blobs, epochs=3, batch_size=64, verbose=False)
    assert distance(device.params, again.params) == 0


def test_a_fit_that_was_cut_resumes_with_the_same_bits(tmp_path, blobs):
    whole = trained("cuda", blobs, epochs=3, accumulate=2)
    first = trained("cuda", blobs, epochs=1, accumulate=2)
    first.save(tmp_path / "first.safetensors")
    second = gr.Trainer(model(), device="cuda", optimizer=gr.optim.AdamW(1e-2), accumulate=2)
    second.fit(blobs, epochs=3, batch_size=64, resume=tmp_path / "first.safetensors", verbose=False)
    assert distance(whole.params, second.params) == 0


def test_errors_are_those_of_the_cpu_and_change_nothing(blobs):
    x, y = blobs
    bad_y, bad_x = y.copy(), x.copy()
    bad_y[123], bad_x[200] = 7, np.inf
    for data in ((x, bad_y), (bad_x, y)):
        said, params, counts = [], [], []
        for device in ("cpu", "cuda"):
            trainer = gr.Trainer(model(), device=device, optimizer=gr.optim.SGD(0.1))
            with pytest.raises((ValueError, gr.NonFinite)) as caught:
                trainer.fit(data, epochs=1, batch_size=32, verbose=False)
            said.append((type(caught.value), str(caught.value)))
            params.append({name: np.array(array) for name, array in trainer.params.items()})
            counts.append(trainer.session.counters())
            trainer.fit(blobs, epochs=1, batch_size=32, verbose=False)
        assert said[0] == said[1]
        assert counts[0] == counts[1]
        assert distance(*params) < 1e-5


def test_parameters_are_arrays_of_the_device(blobs):
    trainer = trained("cuda", blobs)
    weight = trainer.params["0.weight"]
    assert isinstance(weight, cuda.Array)
    assert (weight.shape, weight.dtype, weight.ndim, weight.size) == ((8, 16), np.float32, 2, 128)
    assert weight.device == "cuda:0"
    interface = weight.__cuda_array_interface__
    assert interface["version"] == 3 and interface["shape"] == (8, 16) and interface["typestr"] == "<f4"
    assert interface["data"][0] % 4 == 0 and interface["data"][1] is False
    before = weight.numpy()
    trainer.params["0.weight"] = before * 2
    np.testing.assert_array_equal(np.asarray(weight), before * 2)
    with pytest.raises(ValueError, match="must be the same"):
        trainer.params["0.weight"] = before[0]
    trainer.step(*blobs)
    assert not np.array_equal(weight.numpy(), before * 2)


def test_a_model_moves_to_the_device_and_back(blobs):
    made = model().init(5)
    want = {name: array.copy() for name, array in made.params.items()}
    x = blobs[0]
    out = made(x)
    made.to("cuda")
    assert made.store.device == "cuda:0" and distance(want, made.params) == 0
    np.testing.assert_allclose(made(x), out, atol=1e-5)
    trainer = gr.Trainer(made, device="cuda")
    trainer.step(*blobs)
    made.to("cpu")
    assert isinstance(made.params["0.weight"], np.ndarray)
    assert not np.array_equal(made.params["0.weight"], want["0.weight"])
    with pytest.raises(gr.GradringError, match="moved"):
        trainer.step(*blobs)


def test_a_trainer_does_not_move_a_model_from_its_device_without_a_word(blobs):
    made = model().init(5).to("cuda")
    with pytest.raises(ValueError, match=r"the model is on cuda:0, and device is 'cpu': give device='cuda:0', or move"):
        gr.Trainer(made)
    assert made.store.device == "cuda:0"
    gr.Trainer(made, device="cuda:0").step(*blobs)
    gr.Trainer(made.to("cpu")).step(*blobs)


def test_steps_are_ordered_with_the_current_stream():
    script = """
import numpy as np
import gradring as gr
from gradring import cuda

rng = np.random.default_rng(0)
x, y = rng.standard_normal((64, 8)).astype(np.float32), rng.integers(0, 3, 64)
first, wrong = cuda.Stream(), 0
kept = {}
for chosen in (0, first):
    trainer = gr.Trainer(gr.nn.Linear(8, 3).init(1), device="cuda", optimizer=gr.optim.SGD(0.1))
    with cuda.use_stream(chosen):
        weight = trainer.params["weight"]
        for _ in range(3):
            other = cuda.copied(weight)
            for _ in range(20):  # work that the step must wait for
                weight[::2], weight[1::2] = other[::2], other[1::2]
            trainer.step(x, y)
        copy = cuda.copied(weight)  # and work that must wait for the step
        kept[bool(chosen)] = copy.numpy()
print(int((kept[False] != kept[True]).sum()))
del trainer, weight, other, copy
"""
    assert run_lazily(script) == "0"


def test_batches_on_the_device_are_read_where_they_lie(blobs):
    x, y = blobs
    weight = np.linspace(0.5, 1, len(y), dtype=np.float32)
    here, there = (gr.Trainer(model(0.2), device="cuda", optimizer=gr.optim.SGD(0.1), seed=3) for _ in range(2))
    for begin in (0, 64, 7):
        part = slice(begin, begin + 50)
        assert here.step(x[part], y[part]) == there.step(on_device(x)[part], Interface(on_device(y)[part]))
        assert here.step(x[part], y[part], weight[part]) == there.step(
            Tensor(on_device(x.astype(np.float64)[part])), on_device(y.astype(np.int32))[part], on_device(weight[part])
        )
    assert distance(here.params, there.params) == 0
    losses = [here.step(x[i : i + 32], y[i : i + 32]) for i in range(0, 96, 32)]
    batches = gr.Loader((x[:96], y[:96]), 32, device="cuda")
    assert [there.step(a, b) for a, b in batches] == losses
    with pytest.raises(ValueError, match=r"\[Trainer\] x is on cuda:0, y is on the host: all fields"):
        there.step(on_device(x), y)
    with pytest.raises(ValueError, match=r"the batch is on cuda:0, the model is on cpu"):
        gr.Trainer(model()).step(on_device(x), on_device(y))
    bad = y[:50].copy()
    bad[7] = 9
    said = []
    for place in (np.asarray, on_device):
        with pytest.raises(ValueError) as caught:
            float(there.step(place(x[:50]), place(bad)))
        said.append(str(caught.value))
    assert said[0] == said[1] and "9" in said[0]
    np.testing.assert_array_equal(
        there.predict(Interface(on_device(x)), batch_size=64), there.predict(x, batch_size=64)
    )
    with pytest.raises(TypeError, match="reads arrays of the host"):
        there.fit((on_device(x), on_device(y)))


def test_two_trainers_on_two_streams_do_not_disturb_each_other(blobs):
    x, y = blobs
    both = [gr.Trainer(model(), device="cuda", seed=3, optimizer=gr.optim.SGD(rate)) for rate in (0.1, 0.2)]
    chosen = [cuda.Stream(), cuda.Stream()]
    order = np.random.default_rng(0).permutation(len(y))
    for begin in range(0, len(y), 50):
        part = order[begin : begin + 50]
        for trainer, stream in zip(both, chosen, strict=True):
            with cuda.use_stream(stream):
                trainer.step(on_device(x[part]), on_device(y[part]))
    again = [gr.Trainer(model(), device="cuda", seed=3, optimizer=gr.optim.SGD(rate)) for rate in (0.1, 0.2)]
    for trainer in again:
        for begin in range(0, len(y), 50):
            part = order[begin : begin + 50]
            trainer.step(x[part], y[part])
    assert all(distance(a.params, b.params) == 0 for a, b in zip(both, again, strict=True))
    assert distance(both[0].params, both[1].params) > 0


def test_another_device_number_and_what_is_planned_are_refused(blobs):
    with pytest.raises(gr.DeviceUnavailable, match=r"cuda:7"):
        gr.Trainer(model(), device="cuda:7")
    with pytest.raises(gr.NotBuilt, match="one CUDA device"):
        gr.Trainer(model(), device="cuda", replicas=2)
    with pytest.raises(gr.NotBuilt, match="step="):
        gr.Trainer(step=lambda p, b: (0.0, {}), params={"w": np.zeros(3)}, device="cuda")
    layers = gr.nn.Sequential(gr.nn.Linear(8, 3), gr.nn.Function(lambda a: a * 2, lambda dy, a: dy * 2))
    with pytest.raises(gr.NotBuilt, match=r"layer '1' calls a function of the user's on the host, and device is 'cuda': a"):
        gr.Trainer(layers, device="cuda")
    own = gr.losses.Function(lambda out, y: (out - y).sum(1), lambda dl, out, y: np.ones_like(out))
    made = gr.nn.Linear(8, 3).init(0)
    with pytest.raises(gr.NotBuilt, match=r"the loss calls a function of the user's on the host, .* one graph"):
        gr.Trainer(made, loss=own, device="cuda")
    assert made.store.device == "cpu"  # a refused model stays where it is
    trainer = gr.Trainer(step=lambda p, b: (0.0, {"w": on_device(np.zeros(3))}), params={"w": np.zeros(3)})
    with pytest.raises(gr.NotBuilt, match=r"grads\['w'\] is on a CUDA device"):
        trainer.step(blobs)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"accumulate": 3}, {"optimizer": gr.optim.AdamW(1e-2)}])
def test_mixed_precision_follows_that_of_the_cpu(blobs, options):
    """Sums in another order may round an operand to the next bfloat16, so the parameters are only near."""
    options = {"optimizer": gr.optim.SGD(0.1, momentum=0.9), "dtype": "bfloat16", **options}
    cpu, device, again, plain = (
        trained(place, blobs, made=model(dropout=0.2), **{**options, "dtype": dtype})
        for place, dtype in (("cpu", "bfloat16"), ("cuda", "bfloat16"), ("cuda", "bfloat16"), ("cuda", "float32"))
    )
    assert distance(cpu.params, device.params) < 2e-3 < 10 * distance(plain.params, device.params)
    assert distance(device.params, again.params) == 0
    np.testing.assert_allclose(cpu.history.metrics["loss"], device.history.metrics["loss"], rtol=1e-3)
    assert all(np.asarray(array).dtype == np.float32 for array in device.params.values())
    x = blobs[0][:40]
    np.testing.assert_allclose(device.predict(x), cpu.predict(x), atol=2e-2)
    assert device.evaluate(blobs)["loss"] == pytest.approx(cpu.evaluate(blobs)["loss"], rel=1e-3)


def test_mixed_precision_changes_nothing_if_a_product_overflows(blobs, tmp_path):
    x, y = blobs
    trainer = trained("cuda", blobs, dtype="bfloat16")
    trainer.save(tmp_path / "before")
    broken = x[:32].copy()
    broken[5, 1] = 3.4e38  # finite, and infinite as a bfloat16
    with pytest.raises(gr.NonFinite):
        float(trainer.step(broken, y[:32]))
    trainer.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    other = gr.Trainer(model(), optimizer=gr.optim.AdamW(1e-2), dtype="bfloat16")
    other.load(tmp_path / "after")
    assert distance(other.params, trainer.params) == 0
    assert np.isfinite(trainer.step(x[:32], y[:32]))
