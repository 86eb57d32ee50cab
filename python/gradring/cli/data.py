"""The data that ``gradring train`` trains on."""

from __future__ import annotations

import argparse
import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gradring as gr
from gradring.cli import inputs
from gradring.cli.inputs import MappedBatches, Scaling
from gradring.cli.tables import column_names, has_member, labels_of_file, read_array, read_table
from gradring.cli.targets import Goal, goal
from gradring.datasets import digits, fashion_mnist
from gradring.errors import reason
from gradring.files import full_disk

__all__ = ["Task", "check_folder", "task"]

_EVALUATE = 1024  # samples per batch in an evaluation


class Task(NamedTuple):
    """The data to train on, and the default settings. ``data`` and ``test`` are sources of batches; ``truth`` has
    the test's targets as they were given; ``columns`` are the names of a table's columns, and ``division`` decides
    which samples are kept for testing."""

    name: str
    data: Any
    test: Any
    truth: NDArray[Any]
    goal: Goal
    scaling: Scaling
    hidden: tuple[int, ...]
    epochs: int
    lr: float
    weight_decay: float
    columns: tuple[str, ...] = ()
    division: dict[str, Any] | None = None

    def notes(self) -> dict[str, str]:
        """The notes that the file keeps: with them ``gradring predict`` can read new samples and name the classes,
        and ``--resume`` tests on samples that were never trained on."""
        notes = {"goal": self.goal.note(), "input": self.scaling.note()}
        if self.columns:
            notes["columns"] = json.dumps(self.columns)
        if self.division is not None:
            notes["division"] = json.dumps(self.division)
        return notes


def task(options: argparse.Namespace, kept: dict[str, str] | None) -> Task:
    """The embedded digits, Fashion-MNIST, or the user's own arrays; ``kept`` has the notes of a file to resume from."""
    if options.data is not None and (options.x or options.y):
        raise ValueError(f"[train] give either {options.data} or --x and --y, not both")
    if options.data is None and not options.x:
        raise ValueError("[train] give digits, fashion-mnist, or your own arrays with --x X.npy --y y.npy")
    _require_used(options)
    return _known(options) if options.data is not None else _own(options, kept)


def _require_used(options: argparse.Namespace) -> None:
    """Raise ``ValueError`` for an option that the data set, or the user's own arrays, would ignore."""
    own = {"--target": options.target, "--test-share": options.test_share, "--scale": options.scale}
    unused = {"--folder": options.folder} if options.data != "fashion-mnist" else {}
    unused |= own if options.data is not None else {}
    for name, value in unused.items():
        if value is not None:
            whose = "fashion-mnist" if name == "--folder" else "your own arrays, --x and --y"
            raise ValueError(f"[train] {name} is for {whose}: leave it out")


def _known(options: argparse.Namespace) -> Task:
    if options.task == "regress":
        raise ValueError(f"[train] the labels of {options.data} are classes: leave --task regress out")
    if options.data == "digits":
        train, test = digits()
        settings: tuple[Any, ...] = (256,), 40, 3e-3, 1.0
    else:
        train, test = fashion_mnist(options.folder)
        settings = (256, 128), 10, 1e-3, 1e-2
    size = options.batch_size or (32 if options.data == "digits" else 64)
    width = train.x.shape[1]
    return Task(
        options.data,
        gr.Loader(train, size, shuffle=True, seed=options.seed),
        test,
        test.y,
        Goal("classify", tuple(range(10))),
        Scaling((width,), False, np.zeros(width), np.ones(width)),
        *settings,
    )


def _own(options: argparse.Namespace, kept: dict[str, str] | None) -> Task:
    x, y, name, columns = _arrays(options)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "U" and options.task == "regress":
        y = _as_numbers(y, name)  # converts 007, which would otherwise be a label
    if len(x) != len(y):
        raise ValueError(f"[train] {options.x} has {len(x)} samples, {name} has {len(y)}")
    share, seed = 0.2 if options.test_share is None else options.test_share, options.seed
    count = round(len(x) * share)
    if not 0 < share < 1 or count < 1 or count >= len(x):
        raise ValueError(
            f"[train] --test-share must leave samples for both training and testing, got {share} of {len(x)}"
        )
    division = {"seed": seed, "test_share": share, "samples": len(x), "targets": zlib.crc32(y.tobytes())}
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = np.sort(order[count:]), np.sort(order[:count])
    found = goal("train", name, y, options.task)
    scaling = Scaling.of("train", str(options.x), x, train, options.scale != "none")
    if kept is not None:
        found, scaling = _as_before(options, kept, found, scaling)
        _require_division(options, kept, division)
    targets = found.encoded(y).astype(np.int64 if found.kind == "classify" else options.dtype)
    size = options.batch_size or 64
    if len(x) * len(scaling.mean) * np.dtype(options.dtype).itemsize <= inputs.IN_MEMORY:
        samples = scaling.in_memory(x, train, options.dtype), targets[train]
        data: Any = gr.Loader(samples, size, shuffle=True, seed=seed)
        check: Any = scaling.in_memory(x, test, options.dtype), targets[test]
    else:
        common: dict[str, Any] = {"dtype": options.dtype}
        data = MappedBatches(scaling, x, targets, train, batch_size=size, seed=seed, **common)
        check = MappedBatches(scaling, x, targets, test, batch_size=_EVALUATE, seed=None, **common)
    return Task(options.x.stem, data, check, y[test], found, scaling, (128,), 20, 1e-3, 1e-2, columns, division)


