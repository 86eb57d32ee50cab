"""Number: a number that a CUDA device has not computed yet."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Number"]


class Number:
    """A float that a device computes, such as the loss of a step.

    Each use waits for the device, and then does what it does with a ``float``: ``float(number)``, comparisons, arithmetic,
    formats, printing, ``numpy.asarray``, pickling and copying. If the step has failed on the device, each use raises its error.
    A number that is never used costs no wait.

    >>> float(Number(lambda: 0.5)), f"{Number(lambda: 0.5):.2f}", Number(lambda: 0.5) + 1
    (0.5, '0.50', 1.5)
    """

    __slots__ = ("__weakref__", "_read", "_value")

    def __init__(self, read: Callable[[], float]) -> None:
        self._read: Callable[[], float] | None = read
        self._value = math.nan

    def __float__(self) -> float:
        read = self._read
        if read is not None:
            self._value = float(read())  # what this raises is raised again by the next reading
            self._read = None
        return self._value

    def item(self) -> float:
        """The number as a ``float``, as NumPy's and CuPy's scalars give it."""
        return float(self)

    def is_integer(self) -> bool:
        """Whether it is a whole number."""
        return float(self).is_integer()

    def as_integer_ratio(self) -> tuple[int, int]:
        """Two whole numbers whose quotient it is."""
        return float(self).as_integer_ratio()

    @property
    def real(self) -> float:
        """The number itself."""
        return float(self)

    @property
    def imag(self) -> float:
        """Zero."""
        return 0.0

    def conjugate(self) -> float:
        """The number itself."""
        return float(self)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("[gr.cuda.Number] copy is False: a number on a device needs a copy")
        return np.asarray(float(self), dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)  # a copy, and what is unpickled, is a float

    def __repr__(self) -> str:
        return repr(float(self))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)

    def __hash__(self) -> int:
        return hash(float(self))

    def __bool__(self) -> bool:
        return bool(float(self))

    def __int__(self) -> int:
        return int(float(self))

    def __trunc__(self) -> int:
        return math.trunc(float(self))

    def __floor__(self) -> int:
        return math.floor(float(self))

    def __ceil__(self) -> int:
        return math.ceil(float(self))

    def __round__(self, digits: int | None = None) -> float:
        return round(float(self), digits)

    def __complex__(self) -> complex:
        return complex(float(self))

    def __neg__(self) -> float:
        return -float(self)

    def __pos__(self) -> float:
        return +float(self)

    def __abs__(self) -> float:
        return abs(float(self))

    def __eq__(self, other: object) -> Any:
        return float(self) == other

    def __ne__(self, other: object) -> Any:
        return float(self) != other

    def __lt__(self, other: Any) -> Any:
        return float(self) < other

    def __le__(self, other: Any) -> Any:
        return float(self) <= other

    def __gt__(self, other: Any) -> Any:
        return float(self) > other

    def __ge__(self, other: Any) -> Any:
        return float(self) >= other

    def __add__(self, other: Any) -> Any:
        return float(self) + other

    def __radd__(self, other: Any) -> Any:
        return other + float(self)

    def __sub__(self, other: Any) -> Any:
        return float(self) - other

    def __rsub__(self, other: Any) -> Any:
        return other - float(self)

    def __mul__(self, other: Any) -> Any:
        return float(self) * other

    def __rmul__(self, other: Any) -> Any:
        return other * float(self)

    def __truediv__(self, other: Any) -> Any:
        return float(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / float(self)

    def __floordiv__(self, other: Any) -> Any:
        return float(self) // other

    def __rfloordiv__(self, other: Any) -> Any:
        return other // float(self)

    def __mod__(self, other: Any) -> Any:
        return float(self) % other

    def __rmod__(self, other: Any) -> Any:
        return other % float(self)

    def __divmod__(self, other: Any) -> Any:
        return divmod(float(self), other)

    def __rdivmod__(self, other: Any) -> Any:
        return divmod(other, float(self))

    def __pow__(self, other: Any) -> Any:
        return float(self) ** other

    def __rpow__(self, other: Any) -> Any:
        return other ** float(self)


numbers.Real.register(Number)
