"""Ops of the registry in graphs: the schema of an op is all that a graph needs to run it and to differentiate it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradring import Loader, Trainer, _core, losses, nn, optim
from gradring.graph import check, layer_ops, train_graph
from gradring.graph.plan import plan
from gradring.graph.schema import dense_strides, schema_of
from gradring.ir import GIVEN, STEP, Builder, Graph, Node
from gradring.session import Session
from graph.reference import slopes

RNG = np.random.default_rng()


class Named(nn.Layer):
    """A layer that adds one op to the graph, as a user would: no list knows of it."""

    def __init__(self, op: str, size: int = 0, **attributes: Any) -> None:
        self.op, self.size, self.attributes = op, size, attributes

    def parameter_specs(self) -> dict[str, nn.ParameterSpec]:
        def fill(generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
            return generator.normal(size=shape)

        return {name: nn.ParameterSpec((self.size,), fill) for name in ("weight", "bias")} if self.size else {}

    def trace(self, tracer: Builder, x: str) -> str:
        inputs = {name: tracer.parameter(name, spec.shape) for name, spec in self.parameter_specs().items()}
        return tracer.node(self.op, {"x": x, **inputs}, tracer.shape(x), self.attributes)


CASES = {
    "layer_norm": (nn.Linear(9, 6), Named("layer_norm", 6, eps=1e-3), nn.GELU(), nn.Linear(6, 4)),
    "layer_norm first": (Named("layer_norm", 9), nn.Linear(9, 4)),
    "layer_norm last": (nn.Linear(9, 4), Named("layer_norm", 4)),
    "layer_norm in residual": (nn.Linear(9, 6), nn.Residual(Named("layer_norm", 6), nn.Linear(6, 6)), nn.Linear(6, 4)),
    "softmax": (nn.Linear(9, 6), Named("softmax"), nn.Linear(6, 4)),
    "log_softmax": (nn.Linear(9, 4), Named("softmax", logarithm=True)),
}


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1e9}, {"accumulate": 2}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_an_op_needs_no_more_than_its_schema(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADRING_CHECK", "1")
    model = nn.Sequential(*CASES[name])
    model.init(int(RNG.integers(1000)), "float64")
    x, y = RNG.normal(size=(7, 9)), RNG.integers(0, 4, 7)
    session = Session(model, optimizer=optim.SGD(0.0), dtype="float64", **options)
    grads = session.grads
    for _ in range(options.get("accumulate", 1)):
        session.step(x, y)
    for key, grad in grads.items():
        picks = RNG.integers(0, grad.size, min(grad.size, 12))
        expected = slopes(lambda: session.evaluate((x, y))["loss"], session.params[key], picks)
        scale = options.get("accumulate", 1) * (7 if "accumulate" in options else 1)  # sums, not means
        np.testing.assert_allclose(grad.reshape(-1)[picks] / scale, expected, rtol=1e-5, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("threads", [1, 2])
def test_it_trains_by_fused_updates_too(threads: int) -> None:
    model = nn.Sequential(*CASES["layer_norm"])
    model.init(3)
    session = Session(model, optimizer=optim.AdamW(1e-2), threads=threads)
    x, y = np.random.default_rng(1).normal(size=(40, 9)).astype(np.float32), np.arange(40) % 4
    losses = [session.step(x, y) for _ in range(200)]
    assert losses[-1] < 0.7 * losses[0]
    ops = [instruction.op for instruction in session.plan(40).instructions]
    assert {"layer_norm", "layer_norm_vjp", "linear_dw_adam"} <= set(ops)


def wrong(op: str, roles: dict[str, Any], attributes: dict[str, Any] | None = None) -> nn.Layer:
    class Wrong(nn.Layer):
        def trace(self, tracer: Builder, x: str) -> str:
            inputs = {role: x if value is None else value for role, value in roles.items()}
            return tracer.node(op, inputs, tracer.shape(x), attributes)

        def __repr__(self) -> str:
            return "Wrong()"

    return Wrong()


BAD = {
    "an unknown op": (
        wrong("nonsense", {"x": None}),
        r"1\.Wrong.*no (such )?op.*nonsense|nonsense.*1\.Wrong.*no such op",
    ),
    "an unknown operand": (wrong("softmax", {"z": None}), r"softmax.*1\.Wrong.*z.*'x'"),
    "a missing operand": (wrong("softmax", {}), r"1\.Wrong.*x(: absent| is missing)"),
    "a shape that does not fit": (
        wrong("layer_norm", {"x": None, "weight": "0.weight"}),
        r"layer_norm, 1.Wrong.*weight",
    ),
    "an unknown attribute": (wrong("softmax", {"x": None}, {"axis": 1}), "1.Wrong.*(no attribute axis|axis)"),
    "an attribute under another library's name": (
        wrong("layer_norm", {"x": None}, {"epsilon": 1e-5}),
        r"layer_norm, 1.Wrong.*attribute 'epsilon': expected one of \('eps',\)",
    ),
    "an attribute of another type": (
        wrong("layer_norm", {"x": None}, {"eps": "small"}),
        r"layer_norm, 1.Wrong.*: eps is a str: must be a number",
    ),
    "an attribute out of range": (
        wrong("layer_norm", {"x": None}, {"eps": -1.0}),
        r"layer_norm, 1.Wrong.*: eps.*at least 0",
    ),
    "an unknown choice": (
        wrong("activation", {"x": None}, {"activation": "step"}),
        r"activation, 1.Wrong.*: activation",
    ),
}


@pytest.mark.parametrize("checked", ["0", "1"])
@pytest.mark.parametrize("name", BAD)
def test_a_graph_that_a_layer_builds_wrongly_names_layer_op_and_operand(
    name: str, checked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADRING_CHECK", checked)
    layer, message = BAD[name]
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=f"(?s){message}"):
        nn.Sequential(nn.Linear(4, 3), layer)(np.ones((2, 4), np.float32))


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_a_graph_that_does_not_train_has_no_node_that_trains(mode: str) -> None:
    graph = train_graph(nn.Linear(4, 3), (5, 4), losses.CrossEntropy(), optimizer=optim.SGD(0.1))
    check(graph)
    with pytest.raises(
        ValueError, match=rf"\[graph\] node \d+ \(.*phase: expected none that trains, in the mode '{mode}'"
    ):
        check(replace(graph, mode=mode))


def trace_of(build: Callable[[Builder, str], Any]) -> nn.Layer:
    class Wrong(nn.Layer):
        def parameter_specs(self) -> dict[str, nn.ParameterSpec]:
            return {"own": nn.ParameterSpec((3, 4), lambda generator, shape: generator.normal(size=shape))}

        def trace(self, tracer: Builder, x: str) -> str:
            made: str = build(tracer, x)
            return made

        def __repr__(self) -> str:
            return "Wrong()"

    return Wrong()


def softmax(tracer: Builder, x: Any, shape: Any = None, **options: Any) -> str:
    return tracer.node("softmax", {"x": x}, (2, 3) if shape is None else shape, **options)


# What a layer asks of its tracer, and what the error says beside the layer's name.
UNSOUND: dict[str, tuple[Callable[[Builder, str], Any], str]] = {
    "an op of arrays alone": (lambda t, x: t.node("sgd_update", {"param": x}, (2, 3)), "sgd_update.*no such op"),
    "an op of another phase": (
        lambda t, x: t.node("mse", {"x": x, "target": x}, (2, 3)),
        "mse.*phase: expected one of .'loss',., got forward",
    ),
    "an op that is no name": (lambda t, x: t.node(3, {"x": x}, (2, 3)), "expected the name of an op, got int 3"),
    "a value that no node made": (lambda t, x: softmax(t, "nobody"), "softmax: operand x: .* made before, got 'nobody'"),
    "a value that is made later": (lambda t, x: softmax(t, "1.out.1"), "softmax: operand x: .* made before"),
    "an operand that is no name": (lambda t, x: softmax(t, 3), "softmax: operand x: expected the name .*, got int 3"),
    "an operand that is an array": (lambda t, x: softmax(t, np.ones(3)), "softmax: operand x: .* got ndarray"),
    "operands that are no dict": (
        lambda t, x: t.node("softmax", [x], (2, 3)),
        "softmax: expected the operands as a dict",
    ),
    "a field of the step record": (lambda t, x: softmax(t, t.draw()), "softmax.*operand x.*expected an array"),
    "an output of another shape": (lambda t, x: softmax(t, x, (7, 7)), r"softmax.*x is \(2, 3\), y is \(7, 7\)"),
    "a negative extent": (lambda t, x: softmax(t, x, (-1, 3)), r"softmax: shape of the output: .* got tuple \(-1, 3\)"),
    "an extent that is no int": (lambda t, x: softmax(t, x, (2.0, 3)), r"shape of the output: .* got tuple \(2.0, 3\)"),
    "a shape that is none": (lambda t, x: softmax(t, x, 3), "shape of the output: .* got int 3"),
    "another dtype": (lambda t, x: softmax(t, x, dtype="int64"), "softmax.*x is float32, y is int64"),
    "no dtype": (lambda t, x: softmax(t, x, dtype="float33"), "softmax: dtype of the output: .*got str 'float33'"),
    "shapes that differ": (
        lambda t, x: t.node("add", {"a": x, "b": t.view(x, (3, 2))}, (2, 3)),
        r"add.*a is \(2, 3\), b is \(3, 2\)",
    ),
    "a view that is too large": (lambda t, x: t.view(x, (9, 9)), "view: '0.out' is .* at most 6 elements, got"),
    "a view of nothing": (lambda t, x: t.view("nobody", (2, 2)), "view: .* made before, got 'nobody'"),
    "the shape of nothing": (lambda t, x: t.shape("nobody"), "shape: .* made before, got 'nobody'"),
    "attributes that are no dict": (lambda t, x: softmax(t, x, attributes=["axis"]), "softmax: .*attributes as a dict"),
    "an attribute that is NaN": (
        lambda t, x: t.node("layer_norm", {"x": x}, (2, 3), {"eps": float("nan")}),
        "layer_norm.*eps is nan: must be finite and at least 0",
    ),
    "a parameter that the layer does not have": (lambda t, x: t.parameter("w", (3,)), "reads parameter '1.w'"),
    "a parameter of fewer elements": (lambda t, x: t.parameter("own", (3,)), r"parameter '1.own' is \(3, 4\): .* got \(3,\)"),
    "a parameter of more elements": (lambda t, x: t.parameter("own", (9, 9)), r"'1.own' is \(3, 4\): .* got \(9, 9\)"),
    "a parameter of another shape": (lambda t, x: t.parameter("own", (4, 3)), r"'1.own' is \(3, 4\): .* got \(4, 3\)"),
    "a parameter of two shapes": (
        lambda t, x: t.parameter("own", (3, 4)) and t.parameter("own", (12,)),
        r"'1.own' is \(3, 4\): .* got \(12,\)",
    ),
    "a parameter of no shape": (lambda t, x: t.parameter("own", 3), "parameter '1.own': expected a tuple .* got int 3"),
    "constants that are texts": (lambda t, x: t.constant("c", ["a"]), r"constant '1.c': expected numbers .* got list"),
    "constants that are none": (lambda t, x: t.constant("c", None), "constant '1.c': .* got NoneType"),
    "further outputs that are no dict": (lambda t, x: softmax(t, x, also=["z"]), "further outputs as a dict, got list"),
    "a further output that is a shape": (lambda t, x: softmax(t, x, also={"z": (2, 3)}), "output z: .* got tuple"),
    "fewer rows than the batch": (lambda t, x: softmax(t, t.view(x, (1, 3)), (1, 3)), r"is \(1, 3\) of .*\(2, \.\.\.\)"),
    "more rows than the batch": (lambda t, x: t.view(x, (3, 2)), r"output is \(3, 2\) of float32: expected \(2, \.\.\.\)"),
    "the rows of a parameter": (lambda t, x: t.parameter("own", (3, 4)), r"output is \(3, 4\) of float32: expected \(2,"),
    "an output without rows": (lambda t, x: t.draw(), r"the model's output is \(\) of int64"),
    "an output of 8 bytes": (
        lambda t, x: t.node("cast", {"x": x}, (2, 3), {"dtype": "int64"}, dtype="int64"),
        r"output is \(2, 3\) of int64: expected \(2, \.\.\.\) of float32",
    ),
    "an output of 2 bytes": (
        lambda t, x: t.node("cast", {"x": x}, (2, 3), {"dtype": "float16"}, dtype="float16"),
        r"output is \(2, 3\) of float16: expected \(2, \.\.\.\) of float32",
    ),
    "dropout that draws the same numbers in every step": (
        lambda t, x: t.node("dropout", {"x": x}, (2, 3), {"p": 0.5}),
        r"dropout.*operand draw: absent: expected tracer.draw\(\)",
    ),
    "a check by an op that makes something": (lambda t, x: t.check("softmax", {"x": x}) or x, "softmax.*effects"),
    "no output": (lambda t, x: None, "what trace returns: .* got NoneType"),
    "an output that is an array": (lambda t, x: np.ones(3), "what trace returns: .* got ndarray"),
    "an output that no node made": (lambda t, x: "nobody", "what trace returns: .* got 'nobody'"),
}
X, Y = np.ones((2, 4), np.float32), np.zeros(2, np.int64)
# One way to each of the native loops; all of them plan by the same passes.
WAYS: list[Callable[[nn.Layer], object]] = [
    lambda model: model(X),
    lambda model: Trainer(model).step(X, Y),
    lambda model: Trainer(model, accumulate=2).fit(Loader((X, Y), 2), verbose=False),
    lambda model: Trainer(model).evaluate((X, Y)),
]


@pytest.mark.parametrize("way", range(len(WAYS)), ids=["call", "step", "loader", "evaluate"])
@pytest.mark.parametrize("name", UNSOUND)
def test_what_a_layer_asks_wrongly_is_named_before_anything_runs(name: str, way: int) -> None:
    build, message = UNSOUND[name]
    model = nn.Sequential(nn.Linear(4, 3), trace_of(build))
    with pytest.raises((TypeError, ValueError), match=message) as raised:
        WAYS[way](model)
    text = str(raised.value)
    assert text.startswith(("[trace] 1.Wrong()", "[graph] node 1 (")) and "1.Wrong()" in text
    assert text.count("] ") == 1, "one name in brackets, at the beginning"


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda t, x: t.node("nonsense", {"x": x}, (2, 3)), "nonsense: no such op"),
        (lambda t, x: softmax(t, x, (7, 7)), r"softmax: x is \(2, 3\), y is \(7, 7\)"),
        (lambda t, x: softmax(t, x, attributes={"axis": 1}), "softmax: has no attribute axis"),
        (lambda t, x: softmax(t, x, attributes={3: 1}), "softmax: "),
        (lambda t, x: softmax(t, x, (2**70, 3)), "softmax: "),
    ],
)
def test_a_summary_names_the_layer_too(build: Callable[[Builder, str], Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[summary\] 1\.Wrong\(\): {words}"):
        nn.Sequential(nn.Linear(4, 3), trace_of(build)).summary((2, 4))


def test_an_activation_without_its_attribute_is_none() -> None:
    layer = trace_of(lambda t, x: t.node("activation", {"x": x}, t.shape(x)))
    model = nn.Sequential(nn.Linear(4, 3), layer)
    assert np.array_equal(model(X), nn.Sequential(model.layers[0])(X))


def test_the_step_record_is_the_same_in_both_languages() -> None:
    fields = {field["name"]: field for field in _core.step_fields()}
    assert {name: field["dtype"] for name, field in fields.items()} == STEP
    assert {name for name, field in fields.items() if field["given"]} == GIVEN


def test_what_schemas_say_about_programs_is_consistent() -> None:
    for given in _core.ops():
        schema = schema_of(given["name"])
        assert (schema is None) == (not given["phases"])
        if schema is None:
            continue
        for operand in schema.operands.values():
            assert operand.step is None or operand.step in STEP
            assert operand.column_sums_of is None or operand.column_sums_of in schema.outputs
        for epilogue in (schema.epilogue, schema.derivative_epilogue):
            assert epilogue is None or (epilogue.attribute in schema.attributes and epilogue.result in schema.outputs)
        if schema.fuses is not None:
            product, update = map(schema_of, schema.fuses)
            assert product is not None and update is not None
            assert set(product.operands) <= set(schema.operands)
            assert set(update.updates) <= set(schema.updates)
            assert {*update.attributes, *product.attributes} == set(schema.attributes)


def test_a_native_check_knows_what_a_graph_check_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning a mutant of a legal graph, which was not checked, is refused by the native side, or runs inside memory."""
    monkeypatch.setenv("GRADRING_CHECK", "0")
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    graph = train_graph(model, (6, 5), losses.CrossEntropy(), optimizer=optim.SGD(0.1, momentum=0.9), clip_norm=1.0)
    check(graph)
    refused = 0
    for number, node in enumerate(graph.nodes):
        for role in (*node.inputs, *node.outputs):
            fewer = _without(graph, number, node, role)
            schema = schema_of(node.op)
            assert schema is not None
            session = Session(model, optimizer=optim.SGD(0.1, momentum=0.9), clip_norm=1.0)
            if schema.operands[role].optional:
                continue
            with pytest.raises((TypeError, ValueError), match=rf"\[{node.op}\].* {role} is (missing|absent)"):
                session._native.add("train", 6, **plan(fewer, None, mode="train").native())
            refused += 1
    assert refused > 20


