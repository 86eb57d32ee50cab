"""A trainer whose model has moved to other memory: what uses the parameters says so, and touches neither memory."""

import numpy as np
import pytest

import gradring as gr
from gradring import cuda_devices

rng = np.random.default_rng(5)
X = rng.standard_normal((37, 8)).astype(np.float32)
Y = rng.integers(0, 3, 37)

on_device = pytest.mark.skipif(cuda_devices.obstacle() is not None, reason="no CUDA device")
MOVES = [
    pytest.param("cpu", lambda model: model.astype("float64"), "cpu", id="astype"),
    pytest.param("cpu", lambda model: model.init(3, "float64"), "cpu", id="init"),
    pytest.param("cpu", lambda model: gr.nn.Sequential(model, gr.nn.ReLU()).init(4), "cpu", id="layer"),
    pytest.param("cpu", lambda model: model.to("cuda"), "cuda:0", id="cpu-cuda", marks=on_device),
    pytest.param("cuda", lambda model: model.to("cpu"), "cpu", id="cuda-cpu", marks=on_device),
    pytest.param("cuda", lambda model: model.to("cpu").to("cuda"), "cuda:0", id="cuda-cpu-cuda", marks=on_device),
    pytest.param("cpu", lambda model: model.to("cuda").to("cpu"), "cpu", id="cpu-cuda-cpu", marks=on_device),
]
USES = {
    "fit": lambda trainer, path, state: trainer.fit((X, Y), epochs=1, verbose=0),
    "fit resume": lambda trainer, path, state: trainer.fit((X, Y), epochs=9, verbose=0, resume=path),
    "step": lambda trainer, path, state: trainer.step(X[:16], Y[:16]),
    "evaluate": lambda trainer, path, state: trainer.evaluate((X, Y)),
    "predict": lambda trainer, path, state: trainer.predict(X),
    "predict nothing": lambda trainer, path, state: trainer.predict(X[:0]),
    "predict_proba": lambda trainer, path, state: trainer.predict_proba(X),
    "predict_class": lambda trainer, path, state: trainer.predict_class(X),
    "save": lambda trainer, path, state: trainer.save(path),
    "load": lambda trainer, path, state: trainer.load(path),
    "load weights": lambda trainer, path, state: trainer.load(path, weights_only=True),
    "load loosely": lambda trainer, path, state: trainer.load(path, strict=False),
    "state_dict": lambda trainer, path, state: trainer.state_dict(),
    "load_state_dict": lambda trainer, path, state: trainer.load_state_dict(state),
    "reset": lambda trainer, path, state: trainer.reset(7),
    "params": lambda trainer, path, state: trainer.params,
    "params.update": lambda trainer, path, state: trainer.params.update(state["params"]),
    "buffers": lambda trainer, path, state: trainer.buffers,
    "session": lambda trainer, path, state: trainer.session.params,
    "optimizer": lambda trainer, path, state: setattr(trainer, "optimizer", gr.optim.SGD(0.1)),
}


def values_of(arrays):
    return {name: (array if isinstance(array, np.ndarray) else array.numpy()).copy() for name, array in arrays.items()}


def require_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(("device", "move", "now"), MOVES)
def test_every_use_of_the_parameters_is_refused_and_touches_neither_memory(device, move, now, tmp_path):
    model = gr.nn.Sequential(gr.nn.Linear(8, 5), gr.nn.BatchNorm1d(5), gr.nn.ReLU(), gr.nn.Linear(5, 3))
    trainer, path = gr.Trainer(model, device=device, seed=2), tmp_path / "trained.safetensors"
    before = trainer.state_dict()
    trainer.fit((X, Y), epochs=2, batch_size=16, verbose=0)
    trainer.save(path)
    session, old = trainer.session, {**trainer.params, **trainer.buffers}
    left, written = values_of(old), path.read_bytes()
    moved = move(model)
    there = values_of(moved.store.saved)
    for name, use in USES.items():
        with pytest.raises(gr.GradringError, match=rf"moved to other memory on {now} since .* on {device}.*: by to, ") as found:
            use(trainer, path, before)
            pytest.fail(f"{name} has used memory that is no longer the model's")
        assert f"make a new trainer with device={now!r}" in str(found.value)
    with pytest.raises(gr.GradringError, match="moved to other memory"):
        session.grads  # noqa: B018 (it is a property)
    require_same(values_of(old), left)
    require_same(values_of(moved.store.saved), there)
    assert path.read_bytes() == written and isinstance(trainer.optimizer, gr.optim.AdamW)
    # What only tells of the training that was still works.
    assert trainer.epoch == 2 and trainer.step_count == 6 and len(trainer.history) == 2 and trainer.seed == 2
    assert "parameters" in repr(trainer) and trainer.timings() and trainer.frozen == () and trainer.loss_scale == 1.0


@on_device
@pytest.mark.parametrize(("device", "other"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_file_of_before_the_move_goes_on_in_a_new_trainer(device, other, tmp_path):
    def made(model, place):
        return gr.Trainer(model, device=place, optimizer=gr.optim.Adam(0.01))

    model = gr.nn.Sequential(gr.nn.Linear(8, 5), gr.nn.Tanh(), gr.nn.Linear(5, 3)).init(1)
    trainer, path = made(model, device), tmp_path / "trained.safetensors"
    trainer.fit((X, Y), epochs=2, verbose=0)
    trainer.save(path)
    expected = trainer.state_dict()
    model.to(other)
    new = made(model, other)
    new.load(path)
    found = new.state_dict()
    for part in ("params", "optimizer"):
        require_same(values_of(found[part]), values_of(expected[part]))
    new.fit((X, Y), epochs=1, verbose=0)
    trainer = gr.Trainer(model.to(device), device=device)  # back again, with a new trainer
    require_same(values_of(trainer.params), values_of(new.model.params))
