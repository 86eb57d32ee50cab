"""The passes lay out memory: arrays are reserved as the graph says, and may lie in several arenas of one kind."""

from dataclasses import replace

import numpy as np
import pytest

from gradring import _core, losses, nn, optim
from gradring.graph import check, train_graph
from gradring.graph.memory import training_memory
from gradring.graph.plan import plan
from gradring.ir import memory_of
from gradring.session import Session

RNG = np.random.default_rng()


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))


@pytest.mark.parametrize("optimizer", [optim.SGD(0.1), optim.SGD(0.1, momentum=0.9), optim.Adam()], ids=str)
def test_the_memory_of_a_training_holds_what_the_graph_of_a_step_needs(optimizer):
    for fuse in (False, True):
        graph = train_graph(
            model(), (5, 9), losses.CrossEntropy(), optimizer=optimizer, fuse_update=fuse, check_finite=True
        )
        needed = memory_of(graph)
        layout = model().init().store.layout
        reserved = training_memory(layout, "float32", optimizer)
        assert needed.arenas.keys() <= reserved.arenas.keys()
        assert {arena.kind for arena in reserved.arenas.values()} == (
            {"param", "grad", "state"} if optimizer.state_names else {"param", "grad"}
        )
        for name, arena in needed.arenas.items():
            assert reserved.arenas[name].kind == arena.kind
            assert reserved.arenas[name].bytes >= arena.bytes
        for name, place in needed.places.items():
            if name not in ("parameters", "gradients", "buffers"):
                assert reserved.places[name] == place


def test_a_plan_runs_over_several_arenas_of_one_kind_with_the_same_bits():
    x, y = RNG.normal(size=(5, 9)).astype("f4"), RNG.integers(0, 4, 5)
    adam = optim.Adam(0.1)
    usual = Session(model(), optimizer=adam, threads=1, fuse_update=False)
    usual.step(x, y)

    other = Session(model(), optimizer=adam, threads=1, fuse_update=False)
    store = other._programs.store
    graph = train_graph(
        other.model, (5, 9), losses.CrossEntropy(), optimizer=adam, check_finite=True, layout=store.layout
    )
    moved = {"state.v": "second moments", "gradients": "plane 3"}
    values = {n: replace(v, arena=moved[n], offset=0) if n in moved else v for n, v in graph.values.items()}
    graph = replace(graph, values=values, promise=None)
    check(graph)
    made = plan(graph, None, mode="train")
    kinds = {arena.name: arena.kind for arena in made.arenas}
    assert kinds == {
        "parameters": "param",
        "plane 3": "grad",
        "state": "state",
        "second moments": "state",
        "temps": "temp",
    }
    blocks = {a.name: _core.SharedArena(a.bytes) for a in made.arenas if a.kind in ("grad", "state")}
    blocks["parameters"] = store.arena
    engine = _core.Engine([(name, kinds[name], block) for name, block in blocks.items()], 1, 1, 0, True)
    engine.add("train", 5, **made.native())
    feed = _core.ArrayFeed([(x, "float32"), (y, "int64")], 5)
    result, _ = engine.chunk(True, feed, np.full(1, 0.1), 1, 0.0)
    assert not result["fault"]
    for name, array in usual.params.items():
        assert np.array_equal(array, other.params[name]), name
    moment = np.frombuffer(blocks["second moments"], np.float32)
    assert np.array_equal(moment[:54].reshape(9, 6), usual.state["v.0.weight"])
    assert not other.grads["0.weight"].any()
    assert np.frombuffer(blocks["plane 3"], np.float32).any()


def test_a_plan_whose_arena_nobody_reserved_is_refused_by_name():
    session = Session(model(), optimizer=optim.SGD(0.1), threads=1)
    graph = train_graph(session.model, (5, 9), losses.CrossEntropy(), optimizer=optim.SGD(0.1), fuse_update=False)
    values = {**graph.values, "gradients": replace(graph.values["gradients"], arena="plane 7")}
    made = plan(replace(graph, values=values), None, mode="train")
    with pytest.raises(ValueError, match="arena plane 7 has no memory"):
        session._native.add("train", 5, **made.native())


def test_temps_may_lie_in_arenas_of_their_own():
    graph = train_graph(model(), (5, 9), losses.CrossEntropy(), optimizer=optim.SGD(0.1))
    usual = plan(graph, None, mode="train")
    first = next(name for name, value in graph.values.items() if value.kind == "temp" and value.within is None)
    values = {**graph.values, first: replace(graph.values[first], arena="kept")}
    made = plan(replace(graph, values=values), None, mode="train")
    sizes = {arena.name: arena.bytes for arena in made.arenas if arena.kind == "temp"}
    assert sizes.keys() == {"temps", "kept"}
    assert sizes["kept"] >= graph.values[first].size * 4
    assert made.temp_bytes >= usual.temp_bytes
    session = Session(model(), optimizer=optim.SGD(0.1), threads=1)
    session._native.add("train", 5, **made.native())


def test_an_optimizer_without_state_takes_no_memory_for_one():
    session = Session(model(), optimizer=optim.SGD(0.1))
    assert {kind for _, kind, _ in session._arenas.native()} == {"param", "grad"}
    session.set_optimizer(optim.Adam())
    assert {kind for _, kind, _ in session._arenas.native()} == {"param", "grad", "state"}
    session.step(np.ones((5, 9), "f4"), np.zeros(5, int))
    session.set_optimizer(optim.SGD(0.1))
    assert {kind for _, kind, _ in session._arenas.native()} == {"param", "grad"}
    session.step(np.ones((5, 9), "f4"), np.zeros(5, int))


def test_an_update_before_the_last_writer_of_its_gradient_is_refused():
    graph = train_graph(model(), (5, 9), losses.CrossEntropy(), optimizer=optim.SGD(0.1))
    update = next(number for number, node in enumerate(graph.nodes) if "param" in node.updates)
    last = graph.last_writer(*graph.place(graph.nodes[update].inputs["gradient"]))
    assert last is not None
    early = [*graph.nodes[: update - 1], graph.nodes[update], graph.nodes[update - 1], *graph.nodes[update + 1 :]]
    assert graph.nodes[update - 1] is last
    with pytest.raises(ValueError, match=r"operand gradient.*(is not complete|before it is written)|phase"):
        check(graph.with_nodes(early))
