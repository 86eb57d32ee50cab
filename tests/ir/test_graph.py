"""Questions that passes ask of a graph, against one answer for each element."""

import numpy as np
import pytest

from gradring.ir import Graph, Node, Value

SIZE = 24


def random_graph(rng):
    """Nodes that write and update random views, of views too, of three roots."""
    graph = Graph()
    names = []
    for root in ("a", "b", "c"):
        graph = graph.with_value(Value(root, (SIZE,), "grad"))
        names.append(root)
    for number in range(12):
        of = graph.values[names[int(rng.integers(len(names)))]]
        begin = int(rng.integers(of.size)) if of.size else 0
        size = int(rng.integers(of.size - begin + 1))
        graph = graph.with_value(Value(f"v{number}", (size,), "grad", within=of.name, offset=begin))
        names.append(f"v{number}")
    for _ in range(int(rng.integers(10))):
        chosen = [names[int(i)] for i in rng.integers(0, len(names), 3)]
        updates = ("sum",) if rng.integers(2) else ()
        graph = graph.with_node(Node("op", {"x": chosen[0], "sum": chosen[1]}, {"y": chosen[2]}, updates=updates))
    return graph


def elements_of(graph, name):
    """The elements of a value, by walking from view to view."""
    value, inside = graph.values[name], np.arange(graph.values[name].size)
    while value.within is not None:
        inside = inside + value.offset
        value = graph.values[value.within]
    return value.name, set(inside.tolist())


@pytest.mark.parametrize("seed", range(40))
def test_the_last_writer_of_a_range_is_who_wrote_any_of_its_elements_last(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    written = {}  # element -> the nodes that wrote it, in order
    for number, node in enumerate(graph.nodes):
        for _, name in node.written():
            root, inside = elements_of(graph, name)
            for element in inside:
                written.setdefault((root, element), []).append(number)
    for root in ("a", "b", "c"):
        for _ in range(20):
            begin, end = sorted(int(n) for n in rng.integers(0, SIZE + 1, 2))
            numbers = sorted({n for e in range(begin, end) for n in written.get((root, e), [])})
            assert [graph.nodes[n] for n in numbers] == list(graph.writers(root, begin, end))
            last = graph.last_writer(root, begin, end)
            assert last is (graph.nodes[numbers[-1]] if numbers else None)


def test_a_bucket_is_complete_when_its_last_writer_has_run():
    graph = Graph().with_value(Value("gradients", (32,), "grad"))
    for number in range(4):
        graph = graph.with_value(Value(f"d{number}", (8,), "grad", within="gradients", offset=8 * number))
    order = (3, 1, 2, 0, 1)  # the second parameter is used twice
    for number in order:
        graph = graph.with_node(Node(f"op {number}", {}, {"dx": f"d{number}"}))
    assert graph.last_writer("gradients", 0, 8) is graph.nodes[3]
    assert graph.last_writer("gradients", 16, 32) is graph.nodes[2]
    assert graph.last_writer("gradients", 0, 32) is graph.nodes[4]
    assert graph.last_writer("gradients", 15, 17) is graph.nodes[4]
    assert graph.last_writer("gradients", 4, 4) is None
