"""Named fields: models of several inputs, and integers that stay integers until a layer casts them."""

import numpy as np
import pytest

import gradring as gr
from gradring import nn
from gradring.ir import Input, trace

RNG = np.random.default_rng(22)
A = RNG.standard_normal((53, 4)).astype(np.float32)
B = RNG.standard_normal((53, 3)).astype(np.float32)
Y = RNG.integers(0, 2, 53)


class TwoTowers(nn.Layer):
    """One linear layer for each input; their sum is the output."""

    input_names = ("a", "b")

    def __init__(self):
        self.left, self.right = nn.Linear(4, 5), nn.Linear(3, 5)

    def children(self):
        return {"left": self.left, "right": self.right}

    def trace(self, tracer, a, b):
        left, right = tracer.call("left", self.left, a), tracer.call("right", self.right, b)
        return tracer.node("add", {"a": left, "b": right}, tracer.shape(left))


def towers():
    return nn.Sequential(TwoTowers(), nn.Tanh(), nn.Linear(5, 2)).init(5)


def joined(model):
    """The same function of one input, whose columns are those of a and b."""
    params = {name: array.copy() for name, array in model.params.items()}
    one = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 2)).init(0)
    one.params["0.weight"] = np.concatenate([params["0.left.weight"], params["0.right.weight"]])
    one.params["0.bias"] = params["0.left.bias"] + params["0.right.bias"]
    one.params["2.weight"], one.params["2.bias"] = params["2.weight"], params["2.bias"]
    return one


def trainer(model, **options):
    return gr.Trainer(model, optimizer=gr.optim.SGD(0.1), **options)


