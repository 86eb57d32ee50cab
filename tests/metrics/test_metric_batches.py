"""Metrics get the batches of the feed that trains: no sample is loaded twice, and targets keep their shape."""

import threading
from collections import Counter

import numpy as np
import pytest

import gradring as gr

N, BATCH = 43, 8  # the last batch has three samples
RNG = np.random.default_rng(5)
X = RNG.standard_normal((N, 4)).astype("f4")
Y = RNG.integers(0, 3, (N, 1))
W = RNG.random(N).astype("f4")


class Source:
    """Counts how often each sample is made."""

    def __init__(self, *fields):
        self.fields, self.calls, self.lock = fields, Counter(), threading.Lock()

    def __call__(self, number):
        with self.lock:
            self.calls[number] += 1
        return tuple(field[number] for field in self.fields)


class Keep:
    """A metric that keeps what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, predictions, targets):
        self.given.append((predictions.copy(), targets.copy()))
        return float(len(targets))


def trainer(metrics, **options):
    model = gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.Tanh(), gr.nn.Linear(5, 3)).init(1)
    return gr.Trainer(model, optimizer=gr.optim.SGD(0.1), metrics=metrics, **options)


def loader(source, **options):
    return gr.Loader(gr.sources.Callable(source, N), BATCH, **options)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("fields", [(X, Y), (X, Y, W)], ids=["plain", "weighted"])
def test_no_sample_is_loaded_twice_for_a_metric(fields, num_threads, accumulate):
    counts, parameters = [], []
    for metrics in ([], [Keep()]):
        train, check = Source(*fields), Source(*fields)
        made = trainer(metrics, accumulate=accumulate)
        made.fit(
            loader(train, shuffle=True, num_threads=num_threads),
            epochs=3,
            validate=loader(check, num_threads=num_threads),
            verbose=False,
        )
        counts.append((train.calls, check.calls))
        parameters.append(b"".join(array.tobytes() for array in made.params.values()))
    assert counts[0] == counts[1] and parameters[0] == parameters[1]
    for calls in counts[1]:
        assert set(calls) == set(range(N)) and set(calls.values()) <= {3, 4}  # one more where the fields are found out


@pytest.mark.parametrize("fields", [(X, Y), (X, Y, W)], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", ["arrays", "function", "batches"])
def test_a_metric_gets_each_batch_as_it_was_given(kind, fields):
    keep = Keep()
    made, twin = trainer([keep]), trainer([])
    data = {
        "arrays": lambda: gr.Loader(fields, BATCH, shuffle=True, seed=4),
        "function": lambda: loader(Source(*fields), shuffle=True, seed=4),
        "batches": lambda: [tuple(field[i : i + BATCH] for field in fields) for i in range(0, N, BATCH)],
    }[kind]
    row = made.fit(data(), epochs=1, verbose=False).last
    expected = []
    for x, y, *weight in data():
        expected.append((twin.predict(x), np.array(y)))
        twin.step(x, y, *weight)
    predictions, targets = (np.concatenate(parts) for parts in zip(*expected, strict=True))
    assert row["Keep"] == N and len(keep.given) == 1
    assert keep.given[0][0].tobytes() == predictions.tobytes()
    assert keep.given[0][1].shape == (N, 1) and np.array_equal(keep.given[0][1], targets)
    for name, array in made.params.items():
        assert array.tobytes() == twin.params[name].tobytes()


def test_a_sample_that_fails_ends_the_epoch_at_its_batch():
    source = Source(X, Y)

    def sample(number):
        if number == 2 * BATCH + 1:
            raise OSError("the disk is gone")
        return source(number)

    keep = Keep()
    made = trainer([keep])
    with pytest.raises(OSError, match="the disk is gone"):
        made.fit(loader(sample), epochs=1, verbose=False)
    assert made.step_count == 2 and not keep.given and max(source.calls.values()) <= 2


def test_an_iterable_is_read_batch_by_batch():
    asked = []

    class Batches:
        def __iter__(self):
            for i in range(0, N, BATCH):
                asked.append(made.step_count)
                yield X[i : i + BATCH], Y[i : i + BATCH]

    made = trainer([Keep()])
    made.fit(Batches(), epochs=1, steps_per_epoch=4, verbose=False)
    assert asked == [0, 1, 2, 3] and made.step_count == 4  # no batch is asked for before the step on the last one
