"""Fifty steps beside PyTorch: every loss, gradient and parameter.

Float32 must be within 1e-5 of each tensor's largest element, or 4 times the error that PyTorch itself makes in
float32, where PyTorch in float64 is the truth; float64 within 1e-10. Adam's eps is 1e-6 here, not 1e-8: at gradients
near eps the first updates magnify any rounding difference by lr / eps.
"""

import numpy as np
import pytest

import gradring as gr
from gradring import nn, optim
from gradring.optim import schedule
from gradring.parity import Mismatch, Tolerance, compare
from gradring.session import Session

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

torch.set_num_threads(1)  # its idle threads would spin under ours

STEPS = 50
MODELS = {
    "relu": lambda: nn.Sequential(nn.Linear(13, 37), nn.ReLU(), nn.Linear(37, 29), nn.ReLU(), nn.Linear(29, 5)),
    "gelu": lambda: nn.Sequential(nn.Linear(13, 33), nn.GELU(), nn.Linear(33, 5)),
    "exact gelu": lambda: nn.Sequential(nn.Linear(13, 33), nn.GELU("none"), nn.Linear(33, 5), nn.GELU("none")),
    "silu": lambda: nn.Sequential(nn.Linear(13, 1), nn.SiLU(), nn.Linear(1, 17), nn.SiLU(), nn.Linear(17, 5)),
    "tanh": lambda: nn.Sequential(nn.Linear(13, 8, bias=False), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 5)),
    "sigmoid": lambda: nn.Sequential(nn.Linear(13, 64), nn.Sigmoid(), nn.Linear(64, 5)),
    "residual": lambda: nn.Sequential(
        nn.Linear(13, 16),
        nn.Residual(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)),
        nn.Residual(nn.Tanh()),
        nn.SiLU(),
        nn.Residual(nn.Residual(nn.Linear(16, 16, bias=False))),
        nn.Linear(16, 5),
    ),
    "linear": lambda: nn.Linear(13, 5),
    # Without a bias before BatchNorm1d, which takes it out again: its gradient is rounding alone.
    "norms": lambda: nn.Sequential(
        nn.Linear(13, 16),
        nn.LayerNorm(16),
        nn.GELU(),
        nn.RMSNorm(16),
        nn.Linear(16, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.Linear(8, 5),
    ),
    "one after another": lambda: nn.Sequential(
        nn.Tanh(), nn.Linear(13, 9), nn.GELU(), nn.Sigmoid(), nn.Linear(9, 3), nn.Linear(3, 5), nn.SiLU()
    ),
}
OPTIMIZERS = {
    "sgd": optim.SGD(0.1),
    "momentum": optim.SGD(0.05, momentum=0.9),
    "nesterov": optim.SGD(0.05, momentum=0.9, nesterov=True),
    "weight decay": optim.SGD(0.05, momentum=0.5, weight_decay=0.05),
    "adam": optim.Adam(1e-2, eps=1e-6),
    "adam, other betas": optim.Adam(5e-3, betas=(0.5, 0.9), eps=1e-4),
    "adamw": optim.AdamW(1e-2, eps=1e-6, weight_decay=0.1),
    "schedule": optim.SGD(schedule.warmup(schedule.cosine(0.1, 30), 7), momentum=0.9),
    "adamw, schedule": optim.AdamW(schedule.step(1e-2, every=9, factor=0.5), eps=1e-6),
}
LOSSES = ("cross_entropy", "mse", "binary_cross_entropy")


def batches(loss, *, sizes=(32, 32, 32, 32, 11), features=13, outputs=5, steps=STEPS):
    """Fresh batches, the last of every five shorter."""
    rng = np.random.default_rng(7)
    for step in range(steps):
        rows = sizes[step % len(sizes)]
        x = rng.standard_normal((rows, features))
        if loss == "cross_entropy":
            yield x, rng.integers(0, outputs, rows)
        else:
            yield x, (rng.random((rows, outputs)) if loss == "mse" else rng.integers(0, 2, (rows, outputs)))


def session(model, **options):
    return Session(MODELS[model]().init(seed=3, dtype=options.get("dtype", "float32")), **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_models_and_losses(model, loss, dtype):
    compare(session(model, loss=loss, optimizer=OPTIMIZERS["momentum"], dtype=dtype), batches(loss)).check()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", ["relu", "residual"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(optimizer, model, dtype):
    options = {"loss": "cross_entropy", "optimizer": OPTIMIZERS[optimizer], "dtype": dtype}
    compare(session(model, **options), batches("cross_entropy")).check()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_updates_fused_with_the_gradients(optimizer, model):
    report = compare(
        session(model, loss="mse", optimizer=OPTIMIZERS[optimizer], fuse_update=True), batches("mse"), gradients=False
    )
    report.check()
    assert {record.kind for record in report.records} == {"loss", "parameter"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", ["momentum", "adamw, schedule"])
@pytest.mark.parametrize(("clip_norm", "accumulate"), [(0.05, 1), (None, 3), (0.05, 4)])
def test_clipping_and_accumulation(clip_norm, accumulate, optimizer, loss, dtype):
    options = {"loss": loss, "optimizer": OPTIMIZERS[optimizer], "dtype": dtype}
    options |= {"clip_norm": clip_norm, "accumulate": accumulate}
    compare(session("gelu", **options), batches(loss)).check()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 257])
