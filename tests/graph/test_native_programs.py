"""Programs that were changed at random: the native side refuses each by an error, or runs it inside its memory."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

from gradring import _core, losses, nn, optim
from gradring.graph import train_graph
from gradring.graph.plan import plan
from gradring.session import Session

ROWS, FEATURES = 6, 5
NUMBERS = (-1, 0, 1, 2, 3, 4, 5, 7, 8, 64, 2**20, 2**31, 2**62, 2**63 - 1, -(2**63))


def model() -> nn.Sequential:
    double = nn.Function(lambda x: 2 * x, lambda dy, x, y: 2 * dy)
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.GELU(), nn.Dropout(0.5), double, nn.Residual(nn.Linear(4, 4)))


def legal(made: nn.Sequential) -> dict[str, Any]:
    graph = train_graph(made, (ROWS, FEATURES), losses.CrossEntropy(), optimizer=optim.AdamW(0.01), clip_norm=1.0)
    return plan(graph, None, mode="train").native()


def changed(native: dict[str, Any], choice: random.Random) -> dict[str, Any]:
    """The program with one thing changed."""
    native = {**copy.copy(native), "instructions": list(native["instructions"]), "buffers": list(native["buffers"])}
    if choice.random() < 0.15:
        number = choice.randrange(len(native["buffers"]))
        kind, size, offset, arena = native["buffers"][number]
        if kind != "input":  # who binds a batch knows its size
            other = choice.choice(("output", "param", "grad", "state", "temp"))
            native["buffers"][number] = choice.choice(
                [
                    (other, size, offset, arena),
                    (kind, choice.choice(NUMBERS), offset, arena),
                    (kind, size, choice.choice(NUMBERS), arena),
                    (kind, size, offset, choice.choice((-1, 0, 1, 2, 3, 4, 2**31 - 1))),
                ]
            )
        return native
    if choice.random() < 0.1:
        arenas = list(native["arenas"])
        number = choice.randrange(len(arenas))
        name, kind, size = arenas[number]
        arenas[number] = choice.choice(
            [
                (choice.choice([known for known, _, _ in arenas]), kind, size),
                (name, choice.choice(("input", "output", "param", "grad", "state", "temp")), size),
                (name, kind, choice.choice((-1, 0, 4, 64, 2**20, 2**62, -(2**63)))),
            ]
        )
        return {**native, "arenas": arenas}
    number = choice.randrange(len(native["instructions"]))
    op, operands, attributes, when, origin = native["instructions"][number]
    operands, attributes = list(operands), dict(attributes)
    what = choice.choice(("op", "operand", "operand", "operand", "attribute", "when", "fewer"))
    if what == "op":
        op = choice.choice([schema["name"] for schema in _core.ops()])
    elif what == "operand":
        place = choice.randrange(len(operands))
        operands[place] = changed_operand(operands[place], choice, len(native["buffers"]))
    elif what == "attribute" and attributes:
        name = choice.choice(list(attributes))
        attributes[name] = choice.choice([*NUMBERS, None, "relu", 0.5, -1.0, float("nan"), float("inf"), True])
    elif what == "when":
        when = choice.choice(("always", "first", "later", "last", "bounded", "unbounded", "never"))
    else:
        del operands[choice.randrange(len(operands))]
    native["instructions"][number] = (op, operands, attributes, when, origin)
    return native


def changed_operand(operand: tuple[Any, ...], choice: random.Random, buffers: int) -> tuple[Any, ...]:
    name, buffer, offset, dtype, shape, strides = operand
    shape, strides = list(shape), list(strides)
    match choice.randrange(6):
        case 0:
            buffer = choice.choice([-1, 0, buffers - 1, buffers, choice.randrange(buffers), 2**31 - 1])
        case 1:
            offset = choice.choice(NUMBERS)
        case 2:
            dtype = choice.choice(("float32", "float64", "int32", "int64", "bool", "uint8"))
        case 3 if shape:
            shape[choice.randrange(len(shape))] = choice.choice(NUMBERS)
        case 4 if strides:
            strides[choice.randrange(len(strides))] = choice.choice(NUMBERS)
        case 5:
            shape.append(choice.choice(NUMBERS))
            strides.append(choice.choice(NUMBERS))
    return name, buffer, offset, dtype, shape, strides


@pytest.mark.parametrize("threads", [1, 2])
def test_a_changed_program_is_refused_or_runs_inside_its_memory(threads: int) -> None:
    seed = random.randrange(2**32)
    choice = random.Random(seed)
    made = model()
    session = Session(made, optimizer=optim.AdamW(0.01), clip_norm=1.0, threads=threads)
    program, engine = legal(made), session._native
    x, y = np.ones((ROWS, FEATURES), np.float32), np.arange(ROWS) % 4
    counts = {"refused": 0, "ran": 0}
    for number in range(400):
        mutant = changed(program, choice)
        if number % 4 == 0:
            mutant = changed(mutant, choice)
        engine.clear()
        try:
            engine.add("train", ROWS, **mutant)
        except (TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
            assert str(error), f"seed {seed}, mutant {number}"
            counts["refused"] += 1
            continue
        feed = _core.ArrayFeed([(x, "float32"), (y, "int64")], ROWS)
        engine.chunk(True, feed, np.full(4, 0.01), 1, 1.0)
        counts["ran"] += 1
    assert counts["refused"] > 50, f"seed {seed}: {counts}"
    assert counts["ran"] > 20, f"seed {seed}: {counts}"


def test_the_program_that_is_changed_is_legal() -> None:
    made = model()
    session = Session(made, optimizer=optim.AdamW(0.01), clip_norm=1.0)
    barriers = session._native.add("train", ROWS, **legal(made))
    assert len(barriers) == len(legal(made)["instructions"])
