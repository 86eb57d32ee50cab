"""A step of a model on a CUDA device returns before the device is done, and its loss waits when it is read."""

import gc
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest

import gradring as gr
from device_producers import on_device, run_lazily
from gradring import cuda

ROWS = 32


def model(dropout=0.0):
    nn = gr.nn
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else []), nn.Linear(16, 3))


def made(device="cuda", **options):
    options.setdefault("optimizer", gr.optim.AdamW(1e-2))
    options.setdefault("model", model())
    return gr.Trainer(device=device, seed=3, **options)


def batches(blobs, count):
    x, y = blobs
    for number in range(count):
        rows = [(number * ROWS + row) % len(y) for row in range(ROWS)]
        yield x[rows], y[rows]


def spoiled(batch):
    x, y = batch
    y = y.copy()
    y[5] = 7
    return x, y


def lazily(script):
    assert run_lazily(textwrap.dedent(script) + "print('done')\n") == "done"


def bits(trainer):
    return {name: np.asarray(array).tobytes() for name, array in trainer.params.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate": 3},
        {"clip_norm": 0.5, "optimizer": gr.optim.SGD(0.1, momentum=0.9)},
        {"optimizer": gr.optim.Adam(gr.optim.schedule.cosine(1e-2, 10))},
        {"dropout": 0.3},
    ],
    ids=("plain", "accumulate", "clip", "schedule", "dropout"),
)
def test_losses_that_are_read_late_are_those_that_are_read_at_once(blobs, options):
    options = dict(options)
    dropout = options.pop("dropout", 0.0)
    at_once, late, cpu = (made(place, model=model(dropout), **options) for place in ("cuda", "cuda", "cpu"))
    first = [float(at_once.step(*batch)) for batch in batches(blobs, 20)]
    numbers = [late.step(*batch) for batch in batches(blobs, 20)]
    assert all(type(number) is cuda.Number for number in numbers)
    assert [float(number) for number in reversed(numbers)] == first[::-1]
    assert bits(late) == bits(at_once)
    np.testing.assert_allclose(first, [cpu.step(*batch) for batch in batches(blobs, 20)], rtol=1e-4)
    assert late.step_count == at_once.step_count == cpu.step_count
    assert late.session.counters() == cpu.session.counters()


def test_a_batch_may_change_as_soon_as_step_has_returned(blobs):
    expected, trainer = made(), made()
    losses = [float(expected.step(*batch)) for batch in batches(blobs, 12)]
    x, y = np.empty((ROWS, 8), np.float32), np.empty(ROWS, np.int64)
    numbers = []
    for batch in batches(blobs, 12):
        x[...], y[...] = batch
        numbers.append(trainer.step(x, y))
        x[...], y[...] = np.nan, -1
    assert [float(number) for number in numbers] == losses
    assert bits(trainer) == bits(expected)


def test_a_batch_on_the_device_may_change_behind_the_step(blobs):
    expected, trainer = made(), made()
    losses = [float(expected.step(*batch)) for batch in batches(blobs, 8)]
    x, y = cuda.empty((ROWS, 8), "float32"), cuda.empty((ROWS,), "int64")
    numbers = []
    for batch in batches(blobs, 8):
        x[...], y[...] = batch
        numbers.append(trainer.step(x, y))
        x[...], y[...] = np.full((ROWS, 8), np.nan, np.float32), np.full(ROWS, -1)
    assert [float(number) for number in numbers] == losses


def test_batches_of_a_loader_on_the_device_are_leases_that_end_behind_the_step(blobs):
    expected, trainer = made(), made()
    losses = {}
    for place, each in (("cpu", expected), ("cuda", trainer)):
        loader = gr.Loader(blobs, ROWS, shuffle=True, seed=5, device=place)
        losses[place] = [each.step(x, y) for _ in range(3) for x, y in loader]
    assert [float(loss) for loss in losses["cuda"]] == [float(loss) for loss in losses["cpu"]]
    assert bits(trainer) == bits(expected)


def test_the_next_steps_raise_the_error_of_one_that_nothing_has_read(blobs):
    trainer, expected = made(), made()
    given = list(batches(blobs, 20))
    for batch in given[:3]:
        trainer.step(*batch)
        expected.step(*batch)
    failed = trainer.step(*spoiled(given[3]))
    later = []
    with pytest.raises(ValueError, match=r"row 5 \(sample 5\): label is 7, .* which is that of step 4$"):
        for batch in given[4:]:
            later.append(trainer.step(*batch))
    assert len(later) <= 4
    assert trainer.step_count == 3 and bits(trainer) == bits(expected)  # they raise nothing more
    for number in later:
        with pytest.raises(gr.GradringError, match=r"changed nothing, because one before it had failed.*label is 7"):
            float(number)
    for _ in range(2):
        with pytest.raises(ValueError, match="label is 7"):
            float(failed)
    assert float(trainer.step(*given[4])) == float(expected.step(*given[4]))
    assert bits(trainer) == bits(expected)


