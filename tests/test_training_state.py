"""A trainer that loads a checkpoint goes on bit for bit as the one that saved it."""

import time

import numpy as np
import pytest

import gradring as gr
from gradring import checkpoint
from helpers import Batches, Stop, mlp, snapshot

OPTIMIZERS = [
    gr.optim.SGD(0.05),
    gr.optim.SGD(gr.optim.schedule.cosine(0.05, 30), momentum=0.9, nesterov=True, weight_decay=1e-3),
    gr.optim.Adam(1e-2),
    gr.optim.AdamW(gr.optim.schedule.warmup(1e-2, 7)),
]


def with_dropout():
    model = gr.nn.Sequential(gr.nn.Linear(8, 16), gr.nn.ReLU(), gr.nn.Dropout(0.3), gr.nn.Linear(16, 3))
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("model", [lambda: mlp(8, 16, 3), with_dropout], ids=["plain", "dropout"])
def test_two_epochs_are_one_and_one(blobs, tmp_path, optimizer, model):
    loader = gr.Loader(blobs, 32, shuffle=True, seed=1)
    whole = gr.Trainer(model(), optimizer=optimizer, seed=1)
    history = whole.fit(loader, epochs=2, validate=blobs)

    first = gr.Trainer(model(), optimizer=optimizer, seed=1)
    first.fit(loader, epochs=1, validate=blobs)
    first.save(tmp_path / "a.safetensors")
    second = gr.Trainer(model(), optimizer=optimizer, seed=99)
    resumed = second.fit(loader, epochs=2, validate=blobs, resume=tmp_path / "a.safetensors")
    assert snapshot(second) == snapshot(whole)
    assert second.epoch == 2 and len(resumed) == 2
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "lr", "epoch"):
        assert resumed.metrics[name] == history.metrics[name]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("source", ["loader", "batches"])
def test_from_the_middle_of_an_epoch(blobs, tmp_path, accumulate, source):
    """A run that ends after five batches, saved, loaded and resumed, is one that never ended."""
    loader = gr.Loader(blobs, 32, shuffle=True, seed=1)
    data = loader if source == "loader" else Batches(loader)

    def trainer():
        return gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.Adam(1e-2), seed=1, accumulate=accumulate)

    whole = trainer()
    whole.fit(data, epochs=3)

    broken = trainer()
    broken.fit(data, epochs=1)
    stop_after(broken, 5)
    with pytest.raises(Stop):
        broken.fit(data, epochs=2)
    state = broken.state_dict()
    assert broken.epoch == 1 and state["batch"] == 5 and state["pending"] == 5 % accumulate
    broken.save(tmp_path / "a.safetensors")
    resumed = trainer()
    resumed.fit(data, epochs=3, resume=tmp_path / "a.safetensors")
    assert snapshot(resumed) == snapshot(whole)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", ["loader", "batches", "own"])
def test_steps_that_a_callback_takes_are_none_of_the_epochs(blobs, kind, accumulate):
    """Steps that a callback takes change the parameters, but not how many batches of the epoch are done."""
    steps = []

    class Extra(gr.callbacks.Callback):
        def on_report(self, run):
            state = run.trainer.state_dict()
            for _ in range(3):
                run.trainer.step(*([1.0] if kind == "own" else [blobs[0][:32], blobs[1][:32]]))
                steps.append(1)
            assert run.trainer.state_dict()["batch"] == state["batch"] <= run.batch
            if len(steps) >= 9:
                raise Stop

    if kind == "own":
        trainer = gr.Trainer(
            step=lambda params, batch: (1.0, {"w": params["w"]}), params={"w": np.ones(3)}, accumulate=accumulate
        )
        data = Slowly([1.0] * 10**6)
    else:
        trainer = gr.Trainer(mlp(8, 16, 3), accumulate=accumulate)
        loader = gr.Loader(blobs, 32, shuffle=True)
        data = loader if kind == "loader" else Slowly(Batches(loader))
    with pytest.raises(Stop):
        trainer.fit(data, epochs=10**6, callbacks=[Extra()])
    updates = trainer.step_count - len(steps) // accumulate
    batches = trainer.epoch * (0 if kind == "own" else len(loader)) + trainer.state_dict()["batch"]
    assert abs(updates - batches / accumulate) <= trainer.epoch + 1  # an epoch's last group may be a small one