def test_a_model_of_two_inputs_against_one_of_one(monkeypatch):
    monkeypatch.setenv("GRADRING_CHECK", "1")
    model = towers()
    one = trainer(joined(model))
    two = trainer(model)
    x = np.concatenate([A, B], axis=1)
    np.testing.assert_allclose(two.predict({"b": B, "a": A}), one.predict(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(A, B), one.predict(x), rtol=1e-4, atol=1e-5)
    losses = [[t.step(*fields) for _ in range(3)] for t, fields in ((two, (A, B, Y)), (one, (x, Y)))]
    # The bias of a sum is learned twice, so the second loss differs.
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
    assert losses[0][2] < losses[0][1] < losses[0][0]


def form(kind):
    order = {"y": Y, "b": B, "a": A}
    return {
        "dict": order,
        "tuple": (A, B, Y),
        "loader": gr.Loader(order, 8, shuffle=True, seed=0),
        "plain loader": gr.Loader((A, B, Y), 8, shuffle=True, seed=0),
    }[kind]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", ["dict", "tuple", "loader", "plain loader"])
def test_fields_are_bound_by_name(kind, accumulate):
    want = trainer(towers(), accumulate=accumulate)
    made = trainer(towers(), accumulate=accumulate)
    history = made.fit(form(kind), epochs=3, batch_size=8, validate=form("dict"), verbose=False)
    order = gr.Loader((A, B, Y), 8, shuffle=True, seed=0)
    for epoch in range(3):
        order.set_epoch(epoch)
        for a, b, y in order:
            want.step(a=a, y=y, b=b)
        want.session.flush()
    for name, array in want.params.items():
        assert array.tobytes() == made.params[name].tobytes(), name
    assert history.last["val_loss"] == pytest.approx(made.evaluate(form(kind))["loss"], rel=1e-5)
    assert "MFLOP" in str(made.plan())


def test_steps_by_position_by_name_and_in_a_dict():
    trainers = [trainer(towers()) for _ in range(4)]
    losses = [
        trainers[0].step(A, B, Y),
        trainers[1].step({"y": Y, "a": A, "b": B}),
        trainers[2].step(A, y=Y, b=B),
        trainers[3].step(y=Y, b=B, a=A),
    ]
    assert len(set(losses)) == 1


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda t: t.step(A, Y), TypeError, r"step\(\) takes \(a, b, y\), got 2 by position"),
        (lambda t: t.step(A, B, Y, x=A), TypeError, r"step\(\) takes \(a, b, y\), got 3 by position and 'x'"),
        (lambda t: t.step({"a": A, "y": Y}), TypeError, r"step\(\) takes \(a, b, y\)"),
        (lambda t: t.step(A, B[:9], Y), ValueError, r"\[Trainer\] a has 53 samples, b has 9: must be equal"),
        (lambda t: t.fit((A, B[:9], Y)), ValueError, r"\[Trainer.fit\] a has 53 samples, b has 9: must be equal"),
        (lambda t: t.fit({"y": Y[:9], "b": B, "a": A}), ValueError, r"\[Trainer.fit\] a has 53 samples, y has 9: must be"),
        (lambda t: t.evaluate((A, B, Y, A[:9, 0])), ValueError, r"a has 53 samples, weight has 9: must be equal"),
        (lambda t: t.evaluate([A, B, Y[:0]]), ValueError, r"\[Trainer.evaluate\] a has 53 samples, y has 0: must be equal"),
        (lambda t: t.fit((A, [["p"]] * 53, Y)), TypeError, r"\[Trainer.fit\] b is a list of str: expected an array"),
        (lambda t: t.fit({"b": B, "a": [[1], [2, 3]], "y": Y}), ValueError, r"\[Trainer.fit\] a is ragged"),
        (lambda t: t.fit((A, B, Y, [2j] * 53)), TypeError, r"\[Trainer.fit\] weight"),
        (lambda t: t.fit((A, Y[:9])), ValueError, r"\[Trainer.fit\] field 0 has 53 samples, field 1 has 9: must be equal"),
        (lambda t: t.fit({"a": A, "y": Y}), ValueError, r"needs 'a', 'b' and 'y' alone"),
        (lambda t: t.fit((A, Y)), TypeError, r"\[Trainer\] a batch must have the fields \(a, b, y\)"),
        (
            lambda t: t.fit([(A, Y)]),
            TypeError,
            r"a batch must be \(a, b, y\) or a dict of 'a', 'b' and 'y', got tuple of 2",
        ),
        (lambda t: t.evaluate({"x": A, "y": Y}), ValueError, r"has the fields 'x', 'y': .* needs 'a', 'b' and 'y'"),
        (lambda t: t.predict(A), TypeError, r"\[Trainer.predict\] the model takes \(a, b\): give a tuple or a dict"),
        (lambda t: t.predict({"a": A}), ValueError, r"\[Trainer.predict\] a dict of fields needs 'b', got \['a'\]"),
        (lambda t: t.model(A), TypeError, r"\[predict\] .* takes 2 inputs, \(a, b\), got 1"),
        (lambda t: t.model(A, B[:5]), ValueError, r"\[predict\] a has 53 samples, b has 5: must be equal"),
        (lambda t: t.step(A, B.astype(np.float64)[:, :2], Y), ValueError, r"\[linear\] layer 0\.right.*3\)"),
    ],
)
def test_fields_that_do_not_fit(use, error, words):
    made = trainer(towers())
    before = {name: array.copy() for name, array in made.params.items()}
    with pytest.raises(error, match=words):
        use(made)
    assert all(np.array_equal(array, before[name]) for name, array in made.params.items())
    made.step(A, B, Y)


def test_predictions_of_a_loader_of_several_inputs():
    made = trainer(towers())
    want = made.predict((A, B))
    assert made.predict(gr.Loader({"y": Y, "b": B, "a": A}, 7, shuffle=True), batch_size=9).tobytes() == want.tobytes()
    assert made.predict(iter([{"a": A[:20], "b": B[:20]}, {"a": A[20:], "b": B[20:]}])).tobytes() == want.tobytes()


