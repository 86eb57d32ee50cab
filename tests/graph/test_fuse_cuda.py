"""Fusion for CUDA devices: fewer nodes, the same bits, and a graph that the checker accepts. The CPU runs these programs,
too."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

import gradring as gr
from fused import MODELS, OPTIONS, as_on_a_device, trained
from gradring import losses, nn, optim
from gradring.graph import check, fuse_cuda
from gradring.graph.fuse_cuda import fuse_for_cuda
from gradring.graph.passes import evaluate_graph, predict_graph, train_graph
from gradring.ir import NARROW

CASES = [
    pytest.param(model, options, dtype, id=f"{model}-{name}-{dtype}")
    for model in MODELS
    for name, options in OPTIONS.items()
    for dtype in ("float32", *NARROW)
    if dtype != "float32" or "accumulate" in options
]


def step(made, operands="bfloat16", rows=32, columns=40, **options):
    options.setdefault("optimizer", optim.AdamW(1e-3))
    return train_graph(made, (rows, columns), losses.CrossEntropy(), on_cpu=False, operands=operands, **options)


def counts(graph):
    return Counter(node.op for node in graph.nodes)


def mlp(*sizes, activation=nn.ReLU):
    layers = [layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), activation())]
    return nn.Sequential(*layers[:-1])


@pytest.mark.cpu("the CPU runs the programs of a device")
@pytest.mark.parametrize(("model", "options", "dtype"), CASES)
def test_the_bits_of_a_training_stay(model, options, dtype, monkeypatch):
    monkeypatch.setenv("GRADRING_CHECK", "1")
    bits, graphs = {}, {}
    for on in (False, True):
        with as_on_a_device(on):
            bits[on], graphs[on] = trained(model, dtype=dtype, **options)
    assert bits[True] == bits[False]
    assert len(graphs[True].nodes) < len(graphs[False].nodes)


@pytest.mark.parametrize("operands", NARROW)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh])
def test_the_launches_of_a_step_are_counted(activation, operands):
    graph = step(mlp(40, 64, 64, 48, 10, activation=activation), operands)
    check(graph)
    # Without fusion, there are casts of four weights, four inputs of products and four gradients. All weights together, the
    # batch, and the gradient of the output stay. The derivative of tanh reads the output of the activation in float32.
    kept = 3 if activation is nn.Tanh else 0
    assert counts(graph)["cast"] == 3 + kept
    made = [name for node in graph.nodes if node.op != "cast" for name in node.outputs.values()]
    assert sum(graph.values[name].dtype in NARROW for name in made) == 6 - kept
    with_relu = [node for node in graph.nodes if node.attributes.get("activation") == "relu"]
    assert all("pre" in node.outputs for node in with_relu if node.op == "linear")


def test_one_launch_adds_up_the_gradients_between_which_nothing_lies():
    graph = step(mlp(40, 64, 64, 48, 10), None, accumulate=True)
    check(graph)
    assert counts(graph)["copy"] == counts(graph)["accumulate"] == 1
    # Behind 33 and 10 elements lies padding, which would not be zero in memory of one micro-batch.
    graph = step(mlp(40, 64, 33, 48, 10), None, accumulate=True)
    check(graph)
    assert counts(graph)["copy"] == counts(graph)["accumulate"] == 2
    graph = step(mlp(40, 64, 64, 48, 10), None, accumulate=True, frozen=["2.weight"])
    check(graph)
    assert counts(graph)["copy"] == counts(graph)["accumulate"] == 1  # gradients lie without gaps, too


def test_evaluation_and_prediction_have_one_cast_of_weights_and_one_of_the_batch():
    made = mlp(40, 64, 64, 48, 10)
    for activation in (nn.ReLU, nn.Tanh):  # no derivative reads anything
        made = mlp(40, 64, 64, 48, 10, activation=activation)
        evaluation = evaluate_graph(made, (5, 40), losses.CrossEntropy(), operands="float16", on_cpu=False)
        prediction, output = predict_graph(made, (5, 40), operands="float16", on_cpu=False)
        for graph in (evaluation, prediction):
            check(graph)
            assert counts(graph)["cast"] == 2 and counts(graph)["linear"] == 4
        assert prediction.values[output].dtype == "float32"


def test_large_matrices_and_far_ones_are_cast_apart(monkeypatch):
    made = mlp(40, 64, 64, 48, 10)
    monkeypatch.setattr(fuse_cuda, "MOST_TOGETHER", 40 * 64 + 64 + 64 * 64)
    graph = step(made)
    check(graph)
    places = [graph.place(node.outputs["y"]) for node in graph.nodes if node.op == "cast" and node.origin == "mixed precision"]
    assert [end for _, _, end in places] == [40 * 64 + 64 + 64 * 64, 64 * 48 + 48 + 48 * 10]
    monkeypatch.setattr(fuse_cuda, "MOST_BETWEEN", 63)
    graph = step(made)
    check(graph)
    assert counts(graph)["cast"] == 2 + 4 - 1  # 64 elements of a bias part two pairs, and 48 do not


def test_what_products_read_begins_where_16_bytes_can_be_read_at_once():
    graph = step(mlp(40, 65, 33, 49, 10))
    views = [value for value in graph.values.values() if value.dtype in NARROW and value.within is not None]
    assert len(views) == 4 and all(value.offset * 2 % 32 == 0 for value in views)
    assert {graph.values[value.within].dtype for value in views} == {"bfloat16"}


def test_a_result_that_something_else_reads_stays_wide():
    """The sum of a residual reads the output of an activation in float32, and so does a norm."""
    made = nn.Sequential(nn.Linear(40, 16), nn.ReLU(), nn.Residual(nn.Linear(16, 16)), nn.Linear(16, 10))
    graph = step(made)
    check(graph)
    wide = [node for node in graph.nodes if node.op == "linear" and node.attributes.get("activation") == "relu"]
    assert [graph.values[node.outputs["y"]].dtype for node in wide] == ["float32"]


def test_a_product_alone_is_not_rounded_by_the_library():
    made = nn.Sequential(nn.Linear(40, 16), nn.Linear(16, 10))
    graph, output = predict_graph(made, (5, 40), operands="bfloat16", on_cpu=False)
    first = next(node for node in graph.nodes if node.op == "linear")
    assert graph.values[first.outputs["y"]].dtype == "bfloat16"  # with a bias, a kernel of ours rounds
    made = nn.Sequential(nn.Linear(40, 16, bias=False), nn.Linear(16, 10))
    graph, output = predict_graph(made, (5, 40), operands="bfloat16", on_cpu=False)
    first = next(node for node in graph.nodes if node.op == "linear")
    assert graph.values[first.outputs["y"]].dtype == "float32"
    assert fuse_for_cuda(graph, output).nodes == graph.nodes  # nothing is left to fuse


@pytest.mark.cpu("the CPU runs the programs of a device")
def test_numbers_at_the_edges_of_16_bits_keep_their_bits():
    """Results that round to zero, to infinity and to subnormal numbers: relu's derivative must not see the rounding."""
    made = {}
    x = np.random.default_rng(1).standard_normal((64, 37)).astype(np.float32)
    x *= np.float32(10.0) ** np.random.default_rng(2).integers(-9, 5, (64, 1)).astype(np.float32)
    for on in (False, True):
        with as_on_a_device(on):
            model = nn.Sequential(nn.Linear(37, 32, bias=False), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))
            trainer = gr.Trainer(model, loss="mse", optimizer=optim.SGD(1e-12), dtype="float16", nonfinite="ignore", seed=1)
            for part in np.split(x, 8):
                trainer.step(part, np.ones((8, 3), np.float32))
            made[on] = [array.tobytes() for array in trainer.params.values()], trainer.loss_scale
    assert made[True] == made[False]
