"""``gradring train``: an MLP on the embedded digits, Fashion-MNIST, or your own arrays."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradring as gr
from gradring.cli.data import Task, check_folder, task
from gradring.cli.output import say

__all__ = ["add_to"]

_OPTIMIZERS = ("adamw", "adam", "sgd")


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser("train", help="train an MLP", description=__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("data", nargs="?", choices=["digits", "fashion-mnist"], help="a data set by name")
    data.add_argument(
        "--x",
        type=Path,
        help="your own samples: an .npy array (N, ...); uint8 is scaled to 0..1, other types are taken as they are",
    )
    data.add_argument("--y", type=Path, help="their int labels (N,), or float targets (N, k) for regression")
    data.add_argument(
        "--test-share", type=_share, default=0.2, help="of your own samples, kept for testing (default: 0.2)"
    )
    data.add_argument("--folder", type=Path, help="where the Fashion-MNIST files are")
    model = parser.add_argument_group("model and training; defaults depend on the data")
    model.add_argument("--hidden", type=_sizes, help="sizes of the hidden layers, such as 256,128; '' for none")
    model.add_argument("--epochs", type=_count)
    model.add_argument("--batch-size", type=_count)
    model.add_argument("--lr", type=_positive, help="the learning rate to begin with; it falls to 0 along a cosine")
    model.add_argument("--weight-decay", type=_not_negative)
    model.add_argument(
        "--optimizer", choices=_OPTIMIZERS, default="adamw", help="(default: adamw; sgd has momentum 0.9)"
    )
    model.add_argument(
        "--threads", type=_threads, default="auto", help="threads of one step (default: chosen by measuring)"
    )
    model.add_argument("--seed", type=int, default=0)
    model.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", type=Path, default=Path(), help="folder for NAME.safetensors and history.csv (default: here)"
    )
    output.add_argument("--quiet", action="store_true", help="no progress on standard error")
    output.add_argument("--resume", action="store_true", help="go on from the folder's NAME.safetensors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, and say what came of it."""
    check_folder(options.out)
    job = task(options)
    epochs = _or(options.epochs, job.epochs)
    loader = gr.Loader(job.train, _or(options.batch_size, job.batch_size), shuffle=True, seed=options.seed)
    model = _mlp(job, _or(options.hidden, job.hidden))
    trainer = gr.Trainer(
        model,
        loss=job.loss,
        optimizer=_optimizer(options, job, max(len(loader) * epochs, 1)),
        dtype=options.dtype,
        threads=options.threads,
        seed=options.seed,
    )
    path = options.out / f"{job.name}.safetensors"
    if options.resume and not path.exists():
        raise ValueError(f"[train] --resume: there is no file {path}; leave --resume out to start afresh")
    try:
        history = trainer.fit(
            loader,
            epochs,
            validate=job.test,
            resume=path if options.resume else None,
            on_signal="save",
            verbose=not options.quiet,
        )
    except KeyboardInterrupt as error:
        trainer.save(path)
        say(f"interrupted after {trainer.step_count} steps; {path} has them, and --resume goes on from it", sys.stderr)
        return 128 + int(getattr(error, "number", 2))
    trainer.save(path)
    history.to_csv(options.out / "history.csv")
    say(f"{job.name}: {_result(trainer, job)} on {len(job.test.x)} test samples; {path}, {options.out / 'history.csv'}")
    say(f"where the time went: {trainer.timings()}")
    return 0


def _result(trainer: gr.Trainer, job: Task) -> str:
    metrics = trainer.evaluate(job.test)
    return (
        f"accuracy {metrics['accuracy']:.2%}".replace("%", " %")
        if "accuracy" in metrics
        else f"loss {metrics['loss']:.6g}"
    )


def _mlp(job: Task, hidden: tuple[int, ...]) -> gr.nn.Sequential:
    layers: list[Any] = []
    size = job.train.x.shape[1]
    for width in hidden:
        layers += [gr.nn.Linear(size, width), gr.nn.ReLU()]
        size = width
    return gr.nn.Sequential(*layers, gr.nn.Linear(size, job.outputs))


def _optimizer(options: argparse.Namespace, job: Task, steps: int) -> gr.optim.Optimizer:
    decay = _or(options.weight_decay, job.weight_decay)
    # Plain gradients need a larger step than Adam's normalised ones; the factor is a usual one.
    lr = _or(options.lr, job.lr * (30 if options.optimizer == "sgd" else 1))
    rate = gr.optim.schedule.cosine(lr, steps)
    if options.optimizer == "sgd":
        return gr.optim.SGD(rate, momentum=0.9, weight_decay=decay / 100)
    return gr.optim.AdamW(rate, weight_decay=decay) if options.optimizer == "adamw" else gr.optim.Adam(rate)


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


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


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
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, or auto, got {text!r}")
    return int(text)
