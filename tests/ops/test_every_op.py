"""Tests of every op of the registry by the declaration in its file in ``gradring.ops``. An op without a declaration fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import gradring as gr
from gradring.ops._declare import DECLARED, DY, Derivative
from gradring.ops._eager import SCHEMAS
from layouts import FLOATS, ISAS, LAYOUTS, isa, laid_out
from op_calls import OPS, arrays, as_python, attributes, call, cast, operands, reference

every_op = pytest.mark.parametrize("op", OPS)
ROWS = (0, 1, 5, 33, 70)
MANY = 700


def samples(op: str, rows: int) -> list[dict[str, Any]]:
    return list(DECLARED[op].samples(np.random.default_rng(rows + 1), rows))


Case = tuple[str, dict[str, Any], Derivative]


def derivatives() -> list[Case]:
    """(op, sample, derivative) of every op whose derivative is another op's call."""
    found = []
    for op in OPS:
        for sample in samples(op, 5) if op in DECLARED else []:
            derivative = DECLARED[op].derivative_of(attributes(op, sample))
            if derivative is not None:
                found.append((op, sample, derivative))
    return found


DERIVATIVES = derivatives()
every_derivative = pytest.mark.parametrize(
    "case", DERIVATIVES, ids=[f"{op}-{i}" for i, (op, *_) in enumerate(DERIVATIVES)]
)


