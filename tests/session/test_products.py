"""A trainer whose products are made of bfloat16 pieces: the plan, the losses, the bits, and what it refuses."""

import numpy as np
import pytest

import gradring as gr
from gradring import float32_products
from gradring.graph.spec import check


@pytest.fixture(autouse=True)
def _quiet_and_back(monkeypatch):
    monkeypatch.setattr(float32_products, "_warned", {"pieces3", "pieces2"})
    yield
    gr.set_float32_products("fma")


def data(rows=128):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 96)).astype(np.float32), rng.integers(0, 64, rows)


def model():
    nn = gr.nn
    return nn.Sequential(nn.Linear(96, 130), nn.GELU(), nn.Linear(130, 256), nn.ReLU(), nn.Linear(256, 64)).init(seed=1)


def trained(steps=4, optimizer=None, **options):
    x, y = data()
    made = model()
    trainer = gr.Trainer(made, optimizer=optimizer or gr.optim.SGD(0.1), seed=None, **options)
    losses = [trainer.step(x, y) for _ in range(steps)]
    return trainer, losses, {name: array.copy() for name, array in made.params.items()}


OPTIMIZERS = {
    "sgd": lambda: gr.optim.SGD(0.1, momentum=0.9),
    "adamw": lambda: gr.optim.AdamW(1e-3),
    "rmsprop": lambda: gr.optim.RMSprop(1e-3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}, {"replicas": 2}, {"nonfinite": "ignore"}]
)
def test_training_by_pieces_follows_training_by_multiply_adds(name, options):
    _, plain, _ = trained(6, OPTIMIZERS[name](), **options)
    _, pieces, _ = trained(6, OPTIMIZERS[name](), products="pieces3", **options)
    assert plain != pieces  # the choice has an effect
    assert np.allclose(plain, pieces, rtol=1e-4)


def test_the_same_bits_for_any_number_of_threads():
    results = [trained(products="pieces3", threads=threads) for threads in (1, 2, 3)]
    for _, losses, params in results[1:]:
        assert losses == results[0][1]
        for name, array in params.items():
            assert np.array_equal(array, results[0][2][name])


def test_the_plan_shows_the_choice_and_the_graph_stays_legal():
    trainer, _, _ = trained(products="pieces3")
    plan = trainer.plan()
    shown = [line for line in str(plan).splitlines() if "pieces3" in line]
    assert len(shown) >= 3 and any("linear_dw" in line for line in shown) and any("linear_dx" in line for line in shown)
    check(plan.graph)
    plain, _, _ = trained()
    assert "pieces" not in str(plain.plan()) and plain.plan() != plan


def test_the_default_is_the_processs_choice_at_the_start():
    gr.set_float32_products("pieces2")
    trainer, losses, _ = trained()
    gr.set_float32_products("fma")
    x, y = data()
    trainer.step(x, y)
    assert "pieces2" in str(trainer.plan())
    assert losses == trained(products="pieces2")[1] != trained(products="fma")[1]


def test_predict_and_evaluate():
    x, y = data()
    trainer, _, _ = trained(products="pieces3")
    plain = trainer.predict(x)
    gr.set_float32_products("pieces2")
    pieces = trainer.predict(x)
    assert not np.array_equal(plain, pieces) and np.allclose(plain, pieces, atol=1e-3)
    gr.set_float32_products("fma")
    assert np.array_equal(trainer.predict(x), plain)
    assert np.isfinite(trainer.evaluate((x, y))["loss"])


def test_files_do_not_record_it(tmp_path):
    trainer, _, params = trained(products="pieces3")
    trainer.save(tmp_path / "a.safetensors")
    again = gr.Trainer(model(), optimizer=gr.optim.SGD(0.1))
    again.load(tmp_path / "a.safetensors")
    for name, array in params.items():
        assert np.array_equal(again.params[name], array)


def test_float64_models_train_as_always():
    _, plain, _ = trained(dtype="float64")
    _, pieces, _ = trained(dtype="float64", products="pieces3")
    assert plain == pieces


def test_an_infinite_input_is_found_as_always():
    x, y = data()
    trainer, _, before = trained(products="pieces3")
    x[3, 5] = np.inf
    with pytest.raises(gr.NonFinite):
        trainer.step(x, y)
    for name, array in before.items():
        assert np.array_equal(trainer.params[name], array)


def test_a_step_of_ones_own_refuses_it():
    with pytest.raises(TypeError, match="products goes with a model"):
        gr.Trainer(step=lambda p, b: (0.0, {}), params={"w": np.ones(3)}, products="pieces3")
