"""``gradring train``: an MLP on the embedded digits, Fashion-MNIST, or your own arrays."""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np

import gradring as gr
from gradring import checkpoint, devices
from gradring.choices import OptimizerName
from gradring.cli.data import Task, check_folder, task
from gradring.cli.inputs import require_other
from gradring.cli.output import say
from gradring.files import full_disk
from gradring.model_file import notes_of

__all__ = ["add_to"]

# The default rate is Adam's times this factor: plain gradients need larger steps than normalised ones, and signs need
# smaller ones.
_RATES = {"sgd": 30.0, "lion": 0.2}


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser("train", help="train an MLP", description=__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("data", nargs="?", choices=["digits", "fashion-mnist"], help="a data set by name")
    data.add_argument(
        "--x",
        type=Path,
        help="your own samples (N, ...): .npy, .npz with arrays x and y, or .csv; .npy files may be larger than memory",
    )
    data.add_argument(
        "--y", type=Path, help="their labels (N,) of any kind, or numbers (N,) or (N, k): .npy, .npz or .csv"
    )
    data.add_argument(
        "--target", metavar="COLUMN", help="with --x TABLE.csv: the column that is y, by its name or its number from 1"
    )
    data.add_argument(
        "--task",
        choices=["classify", "regress"],
        help="what y is; by default texts and numbers that repeat are classes, others amounts, and a line says so",
    )
    data.add_argument(
        "--scale",
        choices=["auto", "none"],
        help="auto: each feature to mean 0 and deviation 1, bytes (uint8) to 0..1; none: bytes alone (default: auto)",
    )
    data.add_argument("--test-share", type=_share, help="of your own samples, kept for testing (default: 0.2)")
    data.add_argument("--folder", type=Path, help="where the Fashion-MNIST files are")
    model = parser.add_argument_group("model and training; defaults depend on the data")
    model.add_argument("--hidden", type=_sizes, help="sizes of the hidden layers, such as 256,128; '' for none")
    model.add_argument("--epochs", type=_count)
    model.add_argument("--batch-size", type=_count)
    model.add_argument("--lr", type=_positive, help="the learning rate to begin with; it falls to 0 along a cosine")
    model.add_argument("--weight-decay", type=_not_negative)
    model.add_argument(
        "--optimizer", choices=get_args(OptimizerName), default="adamw", help="(default: adamw; sgd has momentum 0.9)"
    )
    model.add_argument(
        "--threads", type=_threads, default="auto", help="threads of one step (default: chosen by measuring)"
    )
    model.add_argument(
        "--replicas", type=_count, default=1, help="data-parallel replicas, which share the threads (default: 1)"
    )
    model.add_argument("--seed", type=_seed, default=0)
    model.add_argument("--device", default="cpu", help="cpu, cuda, or cuda:1 for the second card (default: cpu)")
    model.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", type=Path, default=Path(), help="folder for NAME.safetensors and history.csv (default: here)"
    )
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    output.add_argument("--resume", action="store_true", help="go on from the folder's NAME.safetensors")
    output.add_argument("--overwrite", action="store_true", help="replace the folder's files if there are any")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, and print the result."""
    device = devices.named(options.device, "train --device")
    check_folder(options.out)
    path, table = options.out / f"{options.data or _stem(options.x)}.safetensors", options.out / "history.csv"
    _require_ours(options, path, table)
    kept = notes_of(checkpoint.read(path)[1]) if options.resume else None
    job = task(options, kept)
    if options.data is None and not options.quiet:
        say(f"task: {job.goal}")
    epochs = _or(options.epochs, job.epochs)
    trainer = gr.Trainer(
        _mlp(job, _or(options.hidden, job.hidden)),
        loss=job.goal.loss,
        optimizer=_optimizer(options, job, max(len(job.data) * epochs, 1)),
        device=device,
        dtype=options.dtype,
        replicas=options.replicas,
        threads=options.threads,
        seed=options.seed,
    )
    _require_room(trainer, job, path)
    try:
        history = trainer.fit(
            job.data,
            epochs,
            validate=job.test,
            resume=path if options.resume else None,
            on_signal="save" if threading.current_thread() is threading.main_thread() else "raise",
            verbose=not options.quiet,
        )
    except KeyboardInterrupt as error:
        written = _saved(trainer, job, path)
        then = "--resume continues from it" + ("" if written == path else f" once it is moved to {path}")
        say(f"interrupted after {trainer.step_count} steps; {written} has them, and {then}", sys.stderr)
        return 128 + int(getattr(error, "number", 2))
    written = _saved(trainer, job, path)
    if written != path:
        return 1
    history.to_csv(table)
    if not options.quiet:
        say(f"{job.name}: {_result(trainer, job)} on {len(job.truth)} test samples; {path}, {table}")
        say(f"where the time went: {trainer.timings()}")
    return 0


def _require_room(trainer: gr.Trainer, job: Task, path: Path) -> None:
    """Write the file that the training will write, beside its place, and remove it: a full disk must be known before."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        trainer.save(probe, notes=job.notes())
    except OSError as error:
        if not full_disk(error):
            raise
        raise OSError(
            f"[train] --out {path.parent}: {full_disk(error)}, so there would be no place for the result: make room first, or "
            "give another --out"
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def _saved(trainer: gr.Trainer, job: Task, path: Path) -> Path:
    """Write the model, and return its path: in the system's folder for temporary files if the disk is full by now."""
    try:
        trainer.save(path, notes=job.notes())
        return path
    except OSError as error:
        if not full_disk(error):
            raise
        other = Path(tempfile.mkdtemp(prefix="gradring-")) / path.name
        try:
            trainer.save(other, notes=job.notes())
        except BaseException:
            other.parent.rmdir()
            raise
        say(f"gradring: error: {error}; the model is in {other} instead: move it here when there is room", sys.stderr)
        return other


def _stem(path: Path | None) -> str:
    return "" if path is None else path.stem


def _require_ours(options: argparse.Namespace, *paths: Path) -> None:
    """Refuse to overwrite files unless the user asked for it."""
    require_other("train", paths, (options.x, options.y))
    if options.resume and options.overwrite:
        raise ValueError(
            "[train] --resume goes on from the file, and --overwrite replaces it: leave one of the two out"
        )
    if options.resume and not paths[0].exists():
        raise ValueError(
            f"[train] --resume: there is no file {paths[0]}; leave --resume out to start from the beginning"
        )
    if options.resume or options.overwrite:
        return
    for path in paths:
        if path.exists():
            raise FileExistsError(
                f"[train] {path} is there already: --resume continues from it, --overwrite replaces it, and --out names "
                "another folder"
            )


def _result(trainer: gr.Trainer, job: Task) -> str:
    metrics = trainer.evaluate(job.test)
    if job.goal.kind == "classify":
        return f"accuracy {metrics['accuracy']:.2%}".replace("%", " %")
    # The loss is the mean square error of numbers scaled to a deviation of 1: convert it to the numbers' own units.
    truth = job.truth.reshape(len(job.truth), -1).astype(np.float64)
    if job.goal.outputs == 1:
        error = metrics["loss"] ** 0.5 * job.goal.deviation[0]
        spread = truth.std()
        score = f"R2 {1 - (error / spread) ** 2:.4f}, " if spread > 0 else ""
        return f"{score}root mean square error {error:.6g}"
    return f"loss {metrics['loss']:.6g} (mean square of the numbers, each over its deviation)"


def _mlp(job: Task, hidden: tuple[int, ...]) -> gr.nn.Sequential:
    layers: list[Any] = []
    size = len(job.scaling.mean)
    for width in hidden:
        layers += [gr.nn.Linear(size, width), gr.nn.ReLU()]
        size = width
    return gr.nn.Sequential(*layers, gr.nn.Linear(size, job.goal.outputs))


def _optimizer(options: argparse.Namespace, job: Task, steps: int) -> gr.optim.Optimizer:
    decay = _or(options.weight_decay, job.weight_decay)
    factor = _RATES.get(options.optimizer, 1.0)
    rate = gr.optim.schedule.cosine(_or(options.lr, job.lr * factor), steps)
    match options.optimizer:
        case "sgd":
            return gr.optim.SGD(rate, momentum=0.9, weight_decay=decay / 100)
        case "lion":  # its decay is multiplied by the rate
            return gr.optim.Lion(rate, weight_decay=decay / factor)
        case "adamw":
            return gr.optim.AdamW(rate, weight_decay=decay)
        case name:  # without a decay unless one is asked for, which is added to the gradients
            kind = gr.optim.Adam if name == "adam" else gr.optim.RMSprop
            return kind(rate, weight_decay=_or(options.weight_decay, 0.0))


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected sizes such as 256,128, got {text!r}")
    return sizes


def _whole(text: str, least: int, wanted: str) -> int:
    digits = text.isascii() and text.isdecimal() and len(text) < 20  # isdigit takes superscripts, which int refuses
    if not digits or not least <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"expected a {wanted}, got {text[:40]!r}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1, "number of at least 1")


def _seed(text: str) -> int:
    return _whole(text, 0, "whole number of at least 0 and below 2**63")


def _number(text: str, fits: Callable[[float], bool], wanted: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and fits(number)):
        raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text!r}")
    return number


def _positive(text: str) -> float:
    return _number(text, lambda number: number > 0, "above 0")


def _not_negative(text: str) -> float:
    return _number(text, lambda number: number >= 0, "of at least 0")


def _share(text: str) -> float:
    return _number(text, lambda number: 0 < number < 1, "above 0 and below 1")


def _threads(text: str) -> int | str:
    return text if text == "auto" else _whole(text, 1, "number of at least 1, or auto")
