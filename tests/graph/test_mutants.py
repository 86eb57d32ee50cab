"""Graphs that were changed mechanically: each mutant is refused by name, or trains to the same bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gradring as gr
from bits.models import RUNS, inputs, numbers
from fused import as_on_a_device
from gradring import nn
from gradring.graph import Graph, check
from gradring.ir import PHASES, WHEN
from gradring.session import graphs as session_graphs

_STEPS = 4


def fused() -> nn.Sequential:
    """A residual sum reads one activation's output in float32, and products alone read the others."""
    first = nn.Linear(19, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(), nn.Residual(nn.Linear(32, 32))
    return nn.Sequential(*first, nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 5))


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(19, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))


# Programs of a CUDA device, which the CPU can run, too.
DEVICE_RUNS: dict[str, Any] = {
    "fused": (fused, 21, 19, 5, "cross_entropy", lambda: gr.optim.AdamW(1e-2), {"dtype": "bfloat16", "accumulate": 2}),
    "fused, scaled": (fused, 21, 19, 5, "cross_entropy", lambda: gr.optim.SGD(1e-2), {"dtype": "float16"}),
    "statistics that wait": (
        *(normed, 21, 19, 5, "cross_entropy", lambda: gr.optim.SGD(1e-2)),
        {"dtype": "float16", "accumulate": 2},
    ),
}


def step_graph(name: str) -> Graph:
    """The graph that a trainer of this model runs."""
    _, graph = trained(name, None)
    return graph


def trained(name: str, mutant: Graph | None) -> tuple[bytes, Graph]:
    """Every bit that some steps leave behind, by the model's own graph or by a mutant of it."""
    make, rows, features, outputs, loss, optimizer, options = (RUNS | DEVICE_RUNS)[name]
    x = inputs(name, rows, 1) if name in RUNS else numbers((rows, features), 1)
    y = np.arange(rows) % outputs if loss == "cross_entropy" else numbers((rows, outputs), 2) > 0
    trainer = gr.Trainer(make(), loss=loss, optimizer=optimizer(), threads=1, **{"seed": 3, **options})
    original = session_graphs.train_graph
    if mutant is not None:
        session_graphs.train_graph = lambda *args, **named: mutant  # type: ignore[assignment]
    try:
        losses = [trainer.step(x, y if loss == "cross_entropy" else y.astype(np.float64)) for _ in range(_STEPS)]
    finally:
        session_graphs.train_graph = original
    state = trainer.state_dict()
    arrays = [array.tobytes() for part in ("params", "optimizer") for array in state[part].values()]
    return np.array(losses).tobytes() + b"".join(arrays), trainer.plan().graph


def swapped(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for i in range(len(graph.nodes) - 1):
        nodes = [*graph.nodes[:i], graph.nodes[i + 1], graph.nodes[i], *graph.nodes[i + 2 :]]
        yield f"nodes {i} and {i + 1} swapped", graph.with_nodes(nodes)


def dropped(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for i, node in enumerate(graph.nodes):
        yield f"node {i} ({node.op}) dropped", graph.with_nodes([*graph.nodes[:i], *graph.nodes[i + 1 :]])


def repeated(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for i, node in enumerate(graph.nodes):
        yield f"node {i} ({node.op}) twice", graph.with_nodes([*graph.nodes[:i], node, *graph.nodes[i:]])


def renamed(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for i, node in enumerate(graph.nodes):
        for field in ("inputs", "outputs"):
            operands = getattr(node, field)
            for role, name in operands.items():
                of = graph.values[name]
                others = [v.name for v in graph.values.values() if v.name != name and v.shape == of.shape]
                for other in ("nobody", *others):
                    changed = replace(node, **{field: {**operands, role: other}})
                    nodes = [*graph.nodes[:i], changed, *graph.nodes[i + 1 :]]
                    yield f"node {i} ({node.op}): {role} is {other!r} for {name!r}", graph.with_nodes(nodes)


def shifted(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for value in graph.values.values():
        if value.within is not None:
            for by in (-16, -1, 1, 16):
                moved = replace(value, offset=value.offset + by)
                yield f"{value.name!r} shifted by {by}", replace(graph, values={**graph.values, value.name: moved})


def retyped(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for value in graph.values.values():
        for dtype in {"float32", "float64", "int64", "bool"} - {value.dtype}:
            changed = replace(value, dtype=dtype)
            yield f"{value.name!r} is {dtype}", replace(graph, values={**graph.values, value.name: changed})


def housed(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for value in graph.values.values():
        for kind in {"input", "param", "buffer", "grad", "state", "temp", "output", "const"} - {value.kind}:
            changed = replace(value, kind=kind)
            yield f"{value.name!r} is {kind}", replace(graph, values={**graph.values, value.name: changed})


def placed(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """The memory of a root, or the field of the batch that it is, changes."""
    roots = [value for value in graph.values.values() if value.within is None and value.kind != "step"]
    for value in roots:
        changes: list[dict[str, Any]] = [{"offset": value.offset + by} for by in (-16, -1, 1, 16)]
        changes += [{"arena": name} for name in ("parameters", "gradients", "state", "temps", "other") if name != value.lies_in]
        changes += [{"data": value.data[1:]}, {"data": tuple(2 * number + 1 for number in value.data)}] if value.data else []
        for change in changes:
            moved = replace(value, **change)
            yield f"{value.name!r}: {change}", replace(graph, values={**graph.values, value.name: moved})
    for first, second in pairwise(sorted((v for v in roots if v.offset or v.kind == "input"), key=lambda v: v.kind)):
        moved = {first.name: replace(first, offset=second.offset), second.name: replace(second, offset=first.offset)}
        yield f"{first.name!r} and {second.name!r} change places", replace(graph, values={**graph.values, **moved})


def timed(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """A node belongs to another part of a step, or its effects are others than promised."""
    for i, node in enumerate(graph.nodes):
        changes: list[dict[str, Any]] = [{"phase": phase} for phase in PHASES if phase != node.phase]
        changes += [{"when": when} for when in WHEN if when != node.when] + [{"effects": "others"}, {"updates": ()}]
        for change in changes:
            nodes = [*graph.nodes[:i], replace(node, **change), *graph.nodes[i + 1 :]]
            yield f"node {i} ({node.op}): {change}", graph.with_nodes(nodes)


MUTATIONS = [swapped, dropped, repeated, renamed, shifted, retyped, housed, placed, timed]


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", DEVICE_RUNS)
def test_each_mutant_of_a_program_that_is_fused_for_cuda(name, mutation, monkeypatch):
    with as_on_a_device(True):
        test_each_mutant_is_refused_or_trains_to_the_same_bits(name, mutation, monkeypatch)


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", RUNS)
def test_each_mutant_is_refused_or_trains_to_the_same_bits(name, mutation, monkeypatch):
    monkeypatch.setenv("GRADRING_CHECK", "0")
    bits, graph = trained(name, None)
    check(graph)
    counts: Counter[str] = Counter()
    for what, mutant in mutation(graph):
        try:
            check(mutant)
        except ValueError as error:
            assert str(error).startswith("[graph] "), what
            counts["refused"] += 1
            continue
        assert trained(name, mutant)[0] == bits, f"{what}: legal, and yet other bits"
        counts["same bits"] += 1
    assert counts["refused"] + counts["same bits"] > 0 or mutation is shifted
    if mutation in (dropped, repeated, shifted, retyped, housed):
        assert counts["same bits"] == 0, counts
