"""Save the training as it goes."""

from __future__ import annotations

import logging
import os
import string
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gradring import activity
from gradring.arguments import whole
from gradring.callbacks.base import Callback, Run
from gradring.callbacks.improvement import Improvement, Mode
from gradring.files import as_path, full_disk, require_place

__all__ = ["Checkpoint"]

_LOG = logging.getLogger("gradring.callbacks")


class Checkpoint(Callback):
    """Save the trainer to ``path`` after every ``every`` epochs, and the state in which ``fit`` ends.

    With ``monitor="val_loss"``, or another metric, only epochs in which it is better than ever before are saved:
    ``mode`` means the same as for ``EarlyStop``. ``path`` may contain ``{epoch}`` (complete epochs) and ``{step}``
    (updates); write any other brace twice, ``{{``. Of the files that it then names, the last ``keep`` stay and the older
    ones are removed (None keeps all). Without these fields there is one file, which is replaced. Each file appears whole
    or not at all, and ``fit(resume=path)`` continues from it bit for bit. Its position among the callbacks does not
    matter: it saves after all others have seen an epoch. While the disk is full, the run goes on and the files stay as they
    were; ``fit`` raises ``OSError`` at its end if what should be there still is not.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 1,
        keep: int | None = None,
        *,
        monitor: str | None = None,
        mode: Mode = "auto",
    ) -> None:
        self.path, self.every = as_path("Checkpoint", path), whole("Checkpoint", "every", every, 1)
        self.keep = None if keep is None else whole("Checkpoint", "keep", keep, 1, also="None")
        self.monitor = monitor
        self._improvement = None if monitor is None else Improvement("Checkpoint", monitor, mode)
        varies = _fields(self.path)
        if keep is not None and keep > 1 and not varies:
            raise ValueError(f"[Checkpoint] keep={keep} needs {{epoch}} or {{step}} in path, got {self.path!r}")
        self.saved: deque[str] = deque()
        self._at: tuple[int, int] | None = None  # epoch and step of the last file
        self._failed: OSError | None = None  # why the last file was not written

    def on_fit_start(self, run: Run) -> None:
        if self._improvement is not None:
            self._improvement.begin(run)
        self._at = self._failed = None
        if run.trainer.writes:
            require_place("Checkpoint", self.path.format(epoch=0, step=0))

    def on_epoch_end(self, run: Run) -> None:
        improvement = self._improvement
        if improvement is not None and self.monitor is not None:
            best = improvement.best, improvement.epoch
            if improvement.found(run.metrics[self.monitor], run.epoch) and not self._tried(run):
                improvement.best, improvement.epoch = best  # that of the file
        elif (run.epoch + 1) % self.every == 0:
            self._tried(run)

    def on_fit_end(self, run: Run) -> None:
        # Save the last epoch, or the best one if EarlyStop has restored it. After an exception, keep the last file.
        if self.monitor is None and run.ended == "complete" and run.trainer.epoch > run.first_epoch:
            restored = any(getattr(other, "restore_best", False) for other in run.trainer.callbacks)
            if restored or self._at != (run.trainer.epoch, run.trainer.step_count):
                self.save(run)
        elif self._failed is not None and run.ended == "complete":
            raise self._failed

    def _tried(self, run: Run) -> bool:
        """Write the current state, and return False if the disk is full: it may have room again later."""
        try:
            self.save(run)
        except OSError as error:
            if not full_disk(error):
                raise
            self._failed = error
            _LOG.warning("epoch %d: %s; the training goes on", run.epoch + 1, error)
        return self._failed is None

    def save(self, run: Run) -> None:
        """Write the current state."""
        path = self.path.format(epoch=run.trainer.epoch, step=run.trainer.step_count)
        before = list(self.saved)
        if path in self.saved:
            self.saved.remove(path)
        self.saved.append(path)
        try:
            with activity.doing("saving"):
                run.trainer.save(path)
        except BaseException:
            self.saved.clear()
            self.saved.extend(before)
            raise
        self._at, self._failed = (run.trainer.epoch, run.trainer.step_count), None
        while self.keep is not None and len(self.saved) > self.keep:
            old = self.saved.popleft()
            if run.trainer.writes:
                with suppress(FileNotFoundError):
                    os.unlink(old)

    def newest(self) -> str | None:
        """The newest file whose name fits the path, if there is one."""
        folder, pattern = os.path.split(self.path)
        names = [name for name in os.listdir(folder or ".") if _matches(pattern, name)] if _is_folder(folder) else []
        files = [os.path.join(folder, name) for name in names]
        return max(files, key=lambda file: os.stat(file).st_mtime_ns, default=None)

    def _named(self, name: object) -> bool:
        """Whether the path can name this file: the state in a foreign checkpoint must not decide which files are
        removed."""
        if not isinstance(name, str):
            return False
        folder, pattern = os.path.split(self.path)
        here, base = os.path.split(name)
        return here == folder and _matches(pattern, base)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"path": self.path, "monitor": self.monitor, "saved": list(self.saved)}
        if self._improvement is not None:
            state |= {"best": self._improvement.best, "best_epoch": self._improvement.epoch}
        return state

    def _is_own(self, state: Mapping[str, Any]) -> bool:
        """The files may have been moved to another folder since."""
        monitor = state.get("monitor", self.monitor if "best" in state else None)  # older files do not name it
        path = state.get("path")
        return monitor == self.monitor and isinstance(path, str) and os.path.basename(path) == os.path.basename(self.path)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._is_own(state):
            there, here = os.path.dirname(state["path"]), os.path.dirname(self.path)
            split = [os.path.split(name) for name in state["saved"] if isinstance(name, str)]
            names = [os.path.join(here, base) for folder, base in split if folder == there]
            self.saved.clear()
            self.saved.extend(name for name in names if self._named(name))
        if self._improvement is not None and "best" in state and state.get("monitor", self.monitor) == self.monitor:
            self._improvement.best, self._improvement.epoch = float(state["best"]), int(state["best_epoch"])


def _is_folder(folder: str) -> bool:
    return os.path.isdir(folder or ".")


def _fields(path: str) -> bool:
    """Whether the path varies; ``ValueError`` for fields other than epoch and step."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(path) if name is not None}
        path.format(epoch=0, step=0)
        if not fields <= {"epoch", "step"}:
            raise ValueError(f"unknown fields {sorted(fields)}")
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"[Checkpoint] path may contain {{epoch}} and {{step}}, got {path!r}: double any other brace, "
            f"{path.replace('{', '{{').replace('}', '}}')!r}"
        ) from error
    return bool(fields)


def _matches(pattern: str, name: str) -> bool:
    """Whether a file's name is the pattern's for some epoch and step."""
    import re

    parts = []
    for text, field, _, _ in string.Formatter().parse(pattern):
        parts += [re.escape(text), "" if field is None else r"\s*\d+\s*"]
    return re.fullmatch("".join(parts), name) is not None