class Slowly:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        for batch in self.batches:
            time.sleep(0.01)
            yield batch


def stop_after(trainer, count):
    """Make the next epoch of this trainer fail after so many batches, as an exception from a callback would."""
    session = trainer.session
    run, step = session.run, session.step

    def broken_run(arrays, **options):
        def report(made):
            if made.steps == count:
                raise Stop

        return run(arrays, **{**options, "max_steps": count, "on_report": report, "report_every": 100.0})

    seen = [0]

    def broken_step(x, y):
        if seen[0] == count:
            raise Stop
        seen[0] += 1
        return step(x, y)

    object.__setattr__(session, "run", broken_run)
    object.__setattr__(session, "step", broken_step)


def test_weights_carry_over_bit_for_bit_and_predict_the_same(blobs, tmp_path):
    a, b = (gr.Trainer(mlp(8, 16, 3), seed=seed) for seed in (1, 2))
    a.fit(blobs, epochs=1)
    a.save(tmp_path / "a.safetensors")
    b.load(tmp_path / "a.safetensors")
    assert a.predict(blobs[0]).tobytes() == b.predict(blobs[0]).tobytes()
    assert b.params["0.weight"] is b.model.params["0.weight"] or np.shares_memory(
        b.params["0.weight"], b.model.params["0.weight"]
    )


def test_gradients_of_ones_own_resume_too(tmp_path):
    def step(params, batch):
        return float(batch), {"w": params["w"] * batch}

    def trainer():
        return gr.Trainer(step=step, params={"w": np.arange(1.0, 4.0)}, optimizer=gr.optim.Adam(0.1))

    whole, first, second = trainer(), trainer(), trainer()
    whole.fit(range(1, 9), epochs=2)
    first.fit(range(1, 9), epochs=1)
    first.save(tmp_path / "a")
    second.fit(range(1, 9), epochs=2, resume=tmp_path / "a")
    assert snapshot(second) == snapshot(whole)


def test_resuming_a_complete_run_trains_nothing(blobs, tmp_path):
    trainer = gr.Trainer(mlp(8, 4, 3))
    trainer.fit(blobs, epochs=2)
    trainer.save(tmp_path / "a")
    before = snapshot(trainer)
    assert len(trainer.fit(blobs, epochs=2, resume=tmp_path / "a")) == 2
    assert snapshot(trainer) == before


@pytest.fixture
def saved(blobs, tmp_path):
    trainer = gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.Adam(1e-2))
    trainer.fit(blobs, epochs=1)
    trainer.save(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def rewritten(path, change):
    """The checkpoint with its tensors or metadata changed, its checksums right."""
    tensors, metadata = checkpoint.read(path)
    change(tensors, metadata)
    checkpoint.write(path, tensors, metadata)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, m: t.pop("0.bias"), r"tensor '0.bias' is missing"),
        (lambda t, m: t.pop("optimizer/v.2.weight"), r"tensor 'optimizer/v.2.weight' is missing"),
        (lambda t, m: t.update({"9.weight": np.zeros(3)}), r"tensor '9.weight' is not in this model and its optimizer"),
        (
            lambda t, m: t.update({"0.bias": np.zeros(5, "f4")}),
            r"tensor '0.bias' is \(5,\) of float32, expected \(4,\) of",
        ),
        (
            lambda t, m: t.update({"0.bias": np.zeros(4)}),
            r"tensor '0.bias' is \(4,\) of float64, expected \(4,\) of float32",
        ),
        (lambda t, m: m.pop("step"), r"the metadata do not fit: step is missing"),
        (lambda t, m: m.update(version="2"), r"the metadata do not fit: its version is '2', this gradring reads '1'"),
        (lambda t, m: m.update(epoch="many"), r"the metadata do not fit: .*'many'"),
        (lambda t, m: m.update(epoch="-1"), r"the metadata do not fit: epoch must be .* got -1"),
        (lambda t, m: m.update(history="[1]"), r"the metadata do not fit"),
        (lambda t, m: m.update(history="{"), r"the metadata do not fit"),
        (lambda t, m: m.update(history='{"a": [1], "b": []}'), r"the metadata do not fit"),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(blobs, saved, change, words):
    rewritten(saved, change)
    trainer = gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.Adam(1e-2), seed=5)
    before = snapshot(trainer)
    error = gr.CheckpointMismatch if words.startswith("tensor") else gr.CheckpointCorrupt
    with pytest.raises(error, match=rf"\[Trainer.load\] .*a.safetensors: {words}"):
        trainer.load(saved)
    assert snapshot(trainer) == before


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            lambda: gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.SGD(0.1)),
            "tensor 'optimizer/m.0.bias' is not in this model",
        ),
        (
            lambda: gr.Trainer(mlp(8, 5, 3), optimizer=gr.optim.Adam()),
            r"tensor '0.weight' is \(8, 4\) of float32, expected",
        ),
        (lambda: gr.Trainer(mlp(8, 4, 4, 3), optimizer=gr.optim.Adam()), r"tensor '2.weight' is \(4, 3\)"),
        (
            lambda: gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.Adam(), dtype="float64"),
            r"of float32, expected .* float64",
        ),
    ],
)
def test_a_checkpoint_of_another_trainer(saved, other, words):
    trainer = other()
    before = snapshot(trainer)
    with pytest.raises(gr.CheckpointMismatch, match=words):
        trainer.load(saved)
    assert snapshot(trainer) == before


