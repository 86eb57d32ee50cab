"""The command ``gradring``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import gradring

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (those of the process if None) and return its exit status."""
    from gradring.cli import bench, doctor, predict, run, train
    from gradring.cli.output import settle

    parser = argparse.ArgumentParser(
        prog="gradring", description="Train neural networks straight from NumPy arrays, natively."
    )
    parser.add_argument("--version", action="version", version=f"gradring {gradring.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="train | predict | run | bench | doctor")
    for module in (train, predict, run, bench, doctor):
        module.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        print("gradring: interrupted", file=sys.stderr)
        return 130
    except (RuntimeError, ImportError, MemoryError, OSError, TypeError, ValueError) as error:
        print(f"gradring: error: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    finally:
        settle()