def test_a_summary_of_several_inputs():
    text = str(towers().summary({"b": (6, 3), "a": (6, 4)}))
    assert "0: TwoTowers()" in text and "(6, 5)" in text and text.splitlines()[-1].split()[1] == "57"
    with pytest.raises(ValueError, match=r"\[summary\] .* has the inputs \['a', 'b'\], got shapes of \['a'\]"):
        towers().summary((6, 4))


def test_a_bad_number_is_named_by_its_field():
    bad = B.copy()
    bad[3, 1] = np.nan
    with pytest.raises(gr.NonFinite, match="b of sample 3 is nan in column 1"):
        trainer(towers()).step(A, bad, Y)


# Integers


class Reads(nn.Layer):
    """Reads its input as integers."""

    def trace(self, tracer, x):
        return tracer.node("gather", {"ids": x}, (*tracer.shape(x), 2), integers=("ids",))


class Both(nn.Layer):
    def trace(self, tracer, x):
        tracer.node("gather", {"ids": x}, (*tracer.shape(x), 2), integers=("ids",))
        return tracer.node("activation", {"x": x}, tracer.shape(x), {"activation": "relu"})


class Apart(nn.Layer):
    input_names = ("ids", "x")

    def trace(self, tracer, ids, x):
        tracer.node("gather", {"ids": tracer.view(ids, (6, 1))}, (6, 2), integers=("ids",))
        return tracer.node("activation", {"x": x}, tracer.shape(x), {"activation": "relu"})


def dtypes(graph):
    return {name: value.dtype for name, value in graph.values.items() if value.kind == "input"}


def test_integers_stay_integers_where_a_layer_takes_them():
    graph, _ = trace(Reads(), {"x": Input((6,), integers=True)}, training=True)
    assert dtypes(graph) == {"x": "int64"}
    graph, _ = trace(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), {"x": Input((6, 2, 2), integers=True)}, training=True
    )
    assert set(dtypes(graph).values()) == {"float32"}
    graph, _ = trace(nn.Flatten(), {"x": Input((6, 2, 2), integers=True)}, training=False, dtype="float64")
    assert set(dtypes(graph).values()) == {"float64"}
    fields = {"ids": Input((6,), integers=True), "x": Input((6, 3), integers=True, slot=1)}
    graph, _ = trace(Apart(), fields, training=True)
    assert dtypes(graph)["ids"] == "int64" and dtypes(graph)["x"] == "float32"


def test_one_field_is_not_read_in_two_dtypes():
    with pytest.raises(
        ValueError, match=r"\[trace\] Both\(\) reads field 'x' as floats, but Both\(\) reads it as integers"
    ):
        trace(Both(), {"x": Input((6,), integers=True)}, training=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint16, bool])
def test_layers_that_compute_in_floats_cast_integers(dtype):
    x = RNG.integers(0, 2 if dtype is bool else 100, (31, 4)).astype(dtype)
    a, b = (trainer(nn.Sequential(nn.Linear(4, 3)).init(1)) for _ in range(2))
    y = RNG.integers(0, 3, 31)
    assert [a.step(x, y), a.step(x, y)] == [b.step(x.astype(np.float32), y), b.step(x.astype(np.float32), y)]
    a.fit((x, y), epochs=2, batch_size=8, verbose=False)
    b.fit((x.astype(np.float32), y), epochs=2, batch_size=8, verbose=False)
    assert a.predict(x).tobytes() == b.predict(x.astype(np.float32)).tobytes()


def test_integers_and_floats_may_take_turns():
    x = RNG.integers(0, 9, (24, 4))
    made, want = (trainer(nn.Sequential(nn.Linear(4, 3)).init(1)) for _ in range(2))
    y = RNG.integers(0, 3, 24)
    got = [made.step(given, y) for given in (x, x.astype(np.float32), x.astype(np.uint8), x.astype(np.float32))]
    assert got == [want.step(x.astype(np.float32), y) for _ in range(4)]