def _without(graph: Graph, number: int, node: Node, role: str) -> Graph:
    inputs = {r: n for r, n in node.inputs.items() if r != role}
    outputs = {r: n for r, n in node.outputs.items() if r != role}
    changed = replace(node, inputs=inputs, outputs=outputs, updates=tuple(r for r in node.updates if r != role))
    return graph.with_nodes([*graph.nodes[:number], changed, *graph.nodes[number + 1 :]])


def test_strides_are_those_of_numpy() -> None:
    for shape in ((), (3,), (2, 3, 4), (5, 1, 2)):
        for dtype in ("float32", "float64", "int64"):
            assert dense_strides(shape, dtype) == np.empty(shape, dtype).strides


# Operands and attributes for a layer of (2, 3) inputs, where the op needs more than x.
MADE_WITH = {
    "activation": (("x",), {"activation": "tanh"}),
    "add": (("a", "b"), {}),
    "cast": (("x",), {"dtype": "float32"}),
}


@pytest.mark.parametrize("op", ["activation", "add", "cast", "dropout", "layer_norm", "rms_norm", "softmax"])
def test_a_layer_may_add_the_ops_that_are_said_to_be_its(op):
    assert op in layer_ops()
    roles, attributes = MADE_WITH.get(op, (("x",), {}))

    class One(nn.Layer):
        def trace(self, tracer, x):
            inputs = dict.fromkeys(roles, x)
            if op == "dropout":
                inputs["draw"] = tracer.draw()
            return tracer.node(op, inputs, tracer.shape(x), attributes)

    model = nn.Sequential(nn.Linear(3, 3), One(), nn.Linear(3, 2))
    made = Trainer(model, loss="mse", optimizer=optim.SGD(0.1))
    assert np.isfinite(made.step(np.ones((2, 3), "f4"), np.ones((2, 2), "f4")))


@pytest.mark.parametrize("op", ["matmul", "copy", "cross_entropy", "sgd", "check_ids", "function", "linear_dx"])
def test_other_ops_are_not_said_to_be_a_layers(op):
    assert op not in layer_ops()