def test_threads_and_batch_sizes(rows, threads):
    options = {"loss": "cross_entropy", "optimizer": OPTIMIZERS["nesterov"], "threads": threads}
    compare(session("relu", **options), batches("cross_entropy", sizes=(rows,), steps=10)).check()


def test_a_large_layer():
    model = nn.Sequential(nn.Linear(300, 515), nn.ReLU(), nn.Linear(515, 257), nn.GELU(), nn.Linear(257, 11))
    made = Session(model, loss="cross_entropy", optimizer=optim.SGD(0.05, momentum=0.9))
    compare(made, batches("cross_entropy", sizes=(130,), features=300, outputs=11, steps=10)).check()


def test_logits_far_from_zero():
    """Saturated losses: no overflow, and the tiny gradients are right too."""
    for loss in ("cross_entropy", "binary_cross_entropy"):
        made = session("linear", loss=loss, optimizer=optim.SGD(1e-3))
        compare(made, ((200 * x, y) for x, y in batches(loss, steps=10))).check()


def test_a_forward_of_your_own():
    def forward(params, x):
        return torch.tanh(x @ params["0.weight"]) @ params["3.weight"] + params["3.bias"]

    made = session("tanh", loss="mse", optimizer=OPTIMIZERS["sgd"])
    compare(made, batches("mse", steps=5), forward=forward).check()


def test_a_trainer_is_compared_as_its_session_is():
    trainer = gr.Trainer(MODELS["relu"](), loss="mse", optimizer=OPTIMIZERS["adamw"], clip_norm=0.05, accumulate=2)
    report = gr.parity.compare(trainer, batches("mse", steps=6))
    report.check()
    assert report.steps == 6 and trainer.step_count == 3 and "6 steps, 78 comparisons" in str(report)


def test_it_finds_a_difference():
    """A gradient that is wrong by two hundred-thousandths of a weight is found, and named."""

    def forward(params, x):
        h = torch.relu(x @ params["0.weight"] + params["0.bias"])
        h = torch.relu(h @ (params["2.weight"] * 1.00002) + params["2.bias"])
        return h @ params["4.weight"] + params["4.bias"]

    made = session("relu", loss="mse", optimizer=OPTIMIZERS["sgd"])
    report = compare(made, batches("mse", steps=5), forward=forward)
    assert not report.equal
    with pytest.raises(Mismatch, match=r"(?s)the trainings differ; first: gradient .* step +1.*DIFFERS"):
        report.check()


def test_it_finds_another_learning_rate(monkeypatch):
    made = session("relu", loss="cross_entropy", optimizer=OPTIMIZERS["adam"])
    monkeypatch.setattr(optim.Adam, "learning_rates", lambda rule, first, count: np.full(count, rule.lr * 1.0005))
    report = compare(made, batches("cross_entropy", steps=20))
    assert not report.equal and report.worst().kind != "loss"


def test_bad_input():
    made = session("linear", loss="mse", optimizer=OPTIMIZERS["sgd"])
    with pytest.raises(ValueError, match=r"\[parity\] against must be 'torch', or 'numpy'"):
        compare(made, [], against="jax")
    with pytest.raises(Mismatch, match="nothing was compared"):
        compare(made, []).check()
    for x, y in batches("mse", steps=1):
        made.step(x, y)
    with pytest.raises(ValueError, match=r"\[parity\] the trainer has done 1 updates: it must be fresh"):
        compare(made, batches("mse"))
    dropout = Session(nn.Sequential(nn.Linear(13, 5), nn.Dropout(0.5)), loss="mse", optimizer=optim.SGD(0.1))
    with pytest.raises(TypeError, match=r"\[parity\] Dropout\(0.5\) at '1' has no twin in PyTorch"):
        compare(dropout, batches("mse"))


def test_a_tolerance_of_ones_own():
    made = session("relu", loss="mse", optimizer=OPTIMIZERS["sgd"])
    report = compare(made, batches("mse", steps=5), tolerance=Tolerance(1e-12))
    assert not report.equal and report.steps == 5 and "at most 1e-12" in str(report)


SCHEDULES = {
    "cosine": (schedule.cosine(0.3, 20), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20), 20),
    "linear": (schedule.linear(0.3, 0.03, 20), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, 20), 40),
    "step": (schedule.step(0.3, 7, 0.3), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.3), 40),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    ours, make, steps = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(ours.range(0, steps), rates, rtol=1e-12, atol=1e-15)
