"""The base class of optimizers, which are small immutable descriptions. The arithmetic is native, in ``csrc/ops``."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import flag, plain, real
from gradring.attributes import Explained, explain_read_only
from gradring.errors import reason
from gradring.optim.groups import Group, as_groups, assigned
from gradring.optim.rates import Rate, as_schedule

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Groups", "Optimizer", "require_optimizer"]

Groups = Sequence[Mapping[str, Any] | Group]


@dataclass(frozen=True, repr=False)
class Optimizer(metaclass=Explained):
    """A rule for updating parameters, as data: ``kind`` names it and the fields are its hyperparameters.

    ``lr`` is a float, a schedule or a function from the step to a rate. ``state_names`` lists the arrays, of a parameter's
    shape, that the rule keeps for each parameter; all begin at zero.

    ``groups`` are dicts, each with ``"params"``, one or several patterns over the parameters' names, and the arguments
    that differ for the parameters that match. ``*`` in a pattern stands for any letters, including dots. Each pattern
    must match a parameter, and no parameter may be in two groups; parameters in no group have the optimizer's own
    arguments.

    >>> from gradring.optim import AdamW
    >>> AdamW(1e-3, groups=[{"params": "*.bias", "weight_decay": 0.0}, {"params": "0.weight", "lr": 1e-4}]).rule(1)
    AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, amsgrad=False)
    """

    lr: Rate
    groups: Groups = field(default=(), kw_only=True)

    kind: ClassVar[str]
    operand_names: ClassVar[Mapping[str, str]] = {}  # the eager op's names of states, where they differ

    def __new__(cls, *_: Any, **__: Any) -> Self:
        explain_read_only(
            cls, f"assign another optimizer, trainer.optimizer = gr.optim.{cls.__name__}(...), at any time"
        )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        as_schedule(self.lr, type(self).__name__, "lr")
        object.__setattr__(self, "lr", plain(self.lr))
        if not (isinstance(self.groups, tuple) and not self.groups):
            known = [f.name for f in fields(self) if f.name != "groups"]
            object.__setattr__(self, "groups", as_groups(type(self).__name__, self.groups, known))

    def __repr__(self) -> str:
        shown = [f.name for f in fields(self) if f.name != "groups"]
        said = [f"{name}={getattr(self, name)!r}" for name in shown]
        if self.groups:
            said.append(f"groups={list(self.groups)!r}")
        return f"{type(self).__name__}({', '.join(said)})"

    @property
    def state_names(self) -> tuple[str, ...]:
        return ()

    # Groups

    @cached_property
    def rules(self) -> tuple[Optimizer, ...]:
        """This rule without groups, and then that of each group."""
        if not self.groups:
            return (self,)
        plain = replace(self, groups=())
        made = [plain]
        for number, group in enumerate(self._groups):
            own = f"[{type(self).__name__}] "
            where = f"{own}groups[{number}]"
            try:
                rule = replace(plain, **group.options)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{where}: {reason(error)}") from None
            if not set(rule.state_names) <= set(plain.state_names):
                extra = ", ".join(name for name in rule.state_names if name not in plain.state_names)
                raise ValueError(
                    f"{where} needs the state {extra!r}, which {plain} does not keep: give the argument to the optimizer, "
                    "and switch it off in the groups that go without"
                )
            made.append(rule)
        return tuple(made)

    def _check_betas(self) -> None:
        """Check two numbers below 1, and make them a tuple."""
        betas: Any = getattr(self, "betas", None)
        betas = betas.tolist() if isinstance(betas, np.ndarray) else betas
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"[{type(self).__name__}] betas must be two numbers, got {betas!r}")
        betas = tuple(map(plain, betas))
        object.__setattr__(self, "betas", betas)
        for i, beta in enumerate(betas):
            self._check(f"betas[{i}]", beta, below=1.0)

    def _check_groups(self) -> None:
        """Check that every group's arguments make a valid rule. Each ``__post_init__`` ends with this."""
        self.rule(len(self.groups))

    @property
    def _groups(self) -> tuple[Group, ...]:
        return tuple(group for group in self.groups if isinstance(group, Group))

    def rule(self, number: int) -> Optimizer:
        """The rule for the parameters of group ``number``, from 1; 0: for those in no group."""
        return self.rules[number]

    def assigned(self, names: Sequence[str], frozen: Collection[str] = ()) -> list[int]:
        """The number of the rule for each of these parameters that is not ``frozen``; ``ValueError`` if a pattern matches
        none of them, or two groups the same one.

        >>> from gradring.optim import SGD
        >>> SGD(0.1, groups=[{"params": "*.bias", "lr": 0.2}]).assigned(["0.weight", "0.bias", "2.weight"])
        [0, 1, 0]
        """
        return assigned(type(self).__name__, self._groups, names, frozen)

    # Learning rates

    @cached_property
    def rates(self) -> tuple[Rate, ...]:
        """The different learning rates of the groups, the optimizer's own first."""
        found: list[Rate] = []
        for rule in self.rules:
            if rule.lr not in found:
                found.append(rule.lr)
        return tuple(found)

    def learning_rates(self, first: int, count: int) -> NDArray[np.float64]:
        """The learning rates of ``count`` consecutive updates, the first of which is update number ``first`` from 0.

        >>> from gradring.optim import SGD, schedule
        >>> SGD(schedule.linear(1.0, 0.0, steps=4)).learning_rates(0, 3)
        array([1.  , 0.75, 0.5 ])
        """
        return as_schedule(self.lr).range(first, count)

    def all_learning_rates(self, first: int, count: int) -> NDArray[np.float64]:
        """The same as ``learning_rates``; if groups have other rates than the optimizer, with a column for each of
        ``rates``."""
        if len(self.rates) == 1:
            return self.learning_rates(first, count)
        return np.stack([as_schedule(rate).range(first, count) for rate in self.rates], axis=1)

    def learning_rate(self, update: int) -> float:
        """The learning rate of one update, counted from 0.

        >>> from gradring.optim import SGD, schedule
        >>> SGD(schedule.linear(1.0, 0.0, steps=4)).learning_rate(1), SGD(0.1).learning_rate(7)
        (0.75, 0.1)
        """
        return float(self.learning_rates(update, 1)[0]) if callable(self.lr) else float(self.lr)

    # The op

    def hyperparameters(self) -> dict[str, Any]:
        """Everything but the learning rate and the groups, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("lr", "groups")}

    def native(self) -> tuple[str, dict[str, Any]]:
        """The op of a program that applies the rule (``csrc/ops``), and its attributes.

        >>> from gradring.optim import SGD
        >>> SGD(0.1, momentum=0.9).native()
        ('sgd', {'momentum': 0.9, 'nesterov': False, 'weight_decay': 0.0})
        """
        return self.kind, self.hyperparameters()

    def update(self) -> tuple[str, dict[str, Any], dict[str, str]]:
        """The op that applies the rule to arrays, its attributes, and the name of the operand for each state of the rule.

        >>> from gradring.optim import SGD
        >>> SGD(0.1, momentum=0.9).update()[::2]
        ('sgd_update', {'momentum': 'velocity'})
        """
        op, attributes = self.native()
        return f"{op}_update", attributes, {state: self.operand_names.get(state, state) for state in self.state_names}

    def goes_on_from(self, before: Optimizer) -> bool:
        """Whether this rule can use the state of ``before``: if both have the same op, arrays of the same name mean the
        same.

        >>> from gradring.optim import Adam, AdamW, Lion
        >>> AdamW(0.1).goes_on_from(Adam(0.1)), Adam(0.1).goes_on_from(Lion(0.1))
        (True, False)
        """
        if self.native()[0] != before.native()[0]:
            return False
        return not self.state_names or bool(set(self.state_names) & set(before.state_names))

    def native_of(self, number: int) -> tuple[str, dict[str, Any]]:
        """The same as ``native``, for the parameters of a group: ``rate`` is the number of its learning rate among
        ``rates``."""
        rule = self.rules[number]
        op, attributes = rule.native()
        rate = self.rates.index(rule.lr)
        return op, {**attributes, "rate": rate} if rate else attributes

    def _check(self, argument: str, value: float, below: float = math.inf) -> None:
        """Check that ``0 <= value < below``; the error names the argument."""
        real(type(self).__name__, argument, value, least=0, below=below)
        if value is not plain(value):
            object.__setattr__(self, argument, plain(value))

    def _check_flag(self, argument: str) -> None:
        """Check that an argument is True or False, and keep it as Python's."""
        object.__setattr__(self, argument, flag(type(self).__name__, argument, getattr(self, argument)))


def _every_rule(base: type[Optimizer]) -> Iterator[type[Optimizer]]:
    for rule in base.__subclasses__():
        yield rule
        yield from _every_rule(rule)


def require_optimizer(optimizer: Any) -> None:
    """Raise ``TypeError``, which says what to do, unless a trainer accepts this as its optimizer."""
    if isinstance(optimizer, Optimizer):
        return
    got = repr(optimizer) if isinstance(optimizer, str) else type(optimizer).__name__
    hint = ""
    if isinstance(optimizer, str):
        known = {rule.kind: rule.__name__ for rule in _every_rule(Optimizer) if hasattr(rule, "kind")}
        hint = f": write optimizer=gr.optim.{known.get(optimizer.lower(), 'AdamW')}(lr)"
    elif isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        got, hint = f"the class {optimizer.__name__}", f": write optimizer=gr.optim.{optimizer.__name__}(lr)"
    raise TypeError(f"[Trainer] optimizer must be one of gr.optim, got {got}{hint}")
