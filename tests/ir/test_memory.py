"""What a graph says about the memory that outlives a step."""

import pytest

from gradring.ir import Graph, Layout, Value, memory_of, parameters_graph


def test_parameters_and_buffers_share_an_arena_and_lie_as_the_layout_says():
    layout = Layout.of({"a": (3, 5), "b": (7,)}, {"mean": (4,)})
    memory = memory_of(parameters_graph(layout, "float64"))
    assert {name: (arena.kind, arena.bytes) for name, arena in memory.arenas.items()} == {
        "parameters": ("param", 8 * layout.whole)
    }
    for name in ("a", "b"):
        place = memory.places[name]
        assert (place.offset, place.shape, place.dtype) == (8 * layout.offsets[name], layout.shapes[name], "float64")
    assert memory.places["mean"].offset == 8 * layout.elements


def test_roots_of_several_dtypes_may_lie_in_arenas_of_their_own():
    graph = Graph().with_value(Value("weights", (100,), "param", "bfloat16"))
    graph = graph.with_value(Value("masters", (100,), "param", "float32", arena="masters"))
    graph = graph.with_value(Value("gradients", (100,), "grad", "bfloat16", arena="plane 0"))
    graph = graph.with_value(Value("others", (100,), "grad", "bfloat16", arena="plane 1", offset=28))
    graph = graph.with_value(Value("d(w)", (10,), "grad", "bfloat16", within="others", offset=50))
    graph = graph.with_value(Value("x", (5,), "temp"))
    memory = memory_of(graph)
    assert {name: (arena.kind, arena.bytes) for name, arena in memory.arenas.items()} == {
        "parameters": ("param", 200),
        "masters": ("param", 400),
        "plane 0": ("grad", 200),
        "plane 1": ("grad", 256),
    }
    assert (memory.places["d(w)"].arena, memory.places["d(w)"].offset) == ("plane 1", 2 * 78)
    assert "x" not in memory.places


def test_an_arena_has_one_kind():
    graph = Graph().with_value(Value("weights", (4,), "param"))
    graph = graph.with_value(Value("gradients", (4,), "grad", arena="parameters"))
    with pytest.raises(ValueError, match=r"'gradients': arena: expected one of kind grad, got 'parameters' of param"):
        memory_of(graph)
