"""The data that ``gradring train`` trains on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gradring as gr
from gradring.cli import inputs
from gradring.cli.inputs import MappedBatches, Scaling
from gradring.cli.tables import has_member, labels_of_file, read_array, read_table
from gradring.cli.targets import Goal, goal
from gradring.datasets import digits, fashion_mnist

__all__ = ["Task", "check_folder", "task"]

_EVALUATE = 1024  # samples per batch where nothing is learned


class Task(NamedTuple):
    """What to train on, and with which settings unless others are asked for. ``data`` and ``test`` are sources of
    batches; ``truth`` are the test's targets as they were given."""

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

    def notes(self) -> dict[str, str]:
        """What the file must keep so that ``gradring predict`` can read new samples and name the classes."""
        return {"goal": self.goal.note(), "input": self.scaling.note()}


def task(options: argparse.Namespace, kept: dict[str, str] | None) -> Task:
    """The embedded digits, Fashion-MNIST, or the user's own arrays; ``kept`` are the notes of a file to go on from."""
    if options.data is not None and (options.x or options.y):
        raise ValueError(f"[train] give either {options.data} or --x and --y, not both")
    if options.data is None and not options.x:
        raise ValueError("[train] give digits, fashion-mnist, or your own arrays with --x X.npy --y y.npy")
    return _known(options) if options.data is not None else _own(options, kept)


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
    x, y, name = _arrays(options)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if len(x) != len(y):
        raise ValueError(f"[train] {options.x} has {len(x)} samples, {name} has {len(y)}")
    share, seed = options.test_share, options.seed
    count = round(len(x) * share)
    if not 0 < share < 1 or count < 1 or count >= len(x):
        raise ValueError(
            f"[train] --test-share must leave samples for both training and testing, got {share} of {len(x)}"
        )
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = np.sort(order[count:]), np.sort(order[:count])
    found = goal("train", name, y, options.task)
    scaling = Scaling.of("train", str(options.x), x, train, options.scale == "auto")
    if kept is not None:
        found, scaling = _as_before(options, kept, found, scaling)
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
    return Task(options.x.stem, data, check, y[test], found, scaling, (128,), 20, 1e-3, 1e-2)


def _arrays(options: argparse.Namespace) -> tuple[NDArray[Any], NDArray[Any], str]:
    """x, y, and what y is called in messages."""
    if options.target is not None:
        if options.x.suffix.lower() != ".csv" or options.y:
            raise ValueError("[train] --target is a column of --x TABLE.csv, instead of --y")
        table = read_table("train", options.x, options.target)
        assert table.target is not None
        return table.x, table.target, f"column {options.target} of {options.x}"
    if not options.y and not has_member(options.x, "y"):
        raise ValueError(
            "[train] give digits, fashion-mnist, or your own arrays with --x X.npy --y y.npy; --x may also be an .npz file "
            "with arrays x and y, or a .csv file with --target COLUMN"
        )
    x = read_table("train", options.x, None).x if _is_csv(options.x) else read_array("train", options.x, "x")
    target = options.y or options.x
    return x, labels_of_file("train", target, len(x)), str(target)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _as_before(
    options: argparse.Namespace, kept: dict[str, str], found: Goal, scaling: Scaling
) -> tuple[Goal, Scaling]:
    """The goal and the scaling of the file, which must be of the same data."""
    try:
        before, read = Goal.from_note(kept["goal"]), Scaling.from_note(kept["input"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"[train] --resume: the file is none of gradring train: {error}") from None
    if (before.kind, before.labels, before.outputs) != (found.kind, found.labels, found.outputs):
        raise ValueError(f"[train] --resume: the file is of another task: {before.note()[:200]}; the data now: {found}")
    if (read.shape, read.is_bytes) != (scaling.shape, scaling.is_bytes):
        raise ValueError(
            f"[train] --resume: the file is of samples of shape {read.shape}, {options.x} has {scaling.shape}"
        )
    return before, read


def check_folder(folder: Path) -> None:
    """Make the output folder, and see before the training that it can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".gradring-{os.getpid()}"
    probe.touch()
    probe.unlink()
