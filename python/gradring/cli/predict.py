"""``gradring predict``: predictions for new samples by a model of ``gradring train``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.cli.inputs import Scaling, require_other
from gradring.cli.output import say
from gradring.cli.tables import read_array, read_table
from gradring.cli.targets import Goal
from gradring.errors import reason
from gradring.files import check_replaceable, full_disk, replacing
from gradring.model_file import notes_of, read_model
from gradring.nn.layer import Layer

__all__ = ["add_to"]

_ROWS = 1024  # samples per prediction


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser("predict", help="labels or numbers for new samples", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="the NAME.safetensors of gradring train")
    parser.add_argument("--x", type=Path, required=True, help="new samples: .npy, .npz with an array x, or .csv")
    parser.add_argument(
        "--out", type=Path, help="write an .npy or .csv file instead of one line per sample on standard output"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out if there is one")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Predict sample by sample in their order."""
    out: Path | None = options.out
    if out is not None:
        _require_writable(out, options.overwrite)
        require_other("predict", [out], [options.x, options.model])
    if not options.model.is_file():
        there = "a folder" if options.model.is_dir() else "no such file"
        raise FileNotFoundError(
            f"[predict] MODEL {str(options.model)!r} is {there}: give the NAME.safetensors that gradring train wrote"
        )
    model, metadata = read_model(options.model)
    notes = notes_of(metadata)
    if not {"goal", "input"} <= notes.keys():
        raise ValueError(
            f"[predict] {options.model} is no file of gradring train: it does not say how samples are scaled and what the "
            "outputs mean; in Python, gr.load(path)(x) gives the outputs"
        )
    try:
        goal, scaling = Goal.from_note(notes["goal"]), Scaling.from_note(notes["input"])
    except ValueError as error:
        raise ValueError(f"[predict] {options.model}: {reason(error)}") from None
    x = _samples(options, _columns(options.model, notes), len(scaling.mean))
    scaling.require("predict", str(options.x), x)
    parts = _predictions(model, goal, scaling, x)
    if out is None:
        _print(parts)
    elif out.suffix.lower() == ".csv":
        with replacing(out) as file:
            for part in parts:
                file.write("".join(f"{_text(row)}\n" for row in part.tolist()).encode())
    else:
        _write_npy(out, parts, len(x), goal)
    return 0


def _columns(model: Path, notes: dict[str, str]) -> tuple[str, ...]:
    """The names of the columns that the model was trained on, if they had names."""
    try:
        names = json.loads(notes.get("columns", "[]"))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"[predict] {model}: the note of its columns is damaged")
    return tuple(names)


def _samples(options: argparse.Namespace, names: tuple[str, ...], width: int) -> NDArray[Any]:
    """The new samples. Columns that have names are found by their names, so their order does not matter."""
    if options.x.suffix.lower() != ".csv":
        return read_array("predict", options.x, "x")
    if len(names) != width:
        names = ()
    table = read_table("predict", options.x, None, names)
    if table.unused:
        say(f"{options.x}: the model does not read the columns {', '.join(table.unused[:20])}", sys.stderr)
    return table.x


def _require_writable(out: Path, overwrite: bool) -> None:
    if out.suffix.lower() not in (".npy", ".csv"):
        raise ValueError(f"[predict] --out must be an .npy or .csv file, got {out}")
    check_replaceable(out)
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"[predict] --out {out}: there is no folder {out.absolute().parent}; make it first")
    if out.exists() and not overwrite:
        raise FileExistsError(f"[predict] {out} is there already: give --overwrite to replace it, or another name")


def _predictions(model: Layer, goal: Goal, scaling: Scaling, x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    dtype = model.store.dtype
    for first in range(0, len(x), _ROWS):
        part = x[first : first + _ROWS]
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            row, element = map(int, np.argwhere(~np.isfinite(part.reshape(len(part), -1)))[0])
            raise ValueError(
                f"[predict] element {element} of sample {first + row} is {part.reshape(len(part), -1)[row, element]}: every "
                "value must be finite; fill or remove such samples"
            )
        outputs = model(scaling.applied(part, dtype))
        if outputs.ndim != 2 or outputs.shape[1] != goal.outputs:
            raise ValueError(
                f"[predict] the model gives {outputs.shape} for {goal.outputs} outputs: its file is damaged"
            )
        yield goal.decoded(outputs)


def _print(parts: Iterator[NDArray[Any]]) -> None:
    """Print lines to standard output. If the reader closes the pipe, that ends the output; a full disk is an error."""
    if sys.stdout is None:
        raise OSError("[predict] standard output is closed: give --out FILE.npy or FILE.csv")
    try:
        for part in parts:
            sys.stdout.write("".join(f"{_text(row)}\n" for row in part.tolist()))
            sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            why = full_disk(error) or error.strerror or error
            raise OSError(
                f"[predict] standard output cannot be written: {why}; give --out FILE.npy or FILE.csv"
            ) from error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # Otherwise Python's own flush at exit would fail.
        os.close(nowhere)


def _write_npy(out: Path, parts: Iterator[NDArray[Any]], count: int, goal: Goal) -> None:
    first = next(parts)
    with replacing(out) as file:
        header = {"descr": first.dtype.str, "fortran_order": False, "shape": (count, *first.shape[1:])}
        np.lib.format.write_array_header_2_0(file, header)
        file.write(first.tobytes())
        for part in parts:
            file.write(part.tobytes())


def _text(row: Any) -> str:
    """One line: a label, or numbers with commas; a label that contains a comma, a quote or a line break is quoted as in
    CSV."""
    if isinstance(row, list):
        return ",".join(map(repr, row))
    text = str(row)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text