BIG = 16777217  # the first integer that is no float32


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
@pytest.mark.parametrize("kind", ["arrays", "loader", "dict", "batches"])
def test_a_layer_sees_the_integers_of_its_field(monkeypatch, kind, dtype):
    monkeypatch.setenv("GRADRING_CHECK", "1")
    seen = []

    def forward(x):
        seen.append(x.copy())
        return (x % 5).astype(np.float32)

    x = (BIG + np.arange(36).reshape(12, 3)).astype(dtype)
    y = RNG.integers(0, 2, 12)
    model = nn.Sequential(nn.Function(forward, lambda dy, x, y: np.zeros_like(dy)), nn.Linear(3, 2))
    made = trainer(model)
    data = {
        "arrays": (x, y),
        "loader": gr.Loader((x, y), 5),
        "dict": gr.Loader({"y": y, "x": x}, 5),
        "batches": [(x[:5], y[:5]), (x[5:10], y[5:10]), (x[10:], y[10:])],
    }[kind]
    made.fit(data, epochs=1, batch_size=5 if kind == "arrays" else None, verbose=False)
    assert all(part.dtype == np.int64 for part in seen)
    assert sorted(np.concatenate(seen).ravel().tolist()) == x.ravel().tolist()
    want = gr.Trainer(nn.Sequential(nn.Linear(3, 2)), optimizer=gr.optim.SGD(0.1))
    for ours, theirs in zip(made.params.values(), want.params.values(), strict=True):
        theirs[...] = ours
    plain = (x.astype(np.int64) % 5).astype(np.float32)
    assert made.predict(x).tobytes() == want.predict(plain).tobytes()
    assert made.evaluate((x, y)) == want.evaluate((plain, y))
    assert made.step(x, y) == want.step(plain, y)
    for _ in range(2):  # the second round takes the fast path of a step; floats come in between
        assert made.step(x.astype(np.int64), y) == want.step(plain, y)
        made.step(x.astype(np.float32), y)
        want.step((x.astype(np.float32).astype(np.int64) % 5).astype(np.float32), y)


def test_the_fast_path_of_a_step_forgets_what_programs_no_longer_read():
    ids, y = np.arange(12).reshape(6, 2), RNG.integers(0, 2, 6)
    function = nn.Function(lambda x: x % 3, lambda dy, x, y: dy)
    made, want = (trainer(nn.Sequential(function if i else nn.Function(lambda x: x % 3, lambda dy, x, y: dy),
                                        nn.Linear(2, 2).init(1))) for i in range(2))  # fmt: skip
    want.params.update(made.params)
    for between in (lambda t: t.fit((ids.astype(np.float32), y), batch_size=6, verbose=False),
                    lambda t: t.evaluate((ids.astype(np.float32), y))):  # fmt: skip
        for each in (made, want):
            each.step(ids, y)
            between(each)
        assert made.step(ids, y) == want.step(ids.astype(np.int32), y)


def test_an_interrupt_while_the_dtypes_are_found_out(monkeypatch):
    function = nn.Function(lambda x: x % 3, lambda dy, x, y: np.zeros_like(dy))
    made = trainer(nn.Sequential(function, nn.Linear(2, 2)).init(1))
    ids, y = RNG.integers(0, 9, (6, 2)), RNG.integers(0, 2, 6)
    made.step(ids.astype(np.float32), y)
    before = {name: array.copy() for name, array in made.params.items()}

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gradring.session.graphs.trace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.step(ids, y)
    assert all(np.array_equal(array, before[name]) for name, array in made.params.items())
    twin = trainer(nn.Sequential(nn.Linear(2, 2)).init(1))
    for name, array in twin.params.items():
        array[...] = before[f"1.{name.partition('.')[2]}"]
    assert made.step(ids, y) == twin.step((ids % 3).astype(np.float32), y)


class Ids(nn.Layer):
    """One input under another name, which comes after the targets in a loader of a dict."""

    input_names = ("z",)

    def __init__(self):
        self.inside = nn.Linear(2, 2)

    def children(self):
        return {"inside": self.inside}

    def trace(self, tracer, z):
        return tracer.call("inside", self.inside, z)


