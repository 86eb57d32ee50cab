from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gradring import nn
from gradring.graph import predict_graph
from gradring.graph.plan import place, plan

BLOCKS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12), st.integers(0, 12)), max_size=20)


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
    assert made.flops == 20 * 2 * 16 * 64 * 64
    assert [b[0] for b in made.buffers].count("output") == 1


def test_a_plan_prints_its_instructions():
    graph, output = predict_graph(nn.Sequential(nn.Linear(8, 4), nn.Tanh()), (2, 8), dtype="float64")
    text = str(plan(graph, output, mode="predict"))
    assert "matmul x w[bias][tanh]" in text
    assert "2x4x8" in text
    assert "0.weight" in text
