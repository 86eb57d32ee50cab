from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradring import losses, nn, optim
from gradring.graph import predict_graph, train_graph
from gradring.graph.plan import place, plan
from gradring.graph.schema import schema_of
from gradring.ir import Layout, memory_of

BLOCKS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12), st.integers(0, 12)), max_size=20)


def test_what_has_mappings_says_that_it_has_no_hash():
    loss = losses.CrossEntropy()
    graph = train_graph(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (5, 3), loss, optimizer=optim.SGD(0.1))
    first, again = plan(graph, None, mode="train"), plan(graph, None, mode="train")
    assert first == again
    things = (first, first.instructions[0], graph, graph.nodes[0], memory_of(graph), Layout.of({"a": (3,)}), schema_of("sgd"))
    for thing in things:
        assert not isinstance(thing, Hashable)
        with pytest.raises(TypeError, match=f"unhashable type: '{type(thing).__name__}'"):
            hash(thing)


@given(BLOCKS)
def test_blocks_alive_together_do_not_overlap(blocks):
    sizes = {str(i): 64 * size for i, (size, _, _) in enumerate(blocks)}
    alive = {str(i): (min(a, b), max(a, b)) for i, (_, a, b) in enumerate(blocks)}
    offsets, total = place(sizes, alive)
    for a in sizes:
        assert offsets[a] % 64 == 0
        assert offsets[a] + sizes[a] <= total
        for b in sizes:
            together = alive[a][0] <= alive[b][1] and alive[b][0] <= alive[a][1]
            apart = offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]
            assert a == b or not together or apart or sizes[a] == 0 or sizes[b] == 0
    # Never more than without sharing, never less than what is alive at once.
    assert total <= sum(sizes.values())
    for step in range(13):
        assert total >= sum(sizes[n] for n in sizes if alive[n][0] <= step <= alive[n][1])


def test_a_deep_network_shares_two_places():
    layers = [layer for _ in range(20) for layer in (nn.Linear(64, 64), nn.ReLU())]
    graph, output = predict_graph(nn.Sequential(*layers), (16, 64))
    made = plan(graph, output, mode="predict")
    assert made.temp_bytes == 2 * 16 * 64 * 4
    assert made.flops == 20 * (2 * 16 * 64 * 64 + 16 * 64)
    assert [b.kind for b in made.buffers].count("output") == 1


def test_a_plan_prints_operands_and_attributes_by_name():
    graph, output = predict_graph(nn.Sequential(nn.Linear(8, 4), nn.Tanh()), (2, 8), dtype="float64")
    text = str(plan(graph, output, mode="predict"))
    assert "linear tanh" in text
    assert "x=x (2, 8), w=0.weight (8, 4), b=0.bias (4,) -> y=1.out (2, 4)" in text


def step_plan(width: int = 4, layer: nn.Layer | None = None):
    model = nn.Sequential(nn.Linear(8, width), *([layer] if layer else []), nn.Linear(width, 3))
    graph = train_graph(model, (5, 8), losses.CrossEntropy(), optimizer=optim.Adam(), clip_norm=1.0)
    return plan(graph, None, mode="train")


def test_plans_are_data_that_can_be_compared():
    assert step_plan() == step_plan()
    assert step_plan() != step_plan(5)
    assert replace(step_plan(), barriers=(True,), lanes=2) == step_plan()
    function = nn.Function(lambda x: x, lambda dy, x, y: dy)
    assert step_plan(layer=function) == step_plan(layer=function)
    assert step_plan(layer=function) != step_plan(layer=nn.Function(lambda x: x, lambda dy, x, y: dy))


def test_a_resource_is_an_entry_of_the_table():
    made = step_plan(layer=nn.Function(lambda x: x, lambda dy, x, y: dy))
    assert [(r.op, r.shapes) for r in made.resources] == [("function", ((5, 4),) * 2), ("function_vjp", ((5, 4),) * 4)]
    calls = [i for i in made.instructions if i.op.startswith("function")]
    assert [i.attributes["function"] for i in calls] == [0, 1]


def test_no_address_is_in_a_plan():
    made = step_plan(layer=nn.Function(lambda x: x, lambda dy, x, y: dy))
    numbers = [v for i in made.instructions for v in i.attributes.values() if isinstance(v, int)]
    assert all(-1 <= n < 2**20 for n in numbers)


def test_what_a_plan_names_is_what_the_schemas_name():
    for instruction in step_plan().instructions:
        schema = schema_of(instruction.op)
        assert schema is not None
        assert set(instruction.operands) <= set(schema.operands)
        assert set(instruction.attributes) <= set(schema.attributes)
        required = {name for name, operand in schema.operands.items() if not operand.optional}
        assert required <= set(instruction.operands)
