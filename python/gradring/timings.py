"""How the time of a training run was spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gradring.tables import html

__all__ = ["Timings"]

# The phases in the order in which they are shown, with advice for each if it is the bottleneck.
_PHASES = {
    "data": "gathering batches: larger batches, or float32 contiguous arrays",
    "compute": "arithmetic: forward, loss and backward",
    "reduction": "adding gradients up",
    "update": "the optimizer: larger batches, or a lighter optimizer",
    "validation": "evaluating: validate less often or on fewer samples",
    "python": "callbacks and bookkeeping: fewer callbacks, longer epochs",
}


class Timings(Mapping[str, float]):
    """Seconds by phase: ``data``, ``compute``, ``reduction``, ``update``, ``validation`` and ``python``.

    >>> timings = Timings({"data": 0.1, "compute": 0.75, "update": 0.15})
    >>> timings.bottleneck, timings.total
    ('compute', 1.0)
    >>> print(timings)
    1.00 s: 75.0 % compute, 15.0 % update, 10.0 % data; the bottleneck is compute (arithmetic: forward, loss and
    backward)
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        unknown = set(seconds) - set(_PHASES)
        if unknown:
            raise ValueError(f"[Timings] unknown phases {sorted(unknown)}, expected some of {list(_PHASES)}")
        self._seconds = {phase: max(float(seconds.get(phase, 0.0)), 0.0) for phase in _PHASES}

    def __getitem__(self, phase: str) -> float:
        return self._seconds[phase]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seconds)

    def __len__(self) -> int:
        return len(self._seconds)

    @property
    def total(self) -> float:
        """Seconds in all phases."""
        return sum(self._seconds.values())

    @property
    def bottleneck(self) -> str:
        """The phase that took the most; empty before the first step."""
        return max(self._seconds, key=self._seconds.__getitem__) if self.total else ""

    def _repr_html_(self) -> str:
        share = 100 / self.total if self.total else 0.0
        rows = [(phase, f"{second:.3f}", f"{second * share:.1f}") for phase, second in self._seconds.items()]
        return html(("phase", "seconds", "%"), rows, caption=str(self))

    def __str__(self) -> str:
        if not self.total:
            return "no step yet"
        shares = sorted(((second / self.total, phase) for phase, second in self._seconds.items()), reverse=True)
        shown = ", ".join(f"{share:.1%}".replace("%", " %") + f" {phase}" for share, phase in shares if share >= 0.0005)
        return f"{self.total:.2f} s: {shown}; the bottleneck is {self.bottleneck} ({_PHASES[self.bottleneck]})"

    def __repr__(self) -> str:
        return f"Timings({self._seconds})"
