"""With dtype="tf32", products read operands that are rounded to tf32, and nothing else changes."""

import numpy as np
import pytest

import gradring as gr


def rounded(values):
    """To 10 bits behind the first one, half away from zero."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def exact(values):
    return np.asarray(values, np.float64)


def made(dtype, **options):
    nn = gr.nn
    model = nn.Sequential(nn.Linear(24, 40), nn.Tanh(), nn.Linear(40, 5))
    return gr.Trainer(model, loss="mse", device="cuda", dtype=dtype, optimizer=gr.optim.SGD(0.5), seed=4, **options)


def step(params, x, y, seen):
    """A step in float64 whose products read ``seen(operand)``: the loss, the outputs and the new parameters."""
    w, b, v, c = (exact(params[name]) for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    h = np.tanh(seen(x) @ seen(w) + b)
    out = seen(h) @ seen(v) + c
    d = 2 * (out - y) / out.size
    da = (seen(d) @ seen(v).T) * (1 - h * h)
    grads = {"0.weight": seen(x).T @ seen(da), "0.bias": da.sum(0), "2.weight": seen(h).T @ seen(d), "2.bias": d.sum(0)}
    return np.mean((out - y) ** 2), out, {name: exact(params[name]) - 0.5 * grads[name] for name in grads}


@pytest.mark.parametrize("rows", [1, 33, 128])
def test_a_step_is_that_of_a_float64_program_that_rounds_at_the_same_places(rows):
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, 24)).astype(np.float32)
    y = rng.normal(size=(rows, 5)).astype(np.float32)
    trainer = made("tf32")
    before = {name: array.numpy() for name, array in trainer.params.items()}
    assert {array.dtype for array in before.values()} == {np.dtype("float32")}
    close, far = (step(before, x, y, seen) for seen in (rounded, exact))
    np.testing.assert_allclose(trainer.predict(x), close[1], atol=2e-5)
    assert np.abs(close[1] - far[1]).max() > 1e-4  # without rounding it would be other numbers
    assert float(trainer.step(x, y)) == pytest.approx(close[0], rel=1e-5)
    for name, array in trainer.params.items():
        moved, wanted, other = (exact(made) - before[name] for made in (array.numpy(), close[2][name], far[2][name]))
        assert np.abs(moved - wanted).max() < 0.1 * np.abs(moved - other).max() + 1e-6, name


def test_it_trains_evaluates_saves_and_loads_as_float32(blobs, tmp_path):
    def trained(dtype):
        nn = gr.nn
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        trainer = gr.Trainer(model, device="cuda", dtype=dtype, seed=3)
        trainer.fit(blobs, epochs=3, batch_size=32, verbose=False)
        return trainer

    narrow, wide = trained("tf32"), trained("float32")
    assert narrow.evaluate(blobs)["loss"] == pytest.approx(wide.evaluate(blobs)["loss"], rel=1e-2)
    assert any(
        (narrow.params[name].numpy() != wide.params[name].numpy()).any() for name in narrow.params
    )
    narrow.save(tmp_path / "file")
    wide.load(tmp_path / "file")
    for name, array in narrow.params.items():
        np.testing.assert_array_equal(array.numpy(), wide.params[name].numpy())


def test_algorithms_of_tf32_are_no_record_for_float32(blobs):
    x, y = blobs[0][:32], np.zeros((32, 5), np.float32)
    x = np.pad(x, ((0, 0), (0, 16)))
    tuned = made("tf32", tune=True)
    float(tuned.step(x, y))
    record = tuned.session.algorithms()
    assert record and "tf32" in record
    assert made("float32").session._native.restore_algorithms(record) is None
    assert made("tf32").session._native.restore_algorithms(record) is True


def test_the_cpu_refuses_it_by_name():
    with pytest.raises(ValueError, match=r"dtype='tf32' is of CUDA devices: give device='cuda'"):
        gr.Trainer(gr.nn.Sequential(gr.nn.Linear(2, 2)), dtype="tf32", device="cpu")
