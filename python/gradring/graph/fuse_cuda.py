"""Fusion for CUDA devices: fewer launches and fewer passes over memory, with the same bits.

On a device, a small kernel takes less time than the gap to the next one, and a large one takes as long as its memory is
read and written. Three kinds of work go away here:

- With mixed precision, each weight matrix is cast by a launch of its own. Matrices that lie side by side are cast by one.
- A product that finishes its sums, by a bias, an activation, a derivative or column sums, writes them in 16 bits itself, where
  only a cast would read them.
- The gradients of a micro-batch are added to the sums of the earlier ones by one launch for each range of parameters
  without gaps, and not by one for each parameter.

A CPU gains little by this: a call of a kernel costs it almost nothing, and results that are read at once are still in its
caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from gradring.graph.fuse import prune
from gradring.graph.schema import accepts, converts, part_of, schema_of
from gradring.ir import NARROW, Graph, Node, Value
from gradring.ops.activation import EITHER_SOURCE

__all__ = ["MOST_BETWEEN", "MOST_TOGETHER", "fuse_for_cuda"]

# Elements between two matrices that a common cast may convert in vain, such as biases. Each is 6 bytes of traffic, so 64 Ki
# of them are 0.4 MB, which a device moves in much less time than a launch takes.
MOST_BETWEEN = 1 << 16

# Elements that one cast converts at most. One launch more does not count beside the traffic of that many. What a cast makes
# lives until the last product that reads a part of it, so longer ranges would cost memory. 32 MB of results are also what the
# caches of such devices hold.
MOST_TOGETHER = 1 << 24


def fuse_for_cuda(graph: Graph, output: str) -> Graph:
    """The graph with fewer launches and fewer passes over memory, and the same results. The model's ``output`` keeps its
    dtype."""
    return prune(_sum_together(_cast_together(_write_narrow(graph, output))))


def _to_narrow(graph: Graph, node: Node) -> bool:
    """Whether a node only makes 16 bits of a value."""
    return converts(node) and graph.values[node.outputs["y"]].dtype in NARROW


# One cast for matrices side by side


def _cast_together(graph: Graph) -> Graph:
    casts: dict[tuple[str, str], list[Node]] = {}
    for node in graph.nodes:
        if _to_narrow(graph, node) and node.when == "always":
            source, made = graph.values[node.inputs["x"]], graph.values[node.outputs["y"]]
            if source.kind == "param" and source.within is not None and made.within is None and made.kind == "temp":
                casts.setdefault((graph.root(source.name), made.dtype), []).append(node)
    for (root, dtype), nodes in casts.items():
        for run in _runs(graph, nodes):
            graph = _with_one_cast(graph, root, dtype, run)
    return graph


def _runs(graph: Graph, casts: Iterable[Node]) -> Iterator[list[Node]]:
    """Groups of at least two casts of parameters that lie near each other."""
    run: list[Node] = []
    first = last = 0  # where the run begins and ends
    for node in sorted(casts, key=lambda node: graph.place(node.inputs["x"])[1:]):
        _, begin, end = graph.place(node.inputs["x"])
        if run and not (0 <= begin - last <= MOST_BETWEEN and end - first <= MOST_TOGETHER):
            if len(run) > 1:
                yield run
            run = []
        if not run:
            first = begin
        run.append(node)
        last = end
    if len(run) > 1:
        yield run


def _with_one_cast(graph: Graph, root: str, dtype: str, casts: list[Node]) -> Graph:
    """The graph in which one node makes what ``casts`` make. A matrix begins at a multiple of 16 elements, so what a product
    reads begins at a multiple of 32 bytes."""
    names = [node.inputs["x"] for node in casts]
    begin, end = graph.place(names[0])[1], graph.place(names[-1])[2]
    between = f"{names[0]} ... {names[-1]}"
    source, made = graph.fresh(f"{root}[{between}]"), graph.fresh(f"{between}.{dtype}")
    whole = graph.values[root]
    graph = graph.with_value(replace(whole, name=source, shape=(end - begin,), within=root, offset=begin, span=True))
    graph = graph.with_value(Value(made, (end - begin,), dtype=dtype))
    views = {node.outputs["y"]: graph.place(node.inputs["x"])[1] - begin for node in casts}
    values = {name: replace(graph.values[name], within=made, offset=offset) for name, offset in views.items()}
    gone = {id(node) for node in casts}
    first = next(node for node in graph.nodes if id(node) in gone)  # no node before it reads one of the matrices
    together = replace(first, inputs={"x": source}, outputs={"y": made}, origin="mixed precision")
    nodes = [together if node is first else node for node in graph.nodes if node is first or id(node) not in gone]
    return replace(graph, values={**graph.values, **values}).with_nodes(nodes)


# Results in 16 bits


def _write_narrow(graph: Graph, output: str) -> Graph:
    """Let products write in 16 bits what else a cast would make of it.

    The derivative of relu is the same at the activation's output and at its input. So where it reads the float32 result, too,
    the product writes the activation's input in float32 instead: as many bytes, and the pass of the cast less.
    """
    nodes: list[Node | None] = list(graph.nodes)
    made_at = {name: at for at, node in enumerate(graph.nodes) for name in node.outputs.values()}
    readers: dict[str, list[int]] = {}
    for at, node in enumerate(graph.nodes):
        for name in set(map(graph.root, node.inputs.values())):
            readers.setdefault(name, []).append(at)
    kept = graph.root(output)
    for at, cast in enumerate(graph.nodes):
        wide = cast.inputs.get("x", "")
        made = nodes[made_at[wide]] if wide in made_at and wide != kept else None
        if made is None or not _to_narrow(graph, cast) or made.when != cast.when:
            continue
        others = [other for other in readers[graph.root(wide)] if other != at]
        moved: dict[int, Node] = {}  # the others, with another source
        role = next(role for role, name in made.outputs.items() if name == wide)
        if not _finishes(made, role) or graph.values[wide].kind != "temp" or graph.values[wide].within is not None:
            continue
        fused = replace(made, outputs={**made.outputs, role: cast.outputs["y"]})
        if others:
            before = graph.fresh(f"{wide}.pre")
            kind, kept_input = _either_source(fused, role)
            found = {other: _with_source(nodes[other], kind, wide, before) for other in others}
            moved = {other: node for other, node in found.items() if node is not None}
            if kept_input is None or len(moved) < len(others):
                continue
            graph = graph.with_value(replace(graph.values[wide], name=before))
            fused = replace(fused, outputs={**fused.outputs, kept_input: before})
        if not accepts(graph, fused):
            continue
        nodes[made_at[wide]], nodes[at] = fused, None
        for other, node in moved.items():
            nodes[other] = node
    return graph.with_nodes(node for node in nodes if node is not None)


def _finishes(node: Node, role: str) -> bool:
    """Whether an op finishes the sums of its product, of which it rounds each once. A product alone is left to a library,
    which may add up parts of it that it has rounded."""
    schema = schema_of(node.op)
    if schema is None or not schema.operands[role].or_float32:
        return False
    arrays = len(node.inputs) + len(node.outputs)
    return "products" in schema.attributes and arrays > 3 and role in _finished(node)


def _finished(node: Node) -> set[str]:
    """The results of a node to which it can apply an activation or a derivative."""
    schema = schema_of(node.op)
    found = (schema.epilogue, schema.derivative_epilogue) if schema else ()
    return {epilogue.result for epilogue in found if epilogue is not None}


def _either_source(node: Node, role: str) -> tuple[str | None, str | None]:
    """The kind of a node's activation, and the operand that can take its input; None and None if it applies none to this
    result whose derivative may read either, or another value is written there."""
    schema = schema_of(node.op)
    epilogue = schema and schema.epilogue
    if not epilogue or epilogue.result != role or epilogue.other is None or epilogue.other in node.outputs:
        return None, None
    kind = node.attributes.get(epilogue.attribute)
    return (kind, epilogue.other) if kind in EITHER_SOURCE else (None, None)


def _with_source(node: Node | None, kind: str | None, old: str, new: str) -> Node | None:
    """A node with the source ``new`` of its derivative of this kind in place of ``old``; None if it reads ``old`` otherwise."""
    schema = schema_of(node.op) if node is not None else None
    if node is None or schema is None:
        return None
    found = schema.derivative_epilogue or (schema.part if schema.part and schema.part.kind == "derivative" else None)
    roles = [role for role, name in node.inputs.items() if name == old]
    if kind is None or found is None or found.attribute is None or roles != [found.other]:
        return None
    if node.attributes.get(found.attribute) != kind:
        return None
    return replace(node, inputs={**node.inputs, roles[0]: new})


# One sum for gradients side by side


def _sum_together(graph: Graph) -> Graph:
    """Join the copies, and the additions, of gradients between which no padding lies: padding must stay zero in the sums, and
    would not be zero in memory of this step."""
    adds = {node.inputs["gradient"]: node for node in graph.nodes if node.when == "later" and "gradient" in node.inputs}
    pairs = []
    for copy in graph.nodes:
        add = adds.get(copy.inputs.get("x", ""))
        if copy.when != "first" or part_of(copy, "copy") is None or add is None or add.updates != ("sum",):
            continue
        source, target = graph.values[copy.inputs["x"]], graph.values[copy.outputs["y"]]
        own = source.kind == "temp" and source.within is None
        if own and target.kind == "grad" and target.within is not None and add.inputs["sum"] == target.name:
            pairs.append((copy, add))
    for run in _neighbours(graph, pairs):
        graph = _with_one_sum(graph, run)
    return graph


# The copy of a gradient in the first micro-batch of an update, and its addition in later ones.
_Pair = tuple[Node, Node]


def _neighbours(graph: Graph, pairs: Iterable[_Pair]) -> Iterator[list[_Pair]]:
    """Groups of at least two sums between which nothing lies."""
    run: list[_Pair] = []
    last: tuple[str, int] | None = None
    for pair in sorted(pairs, key=lambda pair: graph.place(pair[0].outputs["y"])):
        root, begin, end = graph.place(pair[0].outputs["y"])
        if run and last != (root, begin):
            if len(run) > 1:
                yield run
            run = []
        run.append(pair)
        last = root, end
    if len(run) > 1:
        yield run


def _with_one_sum(graph: Graph, run: list[_Pair]) -> Graph:
    """The graph in which the gradients of this micro-batch lie as their sums do, and one node moves all of ``run``."""
    targets = {copy.inputs["x"]: copy.outputs["y"] for copy, _ in run}
    first, last = run[0][0].outputs["y"], run[-1][0].outputs["y"]
    root, begin, _ = graph.place(first)
    size = graph.place(last)[2] - begin
    span = graph.fresh(f"{root}[{first} ... {last}]")
    whole = graph.values[root]
    graph = graph.with_value(replace(whole, name=span, shape=(size,), within=root, offset=begin, span=True))
    made = graph.fresh(f"{first} ... {last} of this batch")
    graph = graph.with_value(Value(made, (size,), dtype=whole.dtype))
    values = {
        source: replace(graph.values[source], within=made, offset=graph.place(target)[1] - begin)
        for source, target in targets.items()
    }
    copy, add = run[-1]
    joined = {
        id(copy): replace(copy, inputs={**copy.inputs, "x": made}, outputs={"y": span}),
        id(add): replace(add, inputs={**add.inputs, "sum": span, "gradient": made}),
    }
    gone = {id(node) for pair in run[:-1] for node in pair}
    nodes = [joined.get(id(node), node) for node in graph.nodes if id(node) not in gone]
    return replace(graph, values={**graph.values, **values}).with_nodes(nodes)
