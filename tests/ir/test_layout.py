"""Where parameters and buffers lie in the flat arena."""

import math

import numpy as np
import pytest

from gradring.ir import Input, Layout, trace
from gradring.ir.layout import GRAIN
from gradring.nn import BatchNorm1d, Linear, Sequential


@pytest.mark.parametrize("seed", range(5))
def test_parameters_lie_apart_in_order_and_on_cache_lines(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        f"p{i}": tuple(int(n) for n in rng.integers(1, 40, rng.integers(0, 4))) for i in range(rng.integers(1, 12))
    }
    layout = Layout.of(shapes, shapes)
    ends = 0
    for name, shape in shapes.items():
        assert layout.offsets[name] % GRAIN == 0
        assert ends <= layout.offsets[name] < ends + GRAIN
        ends = layout.offsets[name] + math.prod(shape)
    assert ends <= layout.elements < ends + GRAIN
    assert layout.buffers.offsets == layout.offsets
    assert layout.whole == 2 * layout.elements


def test_a_traced_graph_places_parameters_and_buffers_as_the_layout_says():
    model = Sequential(Linear(5, 3), BatchNorm1d(3))
    parameters = {name: tuple(spec.shape) for name, spec in model.named_parameters().items()}
    buffers = {name: tuple(spec.shape) for name, spec in model.named_buffers().items()}
    layout = Layout.of(parameters, buffers)
    graph, output = trace(model, (7, 5), training=True)
    assert graph.values[output].shape == (7, 3)
    for name in parameters:
        assert (graph.values[name].within, graph.values[name].offset) == ("parameters", layout.offsets[name])
    for name in buffers:
        assert (graph.values[name].within, graph.values[name].offset) == ("buffers", layout.buffers.offsets[name])


def test_inputs_that_the_model_does_not_have_are_named():
    with pytest.raises(ValueError, match=r"\[trace\] .* has the inputs \['x'\], got \['z'\]"):
        trace(Linear(5, 3), {"z": Input((7, 5))}, training=False)
    with pytest.raises(ValueError, match=r"\[trace\] input shape is \(0, 5\): every axis must be at least 1"):
        trace(Linear(5, 3), (0, 5), training=False)
