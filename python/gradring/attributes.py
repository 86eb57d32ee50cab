"""Attributes of the library's own objects: an assignment either takes effect or raises."""

from __future__ import annotations

import functools
from abc import ABCMeta
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from gradring.habits import hint_for, with_hint

__all__ = ["Explained", "Settled", "explain_read_only", "guarded"]


T = TypeVar("T")


def explain_read_only(cls: Any, instead: str) -> None:
    """Make an assignment to an attribute of a frozen dataclass raise an error that says what to do instead. Every instance
    that is made may call it, because the dataclass makes its methods after the class."""
    frozen = cls.__dict__.get("__setattr__")
    if frozen is None or hasattr(frozen, "explains"):
        return

    def assign(self: Any, name: str, value: Any) -> None:
        try:
            frozen(self, name, value)
        except FrozenInstanceError:
            raise FrozenInstanceError(f"[{type(self).__name__}] {name} is read-only: {instead}") from None

    assign.explains = True  # type: ignore[attr-defined]
    cls.__setattr__ = assign


class Explained(ABCMeta):
    """Makes Python's errors for the arguments of a constructor say what to do."""

    def __call__(cls, *args: Any, **named: Any) -> Any:
        try:
            # Without an __init__, Python ignores arguments that a __new__ of the library accepts for its subclasses.
            own = str(cls.__new__.__module__).startswith("gradring.")
            if (args or named) and own and cls.__init__ is object.__init__:  # type: ignore[misc]
                raise TypeError(f"{cls.__name__}() takes no arguments")
            return super().__call__(*args, **named)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # it comes from within the constructor
            raise with_hint(cls.__name__, error, named, cls.__signature__) from None

    @property
    def __signature__(cls) -> Any:
        """The arguments of the constructor, which ``inspect.signature`` and editors would else read from ``__call__``."""
        import inspect

        if cls.__init__ is object.__init__:  # type: ignore[misc]
            return inspect.Signature()
        whole = inspect.signature(cls.__init__)  # type: ignore[misc]
        return whole.replace(parameters=list(whole.parameters.values())[1:], return_annotation=inspect.Signature.empty)


class _SettledType(Explained):
    """Marks an object as complete when its ``__init__`` has returned, including those of subclasses."""

    def __call__(cls, *args: Any, **named: Any) -> Any:
        made = super().__call__(*args, **named)
        object.__setattr__(made, "_settled", True)
        return made


@functools.cache
def _guarded(kind: type) -> type:
    inner = {"__module__": kind.__module__, "__doc__": kind.__doc__, "_settled": True}
    return _SettledType(kind.__name__, (Settled, kind), inner)


def guarded(made: T) -> T:
    """A second object with the same attributes, which checks assignments to them as ``Settled`` does. The first object's own
    assignments cost no more than those of any class."""
    kind: type = type(made)
    view: T = object.__new__(_guarded(kind))
    object.__setattr__(view, "__dict__", made.__dict__)
    return view


class Settled(metaclass=_SettledType):
    """Makes public attributes read-only once the object is made, except those in ``_settable`` and properties that can
    be set. An unknown name raises ``AttributeError``, which suggests a similar name.

    A subclass outside this package may set any attribute whose name is not in ``_fixed``. Names that begin with an
    underscore are not checked.
    """

    _settable: ClassVar[frozenset[str]] = frozenset()
    _fixed: ClassVar[frozenset[str]] = frozenset()
    _settled = False

    if not TYPE_CHECKING:  # if a type checker saw this method, it would allow assignments to every name

        def __setattr__(self, name: str, value: Any) -> None:
            if name[:1] == "_" or not self._settled or name in self._settable:
                object.__setattr__(self, name, value)
                return
            if hasattr(value, "__ior__") and self.__dict__.get(name) is value:  # after `session.params |= {...}`
                return
            described = getattr(type(self), name, None)
            if isinstance(described, property) and described.fset is not None:
                object.__setattr__(self, name, value)
            elif name in self._fixed or type(self).__module__.startswith("gradring."):
                raise AttributeError(self._refusal(name))
            else:
                object.__setattr__(self, name, value)
                self._changed(name)

    def _changed(self, name: str) -> None:
        """Called when a subclass outside this package has changed one of its own attributes."""

    def _refusal(self, name: str) -> str:
        kind = type(self).__name__
        if name in dir(self):
            return f"[{kind}] {name} is read-only after construction: make a new {kind} with another one"
        hint = hint_for(kind, name, [known for known in dir(self) if known[:1] != "_"])
        return f"[{kind}] there is no attribute {name!r} to set{hint and ': ' + hint}"
