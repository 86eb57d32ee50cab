"""Parameters by name, as a mapping of live arrays."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from gradring.arrays import as_numbers
from gradring.cuda import Array

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Params", "write"]


def write(view: Any, array: NDArray[Any], casting: Literal["same_kind", "unsafe"] = "same_kind") -> None:
    """Write an array into a parameter, in the memory of the host or of a device."""
    if isinstance(view, Array):
        view[...] = array
    else:
        np.copyto(view, array, casting=casting)


def _on_host(value: Any) -> Any:
    return value.numpy() if isinstance(value, Array) else value


class Params(dict[str, NDArray[Any]]):
    """A dict of views whose names are fixed: assigning to one writes the values into the view.

    >>> weights = Params({"w": np.zeros(2, np.float32)})
    >>> view = weights["w"]
    >>> weights["w"] = [1, 2]
    >>> view.tolist()
    [1.0, 2.0]
    """

    def __setitem__(self, name: str, value: Any) -> None:
        view = self._view(name)
        if value is view:  # `params[name] += ...` has changed it already
            return
        array = as_numbers("params", repr(name), _on_host(value))
        if array.shape != view.shape:
            raise ValueError(f"[params] {name!r} is {view.shape}, the values given are {array.shape}: must be the same")
        write(view, array, casting="same_kind" if array.dtype.kind == "f" else "unsafe")

    def update(self, *args: Any, **named: Any) -> None:
        """Write values to the given names; if one does not fit, nothing is written."""
        new = dict(*args, **named)
        for name, value in new.items():
            view = self._view(name)
            if (shape := as_numbers("params", repr(name), _on_host(value)).shape) != view.shape:
                raise ValueError(f"[params] {name!r} is {view.shape}, the values given are {shape}: must be the same")
        for name, value in new.items():
            self[name] = value

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def copy(self) -> dict[str, NDArray[Any]]:
        """A plain dict of the same views."""
        return dict(self)

    def __copy__(self) -> dict[str, NDArray[Any]]:
        return dict(self)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(self._unknown(name))

    def _view(self, name: str) -> NDArray[Any]:
        if name not in self:
            raise KeyError(self._unknown(name))
        return self[name]

    def _unknown(self, name: Any) -> str:
        close = difflib.get_close_matches(str(name), list(self), 3)
        return f"[params] there is no parameter {name!r}: {'did you mean' if close else 'the names are'} " + ", ".join(
            map(repr, close or list(self)[:20])
        )

    def _fixed(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("[params] the model's parameters cannot be removed or added; assign values to their names")

    __delitem__ = pop = popitem = clear = _fixed

    def setdefault(self, name: str, default: Any = None) -> NDArray[Any]:
        return self._view(name)
