"""How products of float32 matrices are computed: the choice, and the warning where it makes them slower."""

from __future__ import annotations

import warnings
from typing import Any, cast, get_args

from gradring import _core
from gradring.arguments import choice, frames_inside
from gradring.choices import Products

__all__ = ["checked", "get_float32_products", "set_float32_products", "settled", "warn_if_slow"]

# How much faster than multiply-adds the unit must be. Its rate is measured with one piece, where it waits more for operands.
_ADVANTAGE = {"pieces3": 5.5, "pieces2": 3.5}
_warned: set[str] = set()


def set_float32_products(products: Products) -> None:
    """Choose how products of float32 matrices are computed from now on, by ``gr.ops`` and by models that are called.

    ``"fma"``, as at the start, is a chain of fused multiply-adds for each element. ``"pieces3"`` cuts each number into three
    bfloat16 pieces, and adds six products of pieces in the processor's tile unit (Intel AMX): its error is below that of
    ``"fma"`` for dense operands, and at most three times it where few terms make up a sum; the bits are others, and large
    products are faster. ``"pieces2"`` cuts into two pieces and adds three products: faster
    still, but up to 2**-15 of the product of the magnitudes is lost. Numbers that pieces cannot hold (infinite, NaN, very large
    or very small ones) give what ``"fma"`` gives, and small products are computed by multiply-adds.

    The results have the same bits for any number of threads and, among processors with fused multiply-adds, on every machine.
    Without a tile unit, an emulation computes them, slowly, and a ``RuntimeWarning`` says so once. A call can choose for
    itself: ``gr.ops.matmul(a, b, products=...)``, ``gr.Trainer(model, products=...)``. A trainer without ``products`` takes the
    choice that holds when it is made.

    Args:
        products: ``"fma"``, ``"pieces3"`` or ``"pieces2"``.

    Raises:
        ValueError: another word. TypeError: not a word.

    >>> import gradring as gr
    >>> gr.set_float32_products("fma")
    >>> gr.get_float32_products()
    'fma'
    """
    _core.set_float32_products(checked("set_float32_products", products))


def get_float32_products() -> Products:
    """Return what ``set_float32_products`` has chosen.

    >>> import gradring as gr
    >>> gr.get_float32_products()
    'fma'
    """
    return cast(Products, _core.get_float32_products())


def checked(where: str, products: Any) -> Products:
    """The choice, after the warning that it may need; errors begin with ``where``."""
    word: Products = choice(where, "products", products, get_args(Products))
    warn_if_slow(word)
    return word


def settled(where: str, products: Any) -> Products:
    """The choice; None is that of ``set_float32_products``."""
    return get_float32_products() if products is None else checked(where, products)


def warn_if_slow(products: str) -> None:
    """Warn, once per process and choice, if this machine computes such products more slowly than by multiply-adds."""
    if products not in _ADVANTAGE or products in _warned or _core.tile_unit_advantage() >= _ADVANTAGE[products]:
        return
    _warned.add(products)
    state, rate = _core.tile_unit(), _core.tile_unit_advantage()
    why = f"is {state}" if state != "permitted" else f"is only {rate:.1f} times as fast as multiply-adds"
    if state == "permitted" and not rate:
        why = "computes wrong sums, so an emulation stands in"
    warnings.warn(
        f"products={products!r} is slower than 'fma' on this machine, because the processor's tile unit (AMX) {why}. The "
        "results are right. `gradring doctor` says more; products='fma' is fast here",
        RuntimeWarning,
        stacklevel=frames_inside(),
    )
