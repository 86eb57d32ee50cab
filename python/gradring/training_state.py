"""The state that training changes: parameters, the optimizer's state, counts and history, as a dict and as a checkpoint."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import checkpoint
from gradring.arguments import frames_inside
from gradring.arrays import as_ndarray
from gradring.callbacks.base import Callback
from gradring.callbacks.states import joined, named_states, split
from gradring.errors import CheckpointCorrupt, CheckpointMismatch, GradringError, reason
from gradring.files import as_path
from gradring.grouping import described, grouped_otherwise, schedules_in, sound_schedules
from gradring.history import History
from gradring.model_file import as_notes, description
from gradring.nn.params import write
from gradring.optim import Optimizer
from gradring.options import MOST_SCALE
from gradring.session.base import BaseSession
from gradring.session.measured import Measured
from gradring.session.purposes import Purpose
from gradring.state_values import apart, class_weights_of, count_of, weight_of

__all__ = ["TrainingState"]

_STATE = "optimizer/"  # the prefix of the names of the optimizer's arrays in a checkpoint
_EPOCH = "training/epoch/"  # the prefix of the arrays that the current epoch has measured
_WAITING = "training/gradients/"  # the prefix of the gradients that wait for the rest of their group
_VERSION = "1"
# Counts that a file may lack, because it is older than they are, or of a training that scaled no loss.
_DEFAULTS = {"fresh": 0, "pending": 0, "loss_scale": 0, "good_steps": 0}


@dataclass(slots=True)
class TrainingState:
    """A session, the position of its training, and what it has measured.

    ``epoch`` counts complete epochs; ``place`` is, after an interrupted fit, how many batches of the next one are done, and
    what they have measured. It is one attribute, so that no interrupt comes between the two.
    """

    session: BaseSession
    seed: int
    epoch: int = 0
    place: tuple[int, Measured | None] = (0, None)
    running: bool = False  # an epoch is running
    _row: tuple[int, Mapping[str, float]] | None = None  # a row for the history, and its place there
    history: History = field(default_factory=History)
    callbacks: tuple[Callback, ...] = ()  # the callbacks of the current run of fit
    callback_states: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of the next step."""
        return self.session.optimizer

    def complete(self, row: Mapping[str, float]) -> None:
        """Count an epoch, whose row the history gets."""
        self._record()
        # One statement without a call between its parts, where no signal interrupts it.
        self.epoch, self.place, self._row = self.epoch + 1, (0, None), (len(self.history), row)
        self._record()

    def _record(self) -> None:
        """Add the row that the history does not have yet. A second call continues where a signal interrupted the first."""
        if self._row is not None:
            number, row = self._row
            if len(self.history) == number:
                self.history.append(row)
            self._row = None

    def settle(self) -> None:
        """Complete what an exception has interrupted: the place of an epoch that is running is what the session has done."""
        self._record()
        if self.running:
            done = self.session.batches()
            self.place, self.running = (done, self.session.measured() if done else None), False

    def counts(self) -> dict[str, int]:
        """The counts that a checkpoint holds."""
        session, batch = self.session, self.session.batches() if self.running else self.place[0]
        place = {"epoch": self.epoch, "batch": batch, "seed": self.seed}
        return {**session.counters(), "pending": session.pending, **place}

    def _measured(self) -> Measured:
        measured = self.session.measured() if self.running else self.place[1]
        return Measured() if measured is None else measured

    def as_dict(self) -> dict[str, Any]:
        """A copy of everything but history and callbacks."""
        self.session.require_whole()
        schedules = self.session.rates.state()
        return {
            "params": {name: array.copy() for name, array in self.session.saved.items()},
            "optimizer": {name: array.copy() for name, array in self.session.state.items()},
            **self.counts(),
            **({"schedules": schedules} if schedules else {}),
            **({"class_weights": self.session.class_weights} if self.session.class_weights else {}),
            **({"shards": self.session.shards} if self.session.shards else {}),
            **({"algorithms": algorithms} if (algorithms := self.session.algorithms()) else {}),
            **self._unfinished(),
        }

    def _unfinished(self) -> dict[str, Any]:
        """The sums of an incomplete group of accumulated batches, and of an incomplete epoch."""
        measured, (weight, gradients) = self._measured(), self.session.waiting()
        unfinished: dict[str, Any] = {}
        if gradients:
            unfinished["gradients"] = {name: array.copy() for name, array in gradients.items()}
            unfinished["pending_weight"], unfinished["pending_form"] = weight, self.session.waiting_form
        if measured != Measured():
            unfinished["sums"], unfinished["measured"] = measured.sums, measured.arrays()
        return unfinished

    def told(self, *, keep: bool = False) -> AbstractContextManager[None]:
        """Within the block, an error of this rank alone ends the other ranks' wait for it. With ``keep`` this rank keeps the
        gradients that wait for an update, as the other ranks do."""
        peers = self.session.peers
        return nullcontext() if peers is None else peers.told(peers.stop if keep else self.leave)

    def leave(self, error: BaseException, *, begun: bool = False) -> None:
        """Called when ``error`` ends a run of this rank. The batches of a group that is dropped have not been read. Before an
        epoch has ``begun``, only the file that was loaded says what its batches measured."""
        session, waited = self.session, self.session.pending
        session.leave(error)
        if session.peers is not None and waited and not session.pending and self.place[0]:
            measured = self.place[1] or Measured()
            measured = session.measured() if begun else replace(measured, sums=measured.sums[4:] * 2)
            self.place = self.place[0] - waited, measured

    def take_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a result of ``as_dict``, or raise ``ValueError`` and change nothing."""
        if not isinstance(state, Mapping) or not all(
            isinstance(state.get(p), Mapping) for p in ("params", "optimizer")
        ):
            raise ValueError(
                "[Trainer.load_state_dict] a state is what state_dict() returned, with the dicts 'params' and 'optimizer'; to "
                "take parameters alone, trainer.params.update(values)"
            )
        given = {**state["params"], **{_STATE + name: array for name, array in state["optimizer"].items()}}
        tensors = {name: as_ndarray("Trainer.load_state_dict", repr(name), array) for name, array in given.items()}
        schedules = state.get("schedules", [])
        try:
            sound_schedules(schedules)
            problem = self._misfit(tensors) or self.session.rates.misfit(schedules)
            if problem:
                raise ValueError(problem)
            counts, weight = self._counts_in(state), weight_of(state.get("pending_weight", 0.0))
            gradients = state.get("gradients", {})
            problem = self._odd_group(counts["pending"], gradients, state.get("pending_form"))
            if problem:
                raise ValueError(problem)
            measured = Measured.read(state.get("sums"), state.get("measured", {}))
            classes = class_weights_of(state.get("class_weights", ()))
            shards, algorithms = count_of("shards", state.get("shards", 0)), self._algorithms_in(state)
        except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
            raise ValueError(f"[Trainer.load_state_dict] {reason(error)}") from None
        try:
            self._take_class_weights(classes)
        except ValueError as error:
            raise ValueError(f"[Trainer.load_state_dict] {reason(error)}") from None
        self._restore(tensors, counts, schedules, measured, (weight, gradients))
        self._say_other_shards("[Trainer.load_state_dict] the state", shards)
        self._take_algorithms("[Trainer.load_state_dict] the state", algorithms)

    def common_seed(self, seed: int) -> int:
        """The seed of rank 0, where this state has peers, which all call it."""
        peers = self.session.peers
        return seed if peers is None or peers.apart else int(peers.first(str(seed), Purpose.RESET))

    def begin_anew(self, seed: int) -> None:
        """Reset the optimizer's state, the epochs and the history. The caller has filled the parameters."""
        for array in self.session.state.values():
            array[...] = 0
        self.session.restore(dict.fromkeys(self.counts(), 0) | {"seed": seed})
        self.session.rates.begin_anew()
        self.session.rates_changed()
        self.epoch, self.place, self.seed, self.history = 0, (0, None), seed, History()

    def save(self, path: str | os.PathLike[str], notes: Mapping[str, str] | None = None) -> None:
        """Write a checkpoint, which appears whole or not at all; ``notes`` are more texts for its metadata."""
        self.session.require_whole()
        states, arrays = split(named_states(self.callbacks) or self.callback_states)
        metadata = {name: str(value) for name, value in self.counts().items()}
        metadata |= {
            "format": "gradring",
            "version": _VERSION,
            "optimizer": repr(self.optimizer),
            "callbacks": json.dumps(states),
            "schedules": json.dumps(self.session.rates.state()),
            **described(self.session, self.optimizer),
            "history": json.dumps(self.history.metrics),
        }
        if self.session.shards:
            metadata["shards"] = str(self.session.shards)
        if algorithms := self.session.algorithms():
            metadata["algorithms"] = algorithms
        if self.session.class_weights:
            metadata["class_weights"] = json.dumps(self.session.class_weights)
        measured, (weight, gradients) = self._measured(), self.session.waiting()
        if measured != Measured():
            metadata["sums"] = measured.text()
            arrays |= {_EPOCH + name: array for name, array in measured.arrays().items()}
        if gradients:
            metadata["pending_weight"], metadata["pending_form"] = repr(weight), self.session.waiting_form
            arrays |= {_WAITING + name: array for name, array in gradients.items()}
        model = getattr(self.session, "model", None)
        if model is not None:
            metadata |= description(model)
        metadata |= as_notes(notes)
        checkpoint.write(path, {**self._tensors(), **arrays}, metadata)

    def load(self, path: str | os.PathLike[str], *, weights_only: bool, strict: bool) -> list[str]:
        """Load a checkpoint; returns the names of the tensors that were loaded."""
        name = as_path("Trainer.load", path)
        tensors, metadata = checkpoint.read(name)
        states, tensors = joined(metadata.get("callbacks"), tensors, f"[Trainer.load] {name}")
        measuring, tensors = apart(tensors, _EPOCH)
        gradients, tensors = apart(tensors, _WAITING)
        if weights_only or not strict:
            return self._take_weights(name, tensors, strict)
        where = f"[Trainer.load] {name}"
        if "history" not in metadata and "architecture" in metadata:
            raise CheckpointMismatch(
                f"{where} has a model alone, as model.save writes it, and no state of a training: weights_only=True takes its "
                "parameters"
            )
        schedules = schedules_in(metadata, where)
        problem = grouped_otherwise(metadata, self.session, self.optimizer, where)
        problem = problem or self._misfit(tensors, metadata) or self.session.rates.misfit(schedules)
        if problem:
            raise CheckpointMismatch(
                f"{where}: {problem}; weights_only=True takes the parameters alone, and strict=False those that fit"
            )
        try:
            if metadata["version"] != _VERSION:
                raise ValueError(f"its version is {metadata['version']!r}, this gradring reads {_VERSION!r}")
            counts, weight = self._counts_in(metadata), weight_of(metadata.get("pending_weight", 0.0))
            measured = Measured.read(metadata.get("sums"), measuring)
            classes = class_weights_of(json.loads(metadata.get("class_weights", "[]")))
            shards, algorithms = count_of("shards", metadata.get("shards", 0)), self._algorithms_in(metadata)
            history = History.from_metrics(json.loads(metadata["history"]))
        except (KeyError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
            raise CheckpointCorrupt(f"[Trainer.load] {name}: the metadata do not fit: {reason(error)}") from error
        problem = self._odd_group(counts["pending"], gradients, metadata.get("pending_form"))
        if problem:
            raise CheckpointMismatch(f"{where}: {problem}; weights_only=True takes the parameters alone")
        try:
            self._take_class_weights(classes)
        except ValueError as error:
            raise CheckpointMismatch(
                f"{where}: {reason(error)}; weights_only=True takes the parameters alone"
            ) from None
        self._restore(tensors, counts, schedules, measured, (weight, gradients))
        self.history, self.callback_states = history, states
        self._say_other_shards(where, shards)
        self._take_algorithms(where, algorithms)
        return list(tensors)

    def _say_other_shards(self, where: str, shards: int) -> None:
        """Warn if a training goes on with other shards, because its results then have other bits."""
        if shards == self.session.shards:
            return
        then, now = (f"shards={count}" if count else "no shards" for count in (shards, self.session.shards))
        warnings.warn(
            f"{where} was saved with {then}, and this trainer has {now}: it goes on, but its results have other bits than "
            f"those of a training with {then} throughout",
            stacklevel=frames_inside(),
        )

    def _algorithms_in(self, source: Mapping[str, Any]) -> str:
        text = source.get("algorithms", "")
        if not isinstance(text, str) or (text and not self.session.reads_algorithms(text)):
            raise ValueError("its algorithms of products are no record of such")
        return text

    def _take_algorithms(self, where: str, text: str) -> None:
        """Use a record of the products' algorithms, or warn that results will have other bits. A record of another device or
        version of the library has no effect: there, results have other bits in any case."""
        if not self.session.take_algorithms(text):
            warnings.warn(
                f"{where}: the library refuses the algorithms of products that were recorded for this device and this version: "
                "the training goes on with others, and its results have other bits than without a break",
                stacklevel=frames_inside(),
            )

    def _take_weights(self, path: str, tensors: Mapping[str, NDArray[Any]], strict: bool) -> list[str]:
        params = self.session.saved
        weights = {name: array for name, array in tensors.items() if not name.startswith(_STATE)}
        fitting = {
            name: array
            for name, array in weights.items()
            if name in params and params[name].shape == array.shape and params[name].dtype == array.dtype
        }
        if strict and len(fitting) < max(len(params), len(weights)):
            odd = sorted((params.keys() | weights.keys()) - fitting.keys())
            raise CheckpointMismatch(
                f"[Trainer.load] {path}: parameter {odd[0]!r} is not the same there and in this model; strict=False "
                "takes those that fit"
            )
        if not fitting:
            there, here = (next(iter([*names, "nothing"])) for names in (weights, params))
            raise CheckpointMismatch(
                f"[Trainer.load] {path}: no parameter fits this model by name, shape and dtype: the file begins with "
                f"{there!r}, the model with {here!r}"
            )
        if self.running:
            raise GradringError("[Trainer.load] an epoch is running; load between epochs")
        for name, array in fitting.items():
            write(params[name], array)
        self.session.loaded()
        return list(fitting)

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {**self.session.saved, **{_STATE + name: array for name, array in self.session.state.items()}}

    def _misfit(self, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> str:
        """A text that names what is missing, unknown or of another shape or dtype; empty if everything fits."""
        problem = self._odd_tensor(tensors)
        saved = metadata.get("optimizer", "") if metadata else ""
        if f"'{_STATE}" in problem and saved and saved != repr(self.optimizer):
            return f"{problem}: the file was saved with {saved}, and this trainer has {self.optimizer}"
        return problem

    def _odd_tensor(self, tensors: Mapping[str, Any]) -> str:
        wanted = self._tensors()
        for name, array in wanted.items():
            if name not in tensors:
                return f"tensor {name!r} is missing"
            got = tensors[name]
            if got.shape != array.shape or got.dtype != array.dtype:
                return f"tensor {name!r} is {got.shape} of {got.dtype}, expected {array.shape} of {array.dtype}"
        unknown = sorted(set(tensors) - set(wanted))
        return f"tensor {unknown[0]!r} is not in this model and its optimizer ({self.optimizer})" if unknown else ""

    def _take_class_weights(self, weights: tuple[float, ...]) -> None:
        if weights:
            self.session.take_class_weights(weights)

    def _odd_group(self, pending: int, gradients: Mapping[str, Any], form: Any) -> str:
        """Why these gradients of ``pending`` batches cannot wait here for the rest of their group; empty if they can. ``form``
        is what the gradients are (``BaseSession.waiting_form``), or None in a file that is older than these forms."""
        session = self.session
        if pending > session.most_pending():
            return (
                f"it was saved when the gradients of {pending} batches waited for an update, more than wait here: give the "
                "trainer the same accumulate"
            )
        own, form = session.waiting_form, "sum" if form is None else form
        if pending and form != own:
            return (
                f"the gradients that waited for an update when it was saved are a {form} over samples, and here a {own} waits: "
                "give the trainer the same accumulate, replicas and shards, on as many ranks"
            )
        looks = session.gradient_looks() if pending else {}
        for plane in session.planes(gradients):
            if looks.keys() != plane.keys():
                odd = sorted(looks.keys() ^ plane.keys())[0]
                return f"the gradient of {odd!r} is in the file or in the trainer alone, where {pending} batches wait"
            for name, look in looks.items():
                got = np.asarray(plane[name])
                if got.shape != look.shape or got.dtype != look.dtype:
                    found, expected = f"{got.shape} of {got.dtype}", f"{look.shape} of {look.dtype}"
                    return f"the gradient of {name!r} is {found}, expected {expected}"
        return ""

    def _restore(
        self,
        tensors: Mapping[str, Any],
        counts: Mapping[str, int],
        schedules: Sequence[Any],
        measured: Measured,
        waiting: tuple[float, Mapping[str, Any]],
    ) -> None:
        if self.running:
            raise GradringError("[Trainer.load] an epoch is running; load between epochs, or with fit(resume=...)")
        for name, array in self._tensors().items():
            write(array, np.asarray(tensors[name]))
        self.session.restore(counts)
        self.session.wait(counts["pending"], *waiting)
        self.session.rates.restore(schedules)
        self.session.rates_changed()
        self.session.loaded()
        self.epoch, self.place, self.seed = counts["epoch"], (counts["batch"], measured), counts["seed"]

    def _counts_in(self, source: Mapping[str, Any]) -> dict[str, int]:
        counts = {name: count_of(name, source.get(name, _DEFAULTS.get(name))) for name in self.counts()}
        if counts.get("fresh", 0) > counts["step"]:
            raise ValueError(f"fresh is {counts['fresh']}, and only {counts['step']} updates were made")
        scale = counts.get("loss_scale", 0)
        if scale & (scale - 1) or scale > MOST_SCALE:
            raise ValueError(f"loss_scale is {scale}: must be a power of two, at most {MOST_SCALE}")
        return counts
