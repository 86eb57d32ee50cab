"""Where a loader stands: its epoch, and its position there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from gradring import arguments
from gradring.attributes import Settled
from gradring.loader.pipelines import PipelineLease
from gradring.sources._selection import Selection

__all__ = ["MOST_KEY", "LoaderPosition"]

MOST_KEY = 2**64 - 1  # the key of the shuffle has 64 bits of seed and 64 bits of epoch


class LoaderPosition(Settled):
    """The part of a ``Loader`` that knows its position."""

    seed: int
    shuffle: bool
    samples: int
    _selections: tuple[Selection, ...]
    _epoch: int
    _position: int  # where the next pass begins in the epoch's order
    _begun: bool
    _current: PipelineLease | None  # the lease of the pass that moves the loader's position

    def _advance(self) -> None:
        self._epoch = (self._epoch + 1) & MOST_KEY  # after the last number comes the first
        self._position, self._begun, self._current = 0, False, None

    @property
    def epoch(self) -> int:
        """The epoch of the current pass, or else of the next one. An assignment does the same as ``set_epoch``."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, which begins at its first batch."""
        self._epoch = arguments.whole("Loader", "epoch", epoch, 0, MOST_KEY)
        self._position, self._begun, self._current = 0, False, None

    def state_dict(self) -> dict[str, int]:
        """The loader's position: a few integers. A batch counts as delivered when the loop gets it."""
        position = self._position if self._current is None else self._current.pipeline.position
        return {
            "epoch": self.epoch,
            "position": position,
            "seed": self.seed,
            "samples": self.samples,
            "shuffle": int(self.shuffle),
            "indices": self._selection_key,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue at the position of ``state_dict``, with any number of ranks and workers."""
        if not isinstance(state, Mapping) or not {"epoch", "seed"} <= state.keys():
            raise ValueError(
                f"[Loader] a state is what state_dict() returned, with an epoch and a seed; got {state!r:.200}"
            )
        samples = arguments.whole("Loader", "state['samples']", state.get("samples", self.samples), 0)
        if samples != self.samples:
            raise ValueError(f"[Loader] the state is of a source of {samples} samples, this one has {self.samples}")
        if bool(state.get("shuffle", self.shuffle)) != self.shuffle:
            raise ValueError(f"[Loader] the state is of a loader with shuffle={not self.shuffle}")
        if state.get("indices", self._selection_key) != self._selection_key:
            raise ValueError(
                f"[Loader] the state is of {samples} other samples of the source: make the loader with the same indices, or by "
                "the same split or folds"
            )
        position = arguments.whole("Loader", "state['position']", state.get("position", 0), 0)
        if position > samples:
            raise ValueError(f"[Loader] the state's position {position} lies beyond its {samples} samples")
        seed = arguments.whole("Loader", "state['seed']", state["seed"], 0, MOST_KEY)
        self.set_epoch(state["epoch"])
        object.__setattr__(self, "seed", seed)  # other code may only read it
        self._position = position

    @property
    def _selection_key(self) -> int:
        """0 for all samples, else a number that is different for almost every other selection."""
        return zlib.crc32(repr([selection.key for selection in self._selections]).encode()) if self._selections else 0