def _as_numbers(y: NDArray[Any], name: str) -> NDArray[Any]:
    try:
        return y.astype(np.float64)
    except ValueError as error:
        raise ValueError(f"[train] --task regress needs numbers, but {name} holds texts: {reason(error)}") from None


def _require_division(options: argparse.Namespace, kept: dict[str, str], division: dict[str, Any]) -> None:
    """Raise ``ValueError`` if other samples are kept for testing than before, because the test would use samples that
    were trained on."""
    try:
        before = json.loads(kept["division"])
        changed = [name for name, value in division.items() if before[name] != value]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(
            "[train] --resume: the file does not say which samples were kept for testing, so the test would be one of samples "
            "that it was trained on: train again with --overwrite, or into another folder with --out"
        ) from None
    if changed:
        name = changed[0]
        what = {
            "seed": f"--seed is {division['seed']}, but was {before['seed']}",
            "test_share": f"--test-share is {division['test_share']}, but was {before['test_share']}",
            "samples": f"{options.x} has {division['samples']} samples, but had {before['samples']}",
            "targets": "the targets differ from before, or are in another order",
        }[name]
        raise ValueError(
            f"[train] --resume: {what}, so the test could use samples of the training; give the same data and options, "
            "or train into another folder with --out"
        )


def _arrays(options: argparse.Namespace) -> tuple[NDArray[Any], NDArray[Any], str, tuple[str, ...]]:
    """Returns x, y, the name of y in messages, and the names of x's columns, if it has names."""
    if options.target is not None:
        if options.x.suffix.lower() != ".csv" or options.y:
            raise ValueError("[train] --target is a column of --x TABLE.csv, instead of --y")
        table = read_table("train", options.x, options.target)
        assert table.target is not None
        return table.x, table.target, f"column {options.target} of {options.x}", table.names
    if (
        options.y
        and _is_csv(options.x)
        and not options.y.exists()
        and str(options.y) in (column_names("train", options.x) or ())
    ):
        raise ValueError(f"[train] --y {options.y} is no file, but a column of {options.x}: give --target {options.y}")
    if not options.y and not has_member(options.x, "y"):
        raise ValueError(
            "[train] give digits, fashion-mnist, or your own arrays with --x X.npy --y y.npy; --x may also be an .npz file "
            "with arrays x and y, or a .csv file with --target COLUMN"
        )
    whole = read_table("train", options.x, None) if _is_csv(options.x) else None
    x, names = (whole.x, whole.names) if whole is not None else (read_array("train", options.x, "x"), ())
    target = options.y or options.x
    return x, labels_of_file("train", target, len(x)), str(target), names


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _as_before(
    options: argparse.Namespace, kept: dict[str, str], found: Goal, scaling: Scaling
) -> tuple[Goal, Scaling]:
    """The goal and the scaling from the file, after a check that it is about the same data."""
    try:
        before, read = Goal.from_note(kept["goal"]), Scaling.from_note(kept["input"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"[train] --resume: gradring train did not write the file: {reason(error)}") from None
    if (before.kind, before.labels, before.outputs) != (found.kind, found.labels, found.outputs):
        raise ValueError(f"[train] --resume: the file is of another task: {before.note()[:200]}; the data now: {found}")
    if (read.shape, read.is_bytes) != (scaling.shape, scaling.is_bytes):
        raise ValueError(
            f"[train] --resume: the file is of samples of shape {read.shape}, {options.x} has {scaling.shape}"
        )
    return before, read


def check_folder(folder: Path) -> None:
    """Make the output folder, and check before the training that it is writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".gradring-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"[train] --out {folder} is a file, or inside one: give a folder") from None
    except OSError as error:
        why = full_disk(error) or error.strerror or error
        raise OSError(
            f"[train] --out: no file can be written in the folder {folder}: {why}; give another one"
        ) from error