def test_reading_a_loss_raises_the_error_once(blobs):
    trainer = made()
    given = list(batches(blobs, 4))
    good, failed = trainer.step(*given[0]), trainer.step(*spoiled(given[1]))
    with pytest.raises(ValueError, match="that of step 2"):
        float(failed)
    assert np.isfinite(float(good))
    trainer.step(*given[2])
    assert trainer.state_dict()["step"] == 2


LOOKS = {
    "params": lambda trainer, data, path: trainer.params,
    "buffers": lambda trainer, data, path: trainer.buffers,
    "state_dict": lambda trainer, data, path: trainer.state_dict(),
    "save": lambda trainer, data, path: trainer.save(path / "file"),
    "evaluate": lambda trainer, data, path: trainer.evaluate(data),
    "fit": lambda trainer, data, path: trainer.fit(data, verbose=False),
    "fit batches": lambda trainer, data, path: trainer.fit([data, data], verbose=False),
    "optimizer": lambda trainer, data, path: setattr(trainer, "optimizer", gr.optim.SGD(0.1)),
}


@pytest.mark.parametrize("look", LOOKS, ids=lambda name: name.replace(" ", "_"))
def test_what_looks_at_the_state_raises_the_error(tmp_path, blobs, look):
    trainer, expected = made(), made()
    given = list(batches(blobs, 3))
    for each in (trainer, expected):
        each.step(*given[0])
    trainer.step(*spoiled(given[1]))
    with pytest.raises(ValueError, match=r"label is 7.*that of step 2$"):
        LOOKS[look](trainer, blobs, tmp_path)
    assert not (tmp_path / "file").exists()
    assert bits(trainer) == bits(expected)


def test_what_is_loaded_replaces_a_step_that_has_failed(tmp_path, blobs):
    trainer = made()
    given = list(batches(blobs, 3))
    trainer.step(*given[0])
    state = trainer.state_dict()
    trainer.save(tmp_path / "file")
    for load in (
        lambda: trainer.load_state_dict(state),
        lambda: trainer.load(tmp_path / "file"),
        lambda: trainer.reset(3),
    ):
        trainer.step(*spoiled(given[1]))
        load()
        assert np.isfinite(float(trainer.step(*given[2])))


def test_a_loss_or_a_gradient_that_is_not_finite_names_its_step(blobs):
    x, y = next(batches(blobs, 1))
    trainer = made(optimizer=gr.optim.SGD(0.1))
    trainer.step(x, y)
    before = bits(trainer)
    bad = x.copy()
    bad[3, 2] = np.inf
    trainer.step(bad, y)
    bad[...] = 0  # the error still knows what was given
    with pytest.raises(gr.NonFinite, match=r"the loss of step 2 .*x of sample 3 is inf in column 2"):
        trainer.state_dict()
    assert bits(trainer) == before


def test_programs_of_other_fields_do_not_hide_an_error(blobs):
    """The error is made when other fields have taken the place of those that it is about."""
    _, y = next(batches(blobs, 1))
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Embedding(5, 4), gr.nn.Flatten(), gr.nn.Linear(8, 3)), device="cuda")
    ids = np.zeros((ROWS, 2), np.int64)
    trainer.step(ids, y)
    ids[4, 1] = 9
    number = trainer.step(ids, y)
    trainer.session._programs.forget()
    with pytest.raises(ValueError, match=r"row 4 .*the id at place \(1,\) is 9: must be at least 0 and below 5"):
        float(number)


def test_wrong_arguments_are_refused_at_once(blobs):
    x, y = next(batches(blobs, 1))
    trainer = made()
    for given in ((x,), (x, y[:-1]), (x[:, :3], y), (x, y.astype("float32")[:, None].repeat(2, 1))):
        with pytest.raises((TypeError, ValueError)):
            trainer.step(*given)
    assert np.isfinite(float(trainer.step(x, y)))


def test_batches_of_other_sizes_and_weights_follow_each_other(blobs):
    x, y = blobs
    weight = np.linspace(0.5, 1, len(y), dtype=np.float32)
    numbers = {}
    for place in ("cpu", "cuda"):
        trainer = made(place)
        numbers[place] = []
        for size in (32, 7, 32, 50, 1, 7, 64, 32):
            numbers[place].append(trainer.step(x[:size], y[:size]))
            numbers[place].append(trainer.step(x[:size], y[:size], weight[:size]))
    np.testing.assert_allclose([float(n) for n in numbers["cuda"]], numbers["cpu"], rtol=1e-4)


def test_fit_over_batches_does_not_wait_for_each_step_and_counts_its_failure_right(blobs):
    given = list(batches(blobs, 12))
    history = {place: made(place).fit(given, epochs=2, verbose=False).metrics for place in ("cpu", "cuda")}
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(history["cuda"][name], history["cpu"][name], rtol=1e-4)
    given[7] = spoiled(given[7])
    said = {}
    for place in ("cpu", "cuda"):
        trainer = made(place)
        with pytest.raises(ValueError) as caught:
            trainer.fit(given, epochs=1, verbose=False)
        said[place] = str(caught.value), trainer.step_count
    assert said["cuda"] == (said["cpu"][0] + ", which is that of step 8", said["cpu"][1])


