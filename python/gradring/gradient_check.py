"""Gradients against finite differences, in float64."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
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
_LEAST = 1e-3  # the least scale of gradients: those that should be 0 have rounding errors
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
    floats. The error of an element is ``|gradient - difference| / (s + |gradient| + |difference|)``. There ``s`` is 1 or, if
    that is smaller, as after a mean over many elements, the array's largest gradient, but at least 0.001. At a kink, such as
    0 of ``relu``, any gradient between the slopes of both sides is right.

    Args:
        op: an operation of ``gr.ops`` that has a vjp; any function, with ``vjp``; or a layer of ``gr.nn``, which is
            checked by one array, its input, and by its parameters, in training (a copy: the layer stays as it is).
        arrays: the arguments of ``op``. Floats become float64; integers (labels) stay and are not differentiated.
        vjp: ``vjp(dy, *arrays, **options)`` for a function of your own: a tuple of gradients, one for each array (None
            where the function does not depend on it, or for integers), or the gradient alone where there is one array.
        tolerance: the largest error allowed.
        max_elements: how many elements of each array to differentiate one by one; a random choice of them where there are
            more. The others are then moved together, and one by one where that shows an error.
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
    given_op: Any = op
    if isinstance(given_op, functools.partial) and not given_op.args and vjp is None:
        # An operation with options, such as partial(gr.ops.gelu, approximate="none").
        op, options = given_op.func, {**given_op.keywords, **options}
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

        def total() -> Array:
            return np.asarray(dy * op(*given, **options))

        worst.compare(f"argument {number}", array, np.asarray(gradient), _Slopes(array, total), rng, max_elements)
    return worst.finish()


def _as_double(number: int, array: ArrayLike) -> Array:
    values = as_numbers("check_grad", f"argument {number}", array)
    return np.array(values, dtype=np.float64) if values.dtype.kind == "f" else values.copy()


class _Slopes:
    """Differences of ``total()``, an array of terms or their sum, by ``array``, which is changed and restored."""

    def __init__(self, array: Array, total: Callable[[], Array | float]) -> None:
        self.array, self.total = array, total
        self.noise = 0.0  # what rounding alone may add to the last difference, generously

    def by(self, index: tuple[int, ...], down: float = 1.0, up: float = 1.0) -> float:
        """The difference by one element, with these parts of the step below and above it."""
        value = float(self.array[index])
        step = _STEP * max(1.0, abs(value))
        self.array[index] = value + up * step
        above, upper = float(self.array[index]), np.asarray(self.total())
        self.array[index] = value - down * step
        below, lower = float(self.array[index]), np.asarray(self.total())
        self.array[index] = value
        return self._slope(upper, lower, above - below)

    def along(self, direction: Array) -> float:
        """The difference when all elements move by ``direction`` times the step."""
        before = self.array.copy()
        self.array[...] = before + _STEP * direction
        upper = np.asarray(self.total())
        self.array[...] = before - _STEP * direction
        lower = np.asarray(self.total())
        self.array[...] = before
        return self._slope(upper, lower, 2 * _STEP)

    def _slope(self, upper: Array, lower: Array, step: float) -> float:
        changes = upper - lower  # before the sum, so that terms that do not change add no rounding
        changed = float(np.sum(np.abs(upper), where=changes != 0))
        self.noise = 100 * float(np.finfo(np.float64).eps) * changed / step
        return float(np.sum(changes)) / step


class _Worst:
    """The largest error so far, and where it is."""

    def __init__(self, name: str, tolerance: float) -> None:
        self.name, self.tolerance = name, tolerance
        self.error, self.compared = 0.0, 0
        self.text, self._scale, self._tries = "", 1.0, 0

    def require_shape(self, what: str, got: tuple[int, ...], want: tuple[int, ...]) -> None:
        if got != want:
            raise GradientMismatch(f"[check_grad] {self.name}: the gradient by {what} is {got}: must be {want}")

    def compare(
        self,
        what: str,
        array: Array,
        gradient: Array,
        slopes: _Slopes,
        rng: np.random.Generator,
        most: int,
        place: Callable[[tuple[int, ...]], tuple[int, ...]] = tuple,
    ) -> None:
        """Compare the gradients by elements of ``array`` with differences. ``place`` is an element's index in what the user
        gave."""
        chosen = np.arange(array.size)
        if array.size > most:
            chosen = np.sort(rng.choice(array.size, most, replace=False))
        compared, sizes, noise = [], [0.0], 0.0
        for flat in chosen:
            index = tuple(int(i) for i in np.unravel_index(flat, array.shape))
            compared.append((index, float(gradient[index]), slopes.by(index)))
            sizes += map(abs, compared[-1][1:])
            noise = max(noise, slopes.noise)
        largest = max(sizes)
        self._scale = min(1.0, max(largest, noise / self.tolerance, _LEAST)) if np.isfinite(sizes).all() else 1.0
        for index, given, difference in compared:
            self._add_element(what, index, given, difference, slopes, place)
        if array.size > most and self.error <= self.tolerance:
            self._tries = 20 * most  # a bound of the time where the function has kinks everywhere
            rest = np.setdiff1d(np.arange(array.size), chosen)
            self._search(what, rest, rng.standard_normal(rest.size), gradient, slopes, place)

    def _search(
        self,
        what: str,
        among: NDArray[np.intp],
        moves: Array,
        gradient: Array,
        slopes: _Slopes,
        place: Callable[[tuple[int, ...]], tuple[int, ...]],
    ) -> None:
        """Move elements together, and halve them until an element is found whose gradient is wrong."""
        self._tries -= 1
        direction = np.zeros(gradient.size)
        direction[among] = moves
        parts = gradient.ravel()[among] * moves
        expected = float(np.sum(parts))
        difference = slopes.along(direction.reshape(gradient.shape))
        allowed = 0.1 * self.tolerance * (self._scale + float(np.linalg.norm(parts))) + slopes.noise
        if abs(expected - difference) <= allowed:
            return
        if len(among) > 1:
            half = len(among) // 2
            for part in (slice(None, half), slice(half, None)):
                if self.error <= self.tolerance and self._tries > 0:
                    self._search(what, among[part], moves[part], gradient, slopes, place)
            return
        index = tuple(int(i) for i in np.unravel_index(among[0], gradient.shape))
        self._add_element(what, index, float(gradient[index]), slopes.by(index), slopes, place)

    def _add_element(
        self,
        what: str,
        index: tuple[int, ...],
        gradient: float,
        difference: float,
        slopes: _Slopes,
        place: Callable[[tuple[int, ...]], tuple[int, ...]],
    ) -> None:
        error = self._error(gradient, difference)
        if error > self.tolerance and self._is_slope_at_kink(index, gradient, difference, slopes):
            difference = gradient
        self.add(what, place(index), gradient, difference)

    def _is_slope_at_kink(self, index: tuple[int, ...], gradient: float, difference: float, slopes: _Slopes) -> bool:
        """Whether the function has a kink within the step, and the gradient is between the slopes of both sides: without a
        kink, these differ by much less than themselves."""
        sides = slopes.by(index, up=0.0), slopes.by(index, down=0.0)
        apart = abs(sides[1] - sides[0])
        if not apart > 1e-3 * (abs(gradient) + abs(difference)) + 10 * slopes.noise:
            return False
        allowed = self.tolerance * (self._scale + abs(gradient)) + 2 * slopes.noise
        return min(sides) - allowed <= gradient <= max(sides) + allowed

    def _error(self, gradient: float, difference: float) -> float:
        return abs(gradient - difference) / ((self._scale + abs(gradient) + abs(difference)) or 1.0)

    def add(self, what: str, index: tuple[int, ...], gradient: float, difference: float) -> None:
        error = self._error(gradient, difference)
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
        raise ValueError(
            f"[check_grad] {name} has no vjp that is known: give vjp=, or one of {known}; options go to check_grad itself, "
            "check_grad(gr.ops.gelu, x, approximate='none')"
        )
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
        place: Callable[[tuple[int, ...]], tuple[int, ...]] = tuple
        if of_input and x.ndim > 2:

            def place(index: tuple[int, ...]) -> tuple[int, ...]:
                return index[0], *(int(i) for i in np.unravel_index(index[1], x.shape[1:]))

        worst.compare(what, array, gradients[key], _Slopes(array, total), rng, max_elements, place)
    return worst.finish()