def agree(got: Any, want: Any, bound: float) -> bool:
    """Within a bound, relative to the largest element; NaN, and infinity, where they should be."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    finite = np.isfinite(want)
    scale = 1 + np.abs(want[finite]).max(initial=0)
    same = got.shape == want.shape and np.array_equal(got[~finite], want[~finite], equal_nan=True)
    return bool(same and np.isfinite(got[finite]).all() and (np.abs(got - want)[finite] <= bound * scale).all())


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = gr.get_num_threads()
    gr.set_num_threads(count)
    try:
        yield
    finally:
        gr.set_num_threads(before)


@every_op
def test_an_op_is_declared_whole(op: str) -> None:
    assert op in DECLARED, f"{op}: declare it in python/gradring/ops"
    twins = {derivative.op for _, _, derivative in DERIVATIVES} | {"linear_vjp"}
    assert DECLARED[op].torch is not None or op in twins, f"{op} has no twin in PyTorch"
    tried = {name for rows in ROWS for sample in samples(op, rows) for name in sample}
    inputs = {name for name, operand in operands(op).items() if operand["access"] != "write"}
    wanted = (inputs | set(attributes(op, {}))) - {"draw"}
    assert wanted <= tried, f"{op}: no sample gives {wanted - tried}"
    assert any(value.size == 0 for sample in samples(op, 0) for value in arrays(op, sample).values())


@every_op
def test_agrees_with_the_reference_at_every_level(op: str) -> None:
    for rows in ROWS:
        for sample in samples(op, rows):
            for dtype in FLOATS:
                given = cast(op, sample, dtype)
                want = reference(op, given)
                bound = DECLARED[op].tolerance * float(np.finfo(dtype).eps)
                for level in ISAS:
                    with isa(level) as there:
                        if not there:
                            continue
                        got = call(op, given, tuple(want))
                    for name, value in want.items():
                        named = operands(op)[name]["dtype_named"]
                        wanted = np.dtype(attributes(op, given)[named] if named else dtype)
                        assert got[name].dtype == wanted, (name, got[name].dtype)
                        assert agree(got[name], value, bound * (1 + rows / 32)), (rows, level, name, sample)


HALVES = [op for op in OPS if any({"float32", "bfloat16"} <= set(o["dtypes"]) for o in operands(op).values())]


@pytest.mark.parametrize("op", [op for op in HALVES if op != "cast"])
def test_agrees_with_the_reference_in_bfloat16(op: str) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for rows in ROWS:
        for sample in samples(op, rows):
            given = cast(op, sample, bfloat16)
            want = reference(op, given)
            for level in ISAS:
                with isa(level) as there:
                    if not there:
                        continue
                    got = call(op, given, tuple(want))
                for name, value in want.items():
                    assert got[name].dtype == bfloat16, (name, got[name].dtype)
                    # A vjp's product reads a gradient that is rounded itself.
                    bound = 2**-7 * (2 if op.endswith("_vjp") else 1)
                    assert agree(got[name], value, bound), (rows, level, name, sample)


@every_op
def test_reads_and_updates_arrays_of_any_strides(op: str) -> None:
    for rows in (1, 5, 33):
        for sample in samples(op, rows):
            for layout in LAYOUTS:
                given = dict(sample)
                for name, value in arrays(op, sample).items():
                    if np.ndim(value) and not (
                        operands(op)[name]["access"] == "update" and layout in ("read-only", "repeated")
                    ):
                        given[name] = laid_out(value, layout)
                want = reference(op, given)
                got = call(op, given, tuple(want))
                bound = DECLARED[op].tolerance * 2e-16
                assert all(agree(got[name], value, bound * 4) for name, value in want.items()), (layout, sample)


@every_op
def test_nan_comes_out_where_the_formula_says(op: str) -> None:
    rng = np.random.default_rng(0)
    for sample in samples(op, 33):
        for name, value in arrays(op, sample).items():
            if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.size == 0:
                continue
            for dtype in FLOATS:
                given = cast(op, sample, dtype)
                given[name] = given[name].copy()
                given[name].flat[rng.integers(value.size)] = np.nan
                want = reference(op, given)
                bound = DECLARED[op].tolerance * 2 * float(np.finfo(dtype).eps)
                for level in ISAS:
                    with isa(level) as there:
                        if there:
                            got = call(op, given, tuple(want))
                            wrong = [key for key, result in want.items() if not agree(got[key], result, bound)]
                            assert not wrong, (name, level, wrong, sample)


@every_op
def test_three_lanes_give_the_bits_of_one(op: str) -> None:
    for rows in (33, MANY):
        for sample in samples(op, rows):
            for dtype in FLOATS:
                given = cast(op, sample, dtype)
                names = tuple(reference(op, given))
                made = []
                for count in (1, 2, 3):
                    with threads(count):
                        made.append({name: array.tobytes() for name, array in call(op, given, names).items()})
                assert made[0] == made[1] == made[2]


def _positional(op: str, sample: dict[str, Any], names: list[str], result: str) -> Callable[..., Any]:
    def function(*values: Any) -> Any:
        return call(op, {**sample, **dict(zip(names, values, strict=True))}, (result,))[result]

    function.__name__ = op
    return function


def _gradients(sample: dict[str, Any], derivative: Derivative, op: str, dy: Any) -> dict[str, Any]:
    """The gradients by the op's inputs, as a program would compute them."""
    shown = attributes(op, sample)
    made = reference(op, sample)
    names = {name: name for name in (*arrays(op, sample), *made)}
    known = {**made, **arrays(op, sample), "dy": dy}
    inputs = {role: known[source] for role, source in derivative.operands(names, "dy").items()}
    shapes = {name: np.shape(value) for name, value in known.items()}
    other = {a["name"] for a in SCHEMAS[derivative.op]["attributes"]}
    passed = {name: value for name, value in shown.items() if name in other} | derivative.attributes(shown, shapes)
    wanted = {name: role for name, role in derivative.gives.items() if name in sample}
    results = call(derivative.op, {**inputs, **passed}, tuple(wanted.values()))
    return {name: results[role] for name, role in wanted.items()}


@every_derivative
def test_a_derivative_agrees_with_finite_differences(case: Case) -> None:
    op, sample, derivative = case
    floats = [name for name in derivative.gives if name in sample]

    def vjp(dy: Any, *values: Any) -> tuple[Any, ...]:
        given = {**sample, **dict(zip(floats, values, strict=True))}
        return tuple(_gradients(given, derivative, op, dy).values())

    function = _positional(op, sample, floats, "y")
    assert gr.check_grad(function, *(sample[name] for name in floats), vjp=vjp) < 1e-6


