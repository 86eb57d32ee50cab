"""Graphs and passes, read without running anything."""

from __future__ import annotations

import pytest

from gradring import losses, nn, optim
from gradring.graph import (
    accumulated,
    differentiate,
    evaluate_graph,
    fuse_activations,
    fuse_backward,
    predict_graph,
    trace,
    with_loss,
)


def backward_of(model: nn.Layer, shape: tuple[int, ...], fuse: bool = True):
    graph, output = trace(model, shape, training=True)
    if fuse:
        graph = fuse_activations(graph, output, training=True)
    graph = differentiate(with_loss(graph, output, losses.CrossEntropy(), gradient=True), output)
    return fuse_backward(graph) if fuse else graph


MLP = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3))


def test_trace():
    graph, output = trace(MLP, (5, 8), training=True)
    assert output == "2.out"
    assert str(graph) == (
        "0.out (5, 6) = linear(x=x, w=0.weight, b=0.bias)\n"
        "1.out (5, 6) = activation(x=0.out, activation='gelu')\n"
        "2.out (5, 3) = linear(x=1.out, w=2.weight, b=2.bias)"
    )


def test_fused_step():
    ops = [node.op for node in backward_of(MLP, (5, 8)).nodes]
    assert ops == ["linear", "linear", "cross_entropy", "check_step", "linear_dx", "linear_dw", "linear_dw"]


def test_unfused_step():
    ops = [node.op for node in backward_of(MLP, (5, 8), fuse=False).nodes]
    assert ops.count("column_sums") == 2
    assert ops.count("activation_vjp") == 1
    # The input needs no gradient.
    assert ops.count("linear_dx") == 1


def test_gelu_keeps_its_input_in_training_alone():
    graph = backward_of(MLP, (5, 8))
    first = graph.nodes[0]
    assert first.attributes["activation"] == "gelu"
    assert first.outputs["pre"] == "0.out"
    dx = next(node for node in graph.nodes if node.op == "linear_dx")
    assert dx.inputs["source"] == "0.out"
    assert dx.outputs["column_sums"] == "d(0.bias)"
    assert "pre" not in predict_graph(MLP, (5, 8))[0].nodes[0].outputs


def test_exact_gelu_is_an_op_of_its_own():
    model = nn.Sequential(nn.Linear(8, 6), nn.GELU("none"), nn.Linear(6, 3))
    exact = {"activation": "gelu", "approximate": "none"}
    graph = backward_of(model, (5, 8))
    own = [node for node in graph.nodes if node.op in ("activation", "activation_vjp")]
    assert [(node.op, dict(node.attributes)) for node in own] == [("activation", exact), ("activation_vjp", exact)]
    assert all("activation" not in node.attributes for node in graph.nodes if node not in own)
    assert [node.op for node in predict_graph(model, (5, 8))[0].nodes] == ["linear", "activation", "linear"]


def test_relu_needs_no_input():
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    graph = backward_of(model, (5, 8))
    assert "0.out" not in graph.values
    assert next(node for node in graph.nodes if node.op == "linear_dx").inputs["source"] == "1.out"


def test_an_output_that_two_read_is_not_fused_away():
    model = nn.Sequential(nn.Linear(8, 8), nn.Residual(nn.ReLU()), nn.Linear(8, 3))
    graph, output = trace(model, (5, 8), training=True)
    fused = fuse_activations(graph, output, training=True)
    assert [node.op for node in fused.nodes] == ["linear", "activation", "add", "linear"]


def test_dropout_is_for_training_alone():
    model = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    assert [node.op for node in evaluate_graph(model, (5, 8), losses.CrossEntropy()).nodes] == [
        "linear",
        "linear",
        "cross_entropy",
        "check_step",
    ]
    training = backward_of(model, (5, 8))
    assert sum(node.op == "dropout" for node in training.nodes) == 2


def test_nothing_is_differentiated_below_the_first_parameter():
    model = nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    ops = [node.op for node in backward_of(model, (5, 2, 4)).nodes]
    assert "activation_vjp" not in ops
    assert "linear_dx" not in ops


def test_accumulation_copies_each_gradient_first_and_adds_it_later():
    more = accumulated(backward_of(MLP, (5, 8)))
    wanted = {f"d({name})" for name in MLP.named_parameters()}
    copies = [node for node in more.nodes if node.op == "copy"]
    sums = [node for node in more.nodes if node.op == "accumulate"]
    assert {node.outputs["y"] for node in copies} == {node.inputs["sum"] for node in sums} == wanted
    assert {node.when for node in copies} == {"first"}
    assert {node.when for node in sums} == {"later"}
    assert all(more.values[node.inputs["gradient"]].kind == "temp" for node in sums)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (
            nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(128, 10)),
            (64, 784),
            r"layer 2, Linear\(128, 10\) needs \(batch, ..., 128\), but layer 1, ReLU\(\) gives \(64, 256\)",
        ),
        (nn.Sequential(nn.Linear(784, 256)), (64, 28, 28), r"but the input gives \(64, 28, 28\)"),
        (nn.Sequential(nn.Residual(nn.Linear(4, 5))), (2, 4), r"the shapes must be equal"),
        (nn.Linear(4, 2), (0, 4), "at least 1"),
    ],
)
def test_layers_that_do_not_fit(model, shape, message):
    with pytest.raises(ValueError, match=message):
        trace(model, shape, training=True)


def test_cross_entropy_wants_classes():
    graph, output = trace(nn.Linear(4, 2), (3, 5, 4), training=True)
    with pytest.raises(ValueError, match=r"\(batch, classes\)"):
        with_loss(graph, output, losses.CrossEntropy(), gradient=True)


def test_the_update_comes_last():
    from gradring.graph import train_graph

    graph = train_graph(MLP, (5, 8), losses.CrossEntropy(), optimizer=optim.Adam(1e-3), clip_norm=1.0, accumulate=True)
    assert [node.op for node in graph.nodes][-3:] == ["sum_of_squares", "clip", "adam"]
