"""The pass of data parallelism: what each rank's step reads, sums and updates, without running anything."""

from dataclasses import replace

import pytest

from gradring import losses, nn, optim
from gradring.graph import train_graph
from gradring.graph.data_parallel import BLOCK, Part, Ranks, check_shares, data_parallel, owned
from gradring.graph.fuse_update import updates_of
from gradring.graph.memory import training_memory
from gradring.graph.plan import plan
from gradring.graph.spec import check_nodes
from gradring.ir import memory_of
from gradring.ir.layout import GRAIN


def model(width: int = 40) -> nn.Sequential:
    return nn.Sequential(nn.Linear(9, width), nn.ReLU(), nn.Linear(width, 4))


def whole(options, width: int = 40):
    return train_graph(model(width), (6, 9), losses.CrossEntropy(), sums=True, **options)


def shares(options, size: int, *, width: int = 40, idle: bool = False):
    graph = whole(options, width)
    accumulate = options.get("accumulate", False)
    return graph, [
        data_parallel(graph, Ranks(rank, size), check_finite=True, accumulate=accumulate, idle=idle)
        for rank in range(size)
    ]


OPTIONS = [
    {"optimizer": optim.AdamW(1e-3)},
    {"optimizer": optim.SGD(0.1), "clip_norm": 1.0},
    {"optimizer": optim.SGD(0.1, momentum=0.9), "accumulate": True},
    {"optimizer": optim.Lion(1e-3), "accumulate": True, "clip_norm": 1.0},
    {"optimizer": optim.Adam(1e-3), "frozen": ("0.weight",)},
    {"optimizer": optim.AdamW(1e-3, groups=[{"params": "*.bias", "weight_decay": 0.0}])},
]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_ranks_together_update_what_the_whole_step_does(options, size):
    graph, steps = shares(options, size)
    check_shares(graph, steps)
    for rank, step in enumerate(steps):
        assert plan(step, None, mode="train") == plan(shares(options, size)[1][rank], None, mode="train")
        assert [node.op for node in step.nodes][-1] == "end_update"


def test_large_models_are_updated_in_blocks():
    graph, steps = shares({"optimizer": optim.AdamW(1e-3)}, 2, width=30_000)
    check_shares(graph, steps)
    for step in steps:
        sizes = [step.values[node.inputs["param"]].size for node in updates_of(step)]
        assert len(sizes) > 2
        assert max(sizes) == BLOCK
        temps = {a.name: a.bytes for a in plan(step, None, mode="train").arenas}["temps"]
        assert temps < 4 * (6 * 30_000 * 4 + 2 * BLOCK)  # all blocks use the same memory


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_a_rank_without_rows_takes_part_with_zeros(options):
    graph, steps = shares(options, 3, idle=True)
    check_shares(graph, steps)
    for step in steps:
        assert {node.phase for node in step.nodes} == {"update"}
        clear = step.nodes[0]
        assert (clear.op, clear.when) == ("clear_plane", "first" if options.get("accumulate") else "always")


def planted(step, change):
    """The step with its first update changed."""
    first = updates_of(step)[0]
    return replace(
        step, nodes=tuple(made for node in step.nodes for made in (change(node) if node is first else [node]))
    )


def test_a_share_that_is_wrong_is_found():
    graph, steps = shares(OPTIONS[0], 2)
    first = updates_of(steps[0])[0]
    with pytest.raises(ValueError, match="the ranks update"):
        check_shares(graph, [planted(steps[0], lambda node: []), steps[1]])
    with pytest.raises(ValueError, match="both update"):
        check_shares(graph, [steps[0], steps[0]])
    with pytest.raises(ValueError, match="outside of an update"):
        check_shares(graph, [replace(steps[0], nodes=(first, *steps[0].nodes)), steps[1]])
    with pytest.raises(ValueError, match="other operands"):  # the state of another parameter
        other = {**first.inputs, "m": first.inputs["v"]}
        check_shares(graph, [planted(steps[0], lambda node: [replace(node, inputs=other)]), steps[1]])


def sharded(options, size: int, rows: int = 37, shards: int = 8):
    def step(own):
        return train_graph(model(), (own, 9), losses.CrossEntropy(), sums=True, **options)

    accumulate = options.get("accumulate", False)
    steps = []
    for rank in range(size):
        ranks = Ranks(rank, size, shards=shards)
        begin, end = ranks.rows(rows)

        places = [ranks.rows(rows, number) for number in ranks.own]
        parts = [Part(step(past - first) if past > first else None, first - begin) for first, past in places]
        whole = step(max(end - begin, 1))
        steps.append(data_parallel(whole, ranks, check_finite=True, accumulate=accumulate, parts=parts))
    return step(rows), steps


@pytest.mark.parametrize("rows", [3, 37])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_ranks_of_shards_update_what_the_whole_step_does(options, size, rows):
    graph, steps = sharded(options, size, rows)
    check_shares(graph, steps)
    for rank, step in enumerate(steps):
        check_nodes(step)
        cleared = [step.place(node.outputs["plane"]) for node in step.nodes if node.op == "clear_plane"]
        elements = step.values["planes"].shape[1]
        written = {
            step.place(name)[1] // elements
            for node in step.nodes
            for _, name in node.written()
            if node.phase == "backward" and step.values[name].kind == "grad"
        }
        own = set(Ranks(rank, size, shards=8).own)
        assert written | {begin // elements for _, begin, _ in cleared} == own
        assert len(written) + len(cleared) == len(own)


def test_all_shards_of_a_rank_use_the_same_temps():
    optimizer = {"optimizer": optim.AdamW(1e-3)}
    bytes_of = [plan(sharded(optimizer, size, rows=64)[1][0], None, mode="train").temp_bytes for size in (1, 8)]
    assert bytes_of[0] < bytes_of[1] + 8 * 64 * len(range(8))


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("elements", [16, 48, 4096, 100_000])
def test_every_element_has_one_owner(elements, size):
    parts = [owned(elements, Ranks(rank, size)) for rank in range(size)]
    assert [begin for begin, _ in parts] == [0, *(end for _, end in parts[:-1])]
    assert parts[-1][1] == elements
    assert all(begin % GRAIN == 0 for begin, _ in parts)


def test_each_rank_has_a_plane_and_all_else_exists_once():
    optimizer = optim.Adam(1e-3)
    one = training_memory(model().init().store.layout, "float32", optimizer)
    three = training_memory(model().init().store.layout, "float32", optimizer, ranks=Ranks(1, 3))
    assert three.arenas["gradients"].bytes == 3 * one.arenas["gradients"].bytes
    assert {n: a for n, a in three.arenas.items() if n != "gradients"} == {
        n: a for n, a in one.arenas.items() if n != "gradients"
    }
    for step in shares({"optimizer": optimizer}, 3)[1]:
        needed = memory_of(step).arenas
        assert all(needed[name].bytes <= three.arenas[name].bytes for name in needed)
