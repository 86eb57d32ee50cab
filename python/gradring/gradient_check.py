"""Gradients against finite differences, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.arguments import real, whole
from gradring.arrays import as_numbers
from gradring.errors import GradientMismatch
from gradring.ir import Input, trace
from gradring.ops._gradients import CONSTANT, Gradients, gradients_by_names

if TYPE_CHECKING:
    from gradring.nn.layer import Layer

__all__ = ["GradientMismatch", "check_grad"]

Array = NDArray[Any]
Vjp = Callable[..., Any]

_STEP = 1e-5
_SEED = 0x67726164  # an unusual seed, so that targets differ from numbers that a user drew with seed 0


def check_grad(
    op: Callable[..., Any] | Layer,
    *arrays: ArrayLike,
    vjp: Vjp | None = None,
    tolerance: float = 1e-6,
    max_elements: int = 100,
    **options: Any,
) -> float:
    """Compare gradients with central finite differences in float64; return the largest relative error.

    The function that is differentiated is ``sum(dy * op(*arrays, **options))`` for a random ``dy``, by every array of
    floats. The error of an element is ``|gradient - difference| / (1 + |gradient| + |difference|)``.

    Args:
        op: an operation of ``gr.ops`` that has a vjp; any function, with ``vjp``; or a layer of ``gr.nn``, which is
            checked by one array, its input, and by its parameters, in training (a copy: the layer stays as it is).
        arrays: the arguments of ``op``. Floats become float64; integers (labels) stay and are not differentiated.
        vjp: ``vjp(dy, *arrays, **options)`` for a function of your own: a tuple of gradients, one for each array (None
            where the function does not depend on it, or for integers), or the gradient alone where there is one array.
        tolerance: the largest error allowed.
        max_elements: how many elements of each array to differentiate; a random choice of them where there are more.
        options: keyword arguments of ``op``, such as ``activation="relu"``.

    Raises:
        ValueError: there is nothing to differentiate: all arrays are of integers, or empty.
        GradientMismatch: a GradringError and an AssertionError; names the array, the element and both numbers.

    >>> import numpy as np, gradring as gr
    >>> x = np.linspace(-2, 2, 12).reshape(3, 4)
    >>> gr.check_grad(gr.ops.gelu, x) < 1e-6
    True
    >>> gr.check_grad(gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.Tanh(), gr.nn.Linear(5, 2)), x) < 1e-6
    True
    >>> gr.check_grad(np.square, x, vjp=lambda dy, x: 3 * x * dy)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    gradring.errors.GradientMismatch: [check_grad] square: the gradient by argument 0 at [...] is ..., \
finite differences give ...: relative error 0.1... is above 1e-06
    """
    from gradring.nn.layer import Layer

    tolerance = real("check_grad", "tolerance", tolerance, above=0)
    max_elements = whole("check_grad", "max_elements", max_elements, 1)
    rng = np.random.default_rng(_SEED)
    given = [_as_double(number, array) for number, array in enumerate(arrays)]
    if isinstance(op, Layer):
        if len(given) != 1:
            raise ValueError(f"[check_grad] a layer is checked by one array, its input: got {len(given)}")
        if options or vjp is not None:
            raise ValueError("[check_grad] a layer takes no vjp and no options")
        return _check_layer(op, given[0], rng, tolerance, max_elements)
    name = getattr(op, "__name__", "function")
    if not any(array.dtype == np.float64 for array in given):
        raise ValueError(
            f"[check_grad] {name}: there is nothing to check, because no argument is of floats, and integers are not "
            "differentiated: give arrays of floats"
        )
    rule = _own_rule(vjp) if vjp is not None else _rule(name)
    outputs = np.asarray(op(*given, **options), dtype=np.float64)
    dy = rng.standard_normal(outputs.shape)
    gradients = rule(dy, given, outputs, options)
    worst = _Worst(name, tolerance)
    if len(gradients) != len(given):
        raise GradientMismatch(
            f"[check_grad] {name}: the vjp gives {len(gradients)} gradients for {len(given)} arguments: it must return a "
            "tuple with one for each, None for those that have none"
        )
    for number, (array, gradient) in enumerate(zip(given, gradients, strict=True)):
        if gradient is CONSTANT or array.dtype != np.float64:
            continue
        if gradient is None:  # None means that the result does not depend on this argument
            gradient = np.zeros(array.shape)
        worst.require_shape(f"argument {number}", np.shape(gradient), array.shape)

        def total() -> float:
            return float(np.sum(dy * op(*given, **options)))

        for index, difference in _differences(array, total, rng, max_elements):
            worst.add(f"argument {number}", index, float(np.asarray(gradient)[index]), difference)
    return worst.finish()


def _as_double(number: int, array: ArrayLike) -> Array:
    values = as_numbers("check_grad", f"argument {number}", array)
    return np.array(values, dtype=np.float64) if values.dtype.kind == "f" else values.copy()


def _differences(
    array: Array, total: Callable[[], float], rng: np.random.Generator, max_elements: int
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Central differences of ``total()`` by elements of ``array``, which it changes and restores."""
    chosen: Iterable[int] = range(array.size)
    if array.size > max_elements:
        chosen = np.sort(rng.choice(array.size, max_elements, replace=False)).tolist()
    for flat in chosen:
        index = tuple(int(i) for i in np.unravel_index(flat, array.shape))
        value = float(array[index])
        step = _STEP * max(1.0, abs(value))
        array[index] = value + step
        above, upper = float(array[index]), total()
        array[index] = value - step
        below, lower = float(array[index]), total()
        array[index] = value
        yield index, (upper - lower) / (above - below)