def test_timings_are_those_of_the_device(blobs):
    trainer = made()
    for batch in batches(blobs, 10):
        trainer.step(*batch)
    timings = trainer.timings()
    assert timings["compute"] > 0 and timings["data"] > 0 and timings["reduction"] == 0


def test_the_order_of_streams(blobs):
    """The parameters are read on a stream of the caller's own, right behind the step, in the schedule that runs work last."""
    lazily(
        """
        import numpy as np
        import gradring as gr
        from gradring import cuda
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(32, 8)).astype("float32"), rng.integers(0, 3, 32)
        def made():
            layers = gr.nn.Linear(8, 16), gr.nn.ReLU(), gr.nn.Linear(16, 3)
            return gr.Trainer(gr.nn.Sequential(*layers), device="cuda", optimizer=gr.optim.SGD(0.1), seed=1)
        first, second = made(), made()
        stream = cuda.Stream()
        with cuda.use_stream(stream):
            given = cuda.empty(x.shape, "float32"), cuda.empty(y.shape, "int64")
            for number in range(6):
                given[0][...], given[1][...] = x, y  # on this stream, before the step reads them
                first.step(*given)
                given[0][...] = np.zeros_like(x)
                live = first.model.params["0.weight"]
                copy = cuda.empty(live.shape, "float32")
                copy[...] = live
                float(second.step(x, y))
                np.testing.assert_array_equal(copy.numpy(), second.params["0.weight"].numpy())
                live[...] = live.numpy() * np.float32(0.5)  # comes before the next step
                kept = second.params["0.weight"]
                kept[...] = kept.numpy() * np.float32(0.5)
        np.testing.assert_array_equal(first.predict(x), second.predict(x))
        """
    )


def test_a_model_moves_behind_its_steps(blobs):
    lazily(
        """
        import numpy as np
        import gradring as gr
        from gradring import cuda
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(32, 8)).astype("float32"), rng.integers(0, 3, 32)
        moved = []
        for read in (True, False):
            model = gr.nn.Sequential(gr.nn.Linear(8, 3))
            trainer = gr.Trainer(model, device="cuda", optimizer=gr.optim.SGD(0.1), seed=1)
            with cuda.use_stream(cuda.Stream()):
                for _ in range(4):
                    loss = trainer.step(x, y)
                if read:
                    float(loss)
                moved.append(model.to("cpu").params["0.weight"].copy())
        np.testing.assert_array_equal(*moved)
        """
    )


def test_steps_and_looks_of_other_threads(blobs):
    trainer, stop = made(), threading.Event()
    failures = []

    def look():
        while not stop.is_set():
            try:
                trainer.step_count, trainer.timings(), trainer.predict(blobs[0][:3])
            except gr.GradringError as error:
                if "is running already" not in str(error):
                    failures.append(error)
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    expected = made()
    numbers = []
    for batch in batches(blobs, 30):
        while True:
            try:
                numbers.append(trainer.step(*batch))
                break
            except gr.GradringError as error:
                assert "is running already" in str(error)
                time.sleep(1e-4)
    stop.set()
    thread.join()
    assert not failures
    assert [float(n) for n in numbers] == [float(expected.step(*batch)) for batch in batches(blobs, 30)]


def test_a_trainer_dies_with_steps_queued_and_numbers_keep_what_they_need(blobs):
    trainer = made()
    numbers = [trainer.step(*batch) for batch in batches(blobs, 3)]
    session = weakref.ref(trainer._session)
    del trainer
    assert all(np.isfinite(float(number)) for number in numbers)
    gc.collect()
    assert session() is None
    trainer = made()
    for batch in batches(blobs, 3):
        trainer.step(*batch)
    del trainer
    gc.collect()


SCRIPT = """
import sys, numpy as np, gradring as gr
x, y = np.ones((32, 8), "float32"), np.zeros(32, "int64")
trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(8, 3)), device="cuda")
for _ in range(20):
    number = trainer.step(x, y)
y[3] = 9
trainer.step(x, y)
print("queued", flush=True)
"""


@pytest.mark.parametrize("schedule", ["eager", "lazy", "7"])
def test_the_interpreter_ends_with_steps_queued(schedule):
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "GRADRING_CUDA_SCHEDULE": schedule},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "queued\n"), ended.stderr
    assert not re.search("Traceback|leak", ended.stderr), ended.stderr


def test_a_forked_child_is_refused_and_ends(blobs):
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    trainer = made()
    given = list(batches(blobs, 2))
    number = trainer.step(*given[0])
    child = os.fork()
    if child == 0:
        try:
            trainer.step(*given[1])
        except gr.GradringError as error:
            os._exit(0 if "forked" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert np.isfinite(float(number))


def test_arrays_of_other_libraries_are_read_on_their_stream(blobs):
    x, y = next(batches(blobs, 1))
    trainer, expected = made(), made()
    assert float(trainer.step(on_device(x), on_device(y))) == float(expected.step(x, y))
