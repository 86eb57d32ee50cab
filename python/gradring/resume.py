"""The checkpoint from which a run of ``fit`` continues."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from gradring.callbacks import Checkpoint
from gradring.callbacks.base import Callback
from gradring.session.peers import Peers
from gradring.session.purposes import Purpose

__all__ = ["checkpoint_of"]


def checkpoint_of(resume: Any, listeners: Iterable[Callback], peers: Peers | None) -> str | os.PathLike[str] | None:
    """The file that ``fit(resume=)`` asks for, the same on all ranks; None if a run begins."""
    if resume is None:
        return None
    if not isinstance(resume, (str, os.PathLike)):
        raise TypeError(f"[Trainer.fit] resume must be None, the path of a checkpoint or 'auto', got {resume!r}")
    path: str | os.PathLike[str] = resume
    if isinstance(resume, str) and resume == "auto":
        path = _newest(listeners) or ""
        if peers is not None and not peers.apart:  # one answer for all ranks
            path = peers.first(path, Purpose.RESUME)
        if not path:
            return None
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"[Trainer.fit] resume: there is no file {os.fspath(path)!r}; resume=None starts a new run, and so does "
            'resume="auto" while a Checkpoint among the callbacks has no file yet'
        )
    return path


def _newest(listeners: Iterable[Callback]) -> str | None:
    """The newest file of the Checkpoints without monitor, which hold the latest state."""
    latest = [listener for listener in listeners if isinstance(listener, Checkpoint) and listener.monitor is None]
    if not latest:
        raise ValueError('[Trainer.fit] resume="auto" needs a gr.callbacks.Checkpoint without monitor among callbacks')
    found = [file for listener in latest if (file := listener.newest()) is not None]
    return max(found, key=lambda file: os.stat(file).st_mtime_ns, default=None)