class _Worst:
    """The largest error so far, and where it is."""

    def __init__(self, name: str, tolerance: float) -> None:
        self.name, self.tolerance = name, tolerance
        self.error, self.compared = 0.0, 0
        self.text = ""

    def require_shape(self, what: str, got: tuple[int, ...], want: tuple[int, ...]) -> None:
        if got != want:
            raise GradientMismatch(f"[check_grad] {self.name}: the gradient by {what} is {got}: must be {want}")

    def add(self, what: str, index: tuple[int, ...], gradient: float, difference: float) -> None:
        error = abs(gradient - difference) / (1 + abs(gradient) + abs(difference))
        self.compared += 1
        if not error <= self.error:  # NaN counts as worst
            self.error = error if error == error else float("inf")
            self.text = f"the gradient by {what} at {list(index)} is {gradient:.10g}, finite differences give "
            self.text += f"{difference:.10g}: " + (
                f"relative error {self.error:.3g} is above {self.tolerance:g}"
                if error == error
                else "NaN and infinity cannot be compared; give arguments at which the function and its gradient are finite"
            )

    def finish(self) -> float:
        if not self.compared:
            raise ValueError(
                f"[check_grad] {self.name}: there is nothing to check, because no argument of floats has an element: give "
                "arrays that are not empty"
            )
        if self.error > self.tolerance:
            raise GradientMismatch(f"[check_grad] {self.name}: {self.text}")
        return self.error


# rule(dy, arrays, output, options) -> gradients in the order of the arrays.
def _own_rule(vjp: Vjp) -> Gradients:
    def rule(dy: Array, arrays: list[Array], output: Array, options: Mapping[str, Any]) -> tuple[Any, ...]:
        gradients = vjp(dy, *arrays, **options)
        if isinstance(gradients, list) and len(arrays) > 1:
            return tuple(gradients)
        return gradients if isinstance(gradients, tuple) else (gradients,)

    return rule


def _known(name: str) -> Gradients | None:
    """The gradients of a function of ``gradring.ops``, from its own declaration or from its vjp; None if it has
    neither."""
    from gradring import ops

    if name not in ops.__all__:
        return None
    function: Any = getattr(ops, name)
    if function.gradients is not None:
        own: Gradients = function.gradients
        return own
    return gradients_by_names(function, getattr(ops, f"{name}_vjp")) if f"{name}_vjp" in ops.__all__ else None


def _rule(name: str) -> Gradients:
    from gradring import ops

    rule = _known(name)
    if rule is None:
        known = ", ".join(other for other in ops.__all__ if _known(other) is not None)
        raise ValueError(f"[check_grad] {name} has no vjp that is known: give vjp=, or one of {known}")
    return rule


def _reads_integers(layer: Layer, x: Array) -> bool:
    graph, _ = trace(layer, {"x": Input(x.shape, integers=True)}, training=True)
    return graph.values["x"].dtype == "int64"


def _check_layer(layer: Layer, x: Array, rng: np.random.Generator, tolerance: float, max_elements: int) -> float:
    """Trains a float64 copy with a learning rate of 0, behind a linear layer whose weight is the input: for the unit
    matrix that layer returns its weight, so the gradient of its weight is the one of the input. A layer that reads
    ids has no gradient with respect to its input, and gets the ids themselves."""
    from gradring import nn, optim
    from gradring.session import Session

    ids = x.dtype.kind in "iu" and _reads_integers(layer, x)
    if not ids and (x.dtype != np.float64 or x.ndim < 2 or x.shape[0] == 0):
        raise ValueError(f"[check_grad] the input is {x.shape} of {x.dtype}: must be floats of (batch, features)")
    layer.ensure()
    twin = copy.deepcopy(layer).astype("float64")
    rows, features = x.shape[0], int(np.prod(x.shape[1:]))
    parts: list[Layer] = [] if ids else [nn.Linear(rows, features, bias=False)]
    if not ids and x.ndim > 2:
        shape = x.shape[1:]
        parts.append(
            nn.Function(
                lambda flat: flat.reshape(-1, *shape),
                lambda dy, flat, y: dy.reshape(-1, features),
                shape=lambda flat: (flat[0], *shape),
            )
        )
    model = nn.Sequential(*parts, twin)
    session = Session(model, optimizer=optim.SGD(0.0), loss="mse", dtype="float64", fuse_update=False)
    if not ids:
        session.params["0.weight"][...] = x.reshape(rows, features)
    fed = x if ids else np.eye(rows)
    target = rng.standard_normal(model(fed).shape)
    draws = session.draw_count

    def total() -> float:
        session.draw_count = draws  # use the same dropout masks every time
        return float(session.step(fed, target)) * target.size

    total()
    gradients = {key: value.copy() * target.size for key, value in session.grads.items()}
    worst = _Worst(type(layer).__name__, tolerance)
    for key, array in session.params.items():
        of_input = not ids and key == "0.weight"
        what = "the input" if of_input else f"parameter {key.partition('.')[2]!r}"
        for index, difference in _differences(array, total, rng, max_elements):
            place_in_x = index
            if of_input and x.ndim > 2:
                place_in_x = (index[0], *(int(i) for i in np.unravel_index(index[1], x.shape[1:])))
            worst.add(what, place_in_x, float(gradients[key][index]), difference)
    return worst.finish()
