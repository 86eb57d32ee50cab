"""What the command prints."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["say"]


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line. A reader that has gone, or a full disk, is no reason to fail: the work is done and saved."""
    target = sys.stdout if file is None else file
    try:
        print(text, file=target, flush=True)
    except (OSError, ValueError):
        # So that Python's own flush at its exit does not fail in our stead.
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, target.fileno())
            os.close(devnull)
        except (OSError, ValueError):
            pass