def test_a_batch_whose_targets_come_first():
    x, y = RNG.standard_normal((6, 2)).astype(np.float32), RNG.standard_normal((6, 2)).astype(np.float32)
    made, want = (
        gr.Trainer(model, loss="mse", optimizer=gr.optim.SGD(0.1)) for model in (Ids().init(1), Ids().init(1))
    )
    for _ in range(2):
        assert made.step(x, y) == want.step(x, y)
        made.fit(gr.Loader({"y": y, "z": x}, 6), verbose=False)
        want.fit(gr.Loader((x, y), 6), verbose=False)
        assert made.step(x, y) == want.step(x, y)
        assert made.evaluate({"y": y, "z": x}) == want.evaluate((x, y))


class Other(gr.callbacks.Callback):
    """Runs the trainer on other fields at each report and after each epoch."""

    def __init__(self, *data):
        self.data, self.calls = data, 0

    def on_report(self, run):
        for data in self.data:
            run.trainer.evaluate(data)
            self.calls += 1

    on_epoch_end = on_report


def report_after_each_step(monkeypatch, made):
    run = made.session.run
    monkeypatch.setitem(
        made.session.__dict__, "run", lambda *data, **named: run(*data, **{**named, "report_every": 1e-9})
    )


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("kind", ["arrays", "loader", "batches"])
def test_a_callback_that_evaluates_other_fields_changes_nothing(monkeypatch, kind, accumulate):
    monkeypatch.setattr("gradring.session.session.REPORT_SECONDS", -1.0)
    ids, y = RNG.integers(0, 7, (40, 3)), RNG.integers(0, 2, 40)
    others = ((ids.astype(np.float32), y), (ids[:7], y[:7]), gr.Loader({"y": y, "x": ids.astype(np.uint8)}, 6))
    data = {
        "arrays": lambda: (ids, y),
        "loader": lambda: gr.Loader((ids, y), 6, transforms={0: [gr.transforms.Python(lambda x: x)]}),
        "batches": lambda: [(ids[i : i + 6], y[i : i + 6]) for i in range(0, 40, 6)],
    }[kind]
    results = []
    for callbacks in ([], [Other(*others)]):
        function = nn.Function(lambda x: x % 3, lambda dy, x, y: np.zeros_like(dy))
        made = trainer(nn.Sequential(function, nn.Linear(3, 2)).init(2), accumulate=accumulate)
        report_after_each_step(monkeypatch, made)
        made.fit(data(), epochs=3, batch_size=6 if kind == "arrays" else None, callbacks=callbacks, verbose=False)
        assert not callbacks or callbacks[0].calls >= 3 * 7 * len(others)
        assert made.session.pending == 0 and made.step_count == 3 * -(-7 // accumulate)
        results.append(b"".join(array.tobytes() for array in made.params.values()))
    assert results[0] == results[1]


def test_a_layer_that_reads_otherwise_in_the_middle_of_an_epoch(monkeypatch):
    class Changes(nn.Layer):
        def __init__(self):
            self.whole = True
            self.function = nn.Function(lambda x: x % 3, lambda dy, x, y: np.zeros_like(dy))

        def children(self):
            return {"function": self.function}

        def trace(self, tracer, x):
            if self.whole:
                return tracer.call("function", self.function, x)
            return tracer.node("activation", {"x": x}, tracer.shape(x), {"activation": "relu"})

    class Change(gr.callbacks.Callback):
        def on_report(self, run):
            layer.whole = False

    layer = Changes()
    made = trainer(nn.Sequential(layer, nn.Linear(3, 2)))
    ids, y = RNG.integers(0, 7, (40, 3)), RNG.integers(0, 2, 40)
    report_after_each_step(monkeypatch, made)
    with pytest.raises(
        gr.GradringError, match=r"the model has changed .*: it read its fields as int64, int64 and now reads "
    ):
        made.fit((ids, y), batch_size=3, callbacks=[Change()], verbose=False)
    layer.whole = True
    made.fit((ids, y), batch_size=3, verbose=False)
