"""Save the training as it goes."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress

from gradring.arguments import whole
from gradring.callbacks.base import Callback, Run

__all__ = ["Checkpoint"]


class Checkpoint(Callback):
    """Save the trainer to ``path`` after every ``every`` epochs, and after the last one.

    ``path`` may contain ``{epoch}`` (complete epochs) and ``{step}`` (updates); of the files that then come about,
    the last ``keep`` stay and the older ones are removed (None keeps all). Without them the one file is replaced.
    Each file appears whole or not at all, and ``fit(resume=path)`` goes on from it bit for bit.
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1, keep: int | None = None) -> None:
        self.path, self.every = os.fspath(path), whole("Checkpoint", "every", every, 1)
        self.keep = None if keep is None else whole("Checkpoint", "keep", keep, 1, also="None")
        try:
            varies = self.path.format(epoch=0, step=0) != self.path.format(epoch=1, step=1)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"[Checkpoint] path may contain {{epoch}} and {{step}}, got {self.path!r}") from error
        if keep is not None and keep > 1 and not varies:
            raise ValueError(f"[Checkpoint] keep={keep} needs {{epoch}} or {{step}} in path, got {self.path!r}")
        self.saved: deque[str] = deque()

    def on_fit_start(self, run: Run) -> None:
        folder = os.path.dirname(os.path.abspath(self.path.format(epoch=0, step=0)))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(f"[Checkpoint] {folder} is not a folder that can be written")

    def on_epoch_end(self, run: Run) -> None:
        if (run.epoch + 1) % self.every and run.epoch + 1 < run.last_epoch and not run.stop:
            return
        path = self.path.format(epoch=run.trainer.epoch, step=run.trainer.step_count)
        run.trainer.save(path)
        if path in self.saved:
            self.saved.remove(path)
        self.saved.append(path)
        while self.keep is not None and len(self.saved) > self.keep:
            with suppress(FileNotFoundError):
                os.unlink(self.saved.popleft())
