"""Arguments and names that other libraries have, and what takes their place here."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["close_to", "explained", "with_hint"]

F = TypeVar("F", bound=Callable[..., Any])

_PAIR = "x and y come as one pair, fit((x, y), epochs); evaluate((x, y))"
_VALIDATE = "give the data as validate=(x, y), or a loader of them"
_SPLIT = "split the data first: train, test = gr.Loader(data, batch_size, shuffle=True).split(0.8); fit(train, validate=test)"
_WEIGHT = "weights are the third field: fit((x, y, weight)), evaluate((x, y, weight)), step(x, y, weight)"
_RATE = "the rate belongs to the optimizer: optimizer=gr.optim.AdamW(1e-3)"
_EPOCHS = "epochs are an argument of fit: trainer.fit(data, epochs=10)"
_WORKERS = "give num_threads, or gr.sources.Callable(fn, length, workers='processes', num_workers=4) as the source"

# By the name of the function or class, or "" for all.
_INSTEAD: dict[str, dict[str, str]] = {
    "": {
        **dict.fromkeys(("sample_weight", "sample_weights", "weights"), _WEIGHT),
        **dict.fromkeys(("lr", "learning_rate"), _RATE),
    },
    "Trainer.fit": {
        **dict.fromkeys(("x", "X", "y", "target", "targets", "labels"), _PAIR),
        **dict.fromkeys(("validation_data", "val_data", "eval_set", "valid", "val_dataloaders"), _VALIDATE),
        **dict.fromkeys(("validation_split", "validation_fraction"), _SPLIT),
        **dict.fromkeys(("n_epochs", "num_epochs", "nb_epoch", "max_epochs", "max_iter"), "epochs= is their number"),
        **dict.fromkeys(("initial_epoch", "ckpt_path", "checkpoint"), "resume=path goes on from a Checkpoint's file"),
        "class_weight": "class weights belong to the trainer: gr.Trainer(model, class_weight='balanced')",
        "shuffle": "arrays come shuffled; gr.Loader(data, batch_size, shuffle=False) keeps their order",
        "workers": _WORKERS,
        "device": "the device belongs to the trainer: gr.Trainer(model, device='cuda')",
    },
    "Trainer.evaluate": dict.fromkeys(("x", "X", "y", "target", "targets", "labels"), _PAIR),
    "Trainer": {
        **dict.fromkeys(("epochs", "max_epochs", "n_epochs", "num_epochs"), _EPOCHS),
        **dict.fromkeys(("criterion", "loss_fn", "objective"), "loss= is a name or one of gr.losses"),
        **dict.fromkeys(
            ("callbacks", "batch_size", "validation_data"), "fit has this argument: see help(gr.Trainer.fit)"
        ),
        **dict.fromkeys(
            ("gradient_clip_val", "clipnorm", "max_grad_norm"), "clip_norm= bounds the norm of the gradients"
        ),
        **dict.fromkeys(("accumulate_grad_batches", "gradient_accumulation_steps"), "accumulate= is that number"),
        **dict.fromkeys(("accelerator", "devices"), "give device='cuda' or 'cpu', and replicas= for their number"),
        "precision": "dtype= is 'float32' or 'float64'",
    },
    "Loader": {
        **dict.fromkeys(("num_workers", "workers"), _WORKERS),
        **dict.fromkeys(("sampler", "batch_sampler"), "indices= are the numbers of the samples to read"),
        **dict.fromkeys(("collate_fn", "transform"), "transforms= changes fields: see gr.transforms"),
        "pin_memory": "leave it out: batches lie in memory of the loader",
        "dataset": "the source is the first argument: gr.Loader(source, batch_size)",
        "random_state": "seed= decides the order",
        "prefetch_factor": "prefetch= is how many batches are ready ahead",
    },
    "Linear": {
        **dict.fromkeys(("in_features", "input_dim"), "Linear(inputs, outputs) takes the numbers of features"),
        **dict.fromkeys(("out_features", "units"), "Linear(inputs, outputs) takes the numbers of features"),
        "use_bias": "bias= says whether there is one",
        "activation": "an activation is a layer of its own, such as gr.nn.ReLU()",
    },
    "Dropout": {"rate": "p is the probability"},
    "Embedding": dict.fromkeys(
        ("num_embeddings", "embedding_dim", "input_dim", "output_dim"), "see help(gr.nn.Embedding)"
    ),
}


def close_to(name: str, names: Iterable[str]) -> str:
    """The name among ``names`` that is most like ``name``, ignoring case; empty if none is similar.

    >>> close_to("Relu", ["Linear", "ReLU"])
    'ReLU'
    """
    known = {other.lower(): other for other in names if not other.startswith("_")}
    found = difflib.get_close_matches(name.lower(), known, 1, 0.7)
    return known[found[0]] if found else ""


def with_hint(where: str, error: TypeError, named: Iterable[str], known: Iterable[str]) -> TypeError:
    """Python's error for arguments that do not fit, with what to do about those ``named`` ones that are not ``known``.

    >>> str(with_hint("Trainer.fit", TypeError("no"), ["validation_data"], ["data", "validate"]))
    '[Trainer.fit] no: give the data as validate=(x, y), or a loader of them'
    """
    known = list(known)
    hints = []
    for name in named:
        if name in known:
            continue
        instead = _INSTEAD.get(where, {}).get(name) or _INSTEAD[""].get(name)
        close = close_to(name, known)
        hints.append(instead or (f"did you mean {close!r}?" if close else ""))
    hint = next(filter(None, hints), "")
    return TypeError(f"[{where}] {error}{hint and ': ' + hint}")


def explained(where: str, positional: str = "") -> Callable[[F], F]:
    """Make Python's errors for the arguments of a method say what to do; ``positional`` is the advice for too many without
    a name."""

    def decorate(method: F) -> F:
        code = method.__code__
        names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]

        @functools.wraps(method)
        def call(*given: Any, **named: Any) -> Any:
            try:
                return method(*given, **named)
            except TypeError as error:
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise  # it comes from within the method
                told = with_hint(where, error, named, names)
                many = len(given) > code.co_argcount or any(name in named for name in names[: len(given) - 1])
                raise TypeError(f"{told}: {positional}" if many and positional else str(told)) from None

        return call  # type: ignore[return-value]

    return decorate