@pytest.mark.parametrize("name", [n for n in gr.ops.__all__ if not n.endswith(("_vjp", "_update"))])
def test_check_grad_knows_every_function(name: str) -> None:
    function: Any = getattr(gr.ops, name)
    binding = function.binding
    tried = 0
    for sample in samples(binding.op, 5):
        if any(sample.get(key, value) != value for key, value in binding.presets.items()):
            continue
        # The operands at the beginning are arrays that are differentiated; everything else goes by name.
        given, options, beginning = [], {}, True
        signature = inspect.signature(function).parameters
        for parameter, kind, _, targets in binding.parameters:
            value = next((sample[target] for target in targets if target in sample), None)
            by_position = signature[parameter].kind is not inspect.Parameter.KEYWORD_ONLY
            beginning = beginning and by_position and kind == "operand" and value is not None
            if beginning:
                given.append(value)
            elif kind in ("operand", "attribute") and value is not None:
                options[parameter] = as_python(binding.op, targets[0], value)
        if any(parameter == "reduction" for parameter, *_ in binding.parameters):
            options["reduction"] = sample.get("reduction", "sample")
        assert gr.check_grad(function, *given, **options) < 1e-6
        tried += 1
    assert tried


@pytest.mark.parity
@every_op
def test_agrees_with_pytorch(op: str) -> None:
    torch = pytest.importorskip("torch")
    twin = DECLARED[op].torch
    for rows in (0, 1, 33):
        for sample in samples(op, rows) if twin is not None else []:
            given = {name: torch.from_numpy(np.array(value)) for name, value in arrays(op, sample).items()}
            theirs = twin(**given, **attributes(op, sample))
            ours = call(op, sample, tuple(theirs))
            for name, value in theirs.items():
                assert agree(ours[name], value.detach().numpy(), 1e-12), (rows, name, sample)


@pytest.mark.parity
@every_derivative
def test_a_derivative_agrees_with_pytorch(case: Case) -> None:
    op, sample, derivative = case
    torch = pytest.importorskip("torch")
    given = {name: torch.from_numpy(np.array(value)) for name, value in arrays(op, sample).items()}
    wanted = [name for name in derivative.gives if name in sample]
    for name in wanted:
        given[name].requires_grad_()
    twin = DECLARED[op].torch
    assert twin is not None
    y = twin(**given, **attributes(op, sample))["y"]
    dy = np.random.default_rng(7).standard_normal(y.shape)
    theirs = torch.autograd.grad(y, [given[name] for name in wanted], torch.from_numpy(dy))
    ours = _gradients(sample, derivative, op, dy)
    for name, value in zip(wanted, theirs, strict=True):
        assert agree(ours[name], value.numpy(), 1e-11), name


def test_a_derivative_names_operands_that_exist() -> None:
    for op, _, derivative in DERIVATIVES:
        inside, other = operands(op), operands(derivative.op)
        assert set(derivative.reads) - {"draw"} <= set(other)
        assert set(derivative.reads.values()) - {DY, "draw"} <= set(inside)
        assert set(derivative.gives) <= set(inside)
        assert all(other[role]["access"] == "write" for role in derivative.gives.values())


@every_op
def test_a_number_that_is_not_finite_is_refused(op: str) -> None:
    """An attribute without a range, such as a factor of the gradient, takes infinities and NaN as NumPy does."""
    results = tuple(name for name, operand in operands(op).items() if operand["access"] != "read")
    sample = samples(op, 5)[0]
    for name in (attribute["name"] for attribute in SCHEMAS[op]["attributes"] if attribute["type"] == "real"):
        with pytest.raises(ValueError, match=rf"\[{op}\] {name} is too large for float64: must be a finite number"):
            call(op, {**sample, name: 10**400}, results)
        if name in ("grad_scale", "scale"):
            continue
        for value in (float("nan"), float("inf"), np.float64(-np.inf), np.float32(np.inf)):
            with pytest.raises(ValueError, match=rf"\[{op}\] {name} is -?(nan|inf): must be finite and "):
                call(op, {**sample, name: value}, results)
        with pytest.raises(ValueError, match=rf"\[{op}\] {name} is -1e-09: must be (at least|between) "):
            call(op, {**sample, name: -1e-9}, results)
