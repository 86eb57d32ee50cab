"""The pass of asynchronous updates: what a worker's step reads, locks and updates, without running anything."""

from dataclasses import replace

import pytest

from gradring import losses, nn, optim
from gradring.graph import train_graph
from gradring.graph.asynchronous import STRIPE, Worker, asynchronous, check_worker, row_ids
from gradring.graph.fuse_update import updates_of
from gradring.graph.plan import plan
from gradring.graph.spec import check_nodes
from gradring.ir import Input


def whole(options, *, width=40, rows=100):
    if "table" in options:
        model = nn.Sequential(nn.Embedding(rows, 8), nn.Flatten(), nn.Linear(24, 4))
        inputs = {"x": Input((6, 3), True, 0)}
    else:
        model = nn.Sequential(nn.Linear(9, width), nn.ReLU(), nn.Linear(width, 4))
        inputs = (6, 9)
    given = {name: value for name, value in options.items() if name != "table"}
    return train_graph(model, inputs, losses.CrossEntropy(), check_finite=True, **given)


SGD = [
    {"optimizer": optim.SGD(0.1)},
    {"optimizer": optim.SGD(0.1, weight_decay=0.1), "clip_norm": 1.0},
    {"optimizer": optim.SGD(0.1, groups=[{"params": "*.bias", "lr": 0.2}])},
    {"optimizer": optim.SGD(0.1), "frozen": ("0.weight",)},
    {"optimizer": optim.SGD(0.1), "table": True},
    {"optimizer": optim.SGD(0.1, weight_decay=0.1), "table": True},
]
ANY = [
    {"optimizer": optim.AdamW(1e-3)},
    {"optimizer": optim.SGD(0.1, momentum=0.9), "clip_norm": 1.0},
    {"optimizer": optim.Lion(1e-3), "frozen": ("2.bias",)},
    {"optimizer": optim.AdamW(1e-3, groups=[{"params": "*.bias", "weight_decay": 0.0}])},
    {"optimizer": optim.Adam(1e-3), "table": True},
]
CASES = [(options, way) for options in SGD for way in ("locked", "atomic", "hogwild")]
CASES += [(options, "locked") for options in ANY]


@pytest.mark.parametrize(("options", "way"), CASES, ids=str)
@pytest.mark.parametrize("width", [40, 3000])
def test_a_worker_reads_all_and_updates_each_element_once(options, way, width):
    graph = whole(options, width=width)
    for number in range(3):
        step = asynchronous(graph, Worker(number, 3), way)
        check_worker(graph, step)
        check_nodes(step)
        assert list(step.effects) == [node.effects for node in step.nodes if node.effects]
        again = asynchronous(whole(options, width=width), Worker(number, 3), way)
        assert plan(step, None, mode="train") == plan(again, None, mode="train")


def test_everything_up_to_the_gradients_stays_as_it_is():
    graph = whole({"optimizer": optim.AdamW(1e-3)})
    step = asynchronous(graph, Worker(0, 2), "locked")
    kept = [node for node in step.nodes if "shared" not in node.attributes and node not in updates_of(step)]
    assert kept == [node for node in graph.nodes if node not in updates_of(graph)]


def test_locks_guard_one_stripe_each_and_workers_begin_at_different_ones():
    graph = whole({"optimizer": optim.AdamW(1e-3)}, width=5000)
    begins = []
    for number in range(2):
        step = asynchronous(graph, Worker(number, 2), "locked")
        places = [step.place(node.inputs["param"])[1:] for node in updates_of(step) if "gradient" in node.inputs]
        assert all(begin // STRIPE == (end - 1) // STRIPE for begin, end in places)
        begins.append([begin for begin, _ in places])
    assert sorted(begins[0]) == sorted(begins[1])
    assert begins[0][0] != begins[1][0]


def test_a_table_is_read_and_pushed_by_the_rows_that_the_ids_name():
    graph = whole({"optimizer": optim.SGD(0.1), "table": True})
    assert row_ids(graph) == {"0.weight": "x"}
    for way in ("locked", "atomic", "hogwild"):
        step = asynchronous(graph, Worker(0, 2), way)
        by_rows = [node for node in step.nodes if "ids" in node.inputs and "shared" in node.attributes]
        assert [node.phase for node in by_rows] == ["forward", "update"]
        assert {node.inputs["param"] for node in by_rows} == {"0.weight"}
        begin = graph.place("2.weight")[1]
        others = [node for node in step.nodes if "shared" in node.attributes and node not in by_rows]
        assert all(step.place(node.inputs["param"])[1] >= begin for node in others)


@pytest.mark.parametrize("options", [SGD[5], ANY[4], {**SGD[4], "frozen": ("0.weight",)}], ids=str)
def test_a_table_whose_other_rows_change_too_is_read_whole(options):
    step = asynchronous(whole(options), Worker(0, 2), "locked")
    assert not [node for node in step.nodes if "ids" in node.inputs and "shared" in node.attributes]


def planted(step, at, change):
    """The step with another node, or none, in the place of one."""
    nodes = list(step.nodes)
    nodes[at : at + 1] = change(nodes[at])
    return replace(step, nodes=tuple(nodes))


def test_wrong_steps_are_found():
    graph = whole({"optimizer": optim.AdamW(1e-3)}, width=3000)
    step = asynchronous(graph, Worker(0, 2), "locked")
    push = asynchronous(whole(SGD[0]), Worker(0, 2), "atomic")
    last, update = len(step.nodes) - 1, step.nodes.index(updates_of(step)[-2])
    assert "gradient" in step.nodes[update].inputs
    wrong = [
        planted(step, 0, lambda node: []),  # a parameter is not read
        planted(step, last, lambda node: []),  # the lock is not given back
        planted(step, update - 1, lambda node: []),  # it is not taken
        planted(step, update, lambda node: []),  # a part is not updated
        planted(step, update, lambda node: [node, node]),  # or twice
        replace(step, nodes=(*step.nodes[1:], step.nodes[0])),  # the snapshot is read too late
    ]
    for other in wrong:
        with pytest.raises(ValueError, match="worker|lock|read"):
            check_worker(graph, other)
    last_push = push.nodes[-1]
    moved = replace(last_push, attributes={**last_push.attributes, "begin": 16})
    elsewhere = replace(push, nodes=(*push.nodes[:-1], moved))
    with pytest.raises(ValueError, match="pushes element 0 to 16"):
        check_worker(whole(SGD[0]), elsewhere)
