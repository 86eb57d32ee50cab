"""``gradring run``: N ranks of a script on this host."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "run",
        help="run a script as several ranks on this host",
        description="Run N copies of a script, which find each other by gr.comm.init(). Exit status: that of the first rank "
        "to fail (128 + N if signal N killed it), 130 after Ctrl-C, else 0.",
    )
    parser.add_argument("-n", "--ranks", type=int, required=True, metavar="N", help="the number of ranks")
    parser.add_argument(
        "--max-restarts", type=int, default=0, metavar="K", help="after a failure, start all ranks again, up to K times"
    )
    parser.add_argument(
        "--bind",
        choices=("cores", "none"),
        default="cores",
        help="cores: each rank has a part of the processors to itself (the default); none: all ranks share them",
    )
    parser.add_argument("-m", "--module", action="store_true", help="SCRIPT is the name of a module")
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the ranks to their end."""
    from gradring.launch.job import Program
    from gradring.launch.messages import LARGEST_WORLD
    from gradring.launch.run import run as run_ranks

    if not 1 <= options.ranks <= LARGEST_WORLD:
        raise ValueError(f"[run] -n must be from 1 to {LARGEST_WORLD}, got {options.ranks}")
    if options.max_restarts < 0:
        raise ValueError(f"[run] --max-restarts must not be negative, got {options.max_restarts}")
    if not options.module and not Path(options.script).is_file():
        raise ValueError(f"[run] {options.script} is no file; for a module, say -m {options.script}")
    program = Program([options.script, *options.arguments], module=options.module)
    return run_ranks(options.ranks, program, max_restarts=options.max_restarts, pin=options.bind == "cores")