def test_a_truncated_or_foreign_file_changes_nothing(blobs, saved):
    trainer = gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.Adam())
    before = snapshot(trainer)
    content = saved.read_bytes()
    for bad in (
        b"",
        content[:40],
        content[:-1],
        content + b"\0",
        b"\x80\x04." + content,
        content.replace(b"F32", b"F64"),
    ):
        saved.write_bytes(bad)
        for attempt in (lambda: trainer.load(saved), lambda: trainer.fit(blobs, resume=saved)):
            with pytest.raises(gr.CheckpointCorrupt, match=r"a\.safetensors"):
                attempt()
    with pytest.raises(FileNotFoundError):
        trainer.fit(blobs, resume=saved.parent / "none")
    assert snapshot(trainer) == before


def test_an_unwritable_place_leaves_the_trainer_as_it_is(blobs, tmp_path):
    trainer = gr.Trainer(mlp(8, 4, 3))
    with pytest.raises(FileNotFoundError):
        trainer.save(tmp_path / "none" / "a")
    with pytest.raises(IsADirectoryError):
        trainer.save(tmp_path)
    trainer.fit(blobs)
    assert list(tmp_path.iterdir()) == []


def test_loading_within_an_epoch_is_refused(blobs, saved):
    class Load(gr.callbacks.Callback):
        def on_report(self, run):
            run.trainer.load(saved)

    trainer = gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.Adam(1e-2))
    with pytest.raises(gr.GradringError, match=r"\[Trainer.load\] an epoch is running"):
        trainer.fit(blobs, epochs=2, callbacks=[Load()])
    trainer.load(saved)


@pytest.mark.cpu("tests/cuda/test_tuning.py is about devices")
def test_tune_has_no_effect_on_the_cpu_which_ignores_a_devices_record_of_algorithms(tmp_path, blobs):
    plain, tuned = (gr.Trainer(mlp(8, 16, 3), seed=1, **options) for options in ({}, {"tune": True}))
    for trainer in (plain, tuned):
        trainer.fit(blobs, epochs=1, verbose=False)
        trainer.save(tmp_path / "one.safetensors")
        tensors, metadata = checkpoint.read(tmp_path / "one.safetensors")
        assert "algorithms" not in metadata and "algorithms" not in trainer.state_dict()
        assert trainer.plan().algorithms == "" and "recorded" not in str(trainer.plan())
    checkpoint.write(tmp_path / "two.safetensors", tensors, {**metadata, "algorithms": "cublasLt 130000 a card\n"})
    again = gr.Trainer(mlp(8, 16, 3))
    again.load(tmp_path / "two.safetensors")
    for trainer in (plain, tuned, again):
        trainer.fit(blobs, epochs=1, verbose=False)
        for name, array in trainer.params.items():
            np.testing.assert_array_equal(array, plain.params[name])
    with pytest.raises(TypeError, match="tune"):
        gr.Trainer(mlp(8, 16, 3), tune="yes")
