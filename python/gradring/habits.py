"""Arguments and names that other libraries have, and what takes their place here."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["close_to", "explained", "explained_methods", "hint_for", "with_hint"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

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
        "precision": "dtype= is 'float32', 'float64', 'bfloat16', 'float16' or, on a CUDA device, 'tf32'",
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
    "Linear": {"activation": "an activation is a layer of its own, such as gr.nn.ReLU()"},
    "Dropout": {"noise_shape": "each element is drawn by itself"},
    "LayerNorm": {
        "elementwise_affine": "weight and bias are always there: frozen= of the trainer leaves them as they are"
    },
    "Checkpoint": {
        "save_best_only": "give monitor='val_loss': then only epochs that are better than ever before are saved",
        **dict.fromkeys(
            ("save_weights_only", "weights_only"), "gr.load(path) takes the weights alone from any file of it"
        ),
        **dict.fromkeys(
            ("save_last", "save_on_train_epoch_end"), "without monitor= it also saves the state in which fit ends"
        ),
    },
    "EarlyStop": {
        "baseline": "a callback of your own sets run.stop to a reason in on_epoch_end",
        "start_from_epoch": "a larger patience= lets the first epochs pass",
    },
    "ReduceLROnPlateau": {"optimizer": "leave it out: fit has the optimizer"},
    "CrossEntropy": {
        "from_logits": "leave it out: the outputs are always scores (logits), and no layer of softmax comes before",
        "ignore_index": "give these samples the weight 0, as the third field of a batch",
    },
    "BinaryCrossEntropy": {
        "from_logits": "leave it out: the outputs are always scores (logits), and no Sigmoid comes before",
    },
}
for _rule in ("SGD", "Adam", "AdamW", "RMSprop", "Lion"):
    _INSTEAD[_rule] = {
        "params": "leave it out: gr.Trainer(model, optimizer=...) has them, and groups= are patterns over their names",
        "clipnorm": "gr.Trainer(..., clip_norm=1.0) bounds the norm of the gradients",
        "ema_momentum": "no moving averages of parameters are kept",
    }

# Names that mean the same in one library or another: an argument that is called by one of them has another of them here.
_ALIKE = [
    set(names.split())
    for names in (
        "metric monitor score_name",
        "path file filename file_name filepath fname dirpath folder log_dir logdir save_dir save_path export_dir root",
        "lr learning_rate learning_rate_init eta max_lr base_lr initial_learning_rate start rate peak",
        "eps epsilon",
        "betas beta_1 beta_2 beta1 beta2 b1 b2",
        "alpha rho smoothing_constant decay_rate",
        "weight_decay decay l2 wd",
        "groups param_groups parameter_groups",
        "restore_best restore_best_weights load_best",
        "min_delta threshold tol",
        "every every_n_epochs save_freq period step_size",
        "keep save_top_k max_to_keep n_saved save_total_limit",
        "factor gamma decay_factor decay_rate",
        "steps T_max total_steps total_iters decay_steps max_steps num_steps warmup_steps num_warmup_steps num_training_steps",
        "end eta_min end_lr end_learning_rate min_lr final_lr",
        "min_lr eta_min",
        "starts milestones boundaries",
        "then after schedule after_scheduler",
        "label_smoothing smoothing",
        "weight class_weight class_weights weights",
        "pos_weight positive_weight scale_pos_weight weight",
        "delta beta",
        "k top_k topk",
        "p rate dropout drop_rate drop_prob dropout_rate probability prob",
        "features num_features normalized_shape hidden_size dim axis embedding_dim output_dim d_model",
        "count num_embeddings input_dim vocab_size",
        "inputs in_features input_dim in_channels n_in",
        "outputs out_features units out_channels output_dim n_out",
        "bias use_bias",
        "affine elementwise_affine scale_grad",
        "approximate approximation",
        "hidden hidden_layer_sizes hidden_sizes hidden_units layers",
        "epochs max_iter n_epochs max_epochs num_epochs n_iter nb_epoch",
        "optimizer solver optim",
        "random_state seed generator rng",
        "seed random_state generator",
        "dropout p rate",
        "verbose silent progress_bar",
        "size crop_size output_size",
        "n num_classes n_classes depth classes",
        "mean means",
        "std stds stdev sigma variance",
        "fn func function f lambd callable",
        "function fn func f",
        "length n size num_samples",
        "batch_size batchsize bs batch",
        "shuffle random_order",
        "drop_last drop_remainder",
        "threads n_jobs num_threads workers",
        "accumulate gradient_accumulation",
        "frozen freeze trainable",
        "shape input_shape input_size",
        "axis dim",
    )
]


def close_to(name: str, names: Iterable[str]) -> str:
    """The name among ``names`` that is most like ``name``, ignoring case; empty if none is similar.

    >>> close_to("Relu", ["Linear", "ReLU"])
    'ReLU'
    """
    known = {other.lower(): other for other in names if not other.startswith("_")}
    found = difflib.get_close_matches(name.lower(), known, 1, 0.7)
    return known[found[0]] if found else ""


def _meant(name: str, known: Iterable[str]) -> str:
    """The argument among ``known`` that other libraries call ``name``, or whose name is like it; empty if there is none."""
    called = [other for other in known if any({name, other} <= names for names in _ALIKE)]
    return called[0] if called else close_to(name, known)


def hint_for(where: str, name: str, known: Iterable[str]) -> str:
    """What to do about a ``name`` that is not among the ``known`` ones: what takes its place, or the name that it has
    here; empty if there is neither.

    >>> hint_for("Trainer", "learning_rate", ["optimizer"])
    'the rate belongs to the optimizer: optimizer=gr.optim.AdamW(1e-3)'
    """
    meant = _meant(name, known)
    instead = _INSTEAD.get(where, {}).get(name) or ("" if meant else _INSTEAD[""].get(name, ""))
    return instead or (f"did you mean {meant!r}?" if meant else "")


def with_hint(where: str, error: TypeError, named: Iterable[str], signature: inspect.Signature) -> TypeError:
    """Python's error for arguments that do not fit, with what to do about those ``named`` ones that ``signature`` does not
    have: what takes their place, the name that they have here, or all names that there are.

    >>> def fit(data, *, validate=None): ...
    >>> str(with_hint("Trainer.fit", TypeError("no"), ["validation_data"], inspect.signature(fit)))
    '[Trainer.fit] no: give the data as validate=(x, y), or a loader of them'
    >>> def early_stop(metric="val_loss", patience=10): ...
    >>> str(with_hint("EarlyStop", TypeError("no"), ["monitor"], inspect.signature(early_stop)))
    "[EarlyStop] no: did you mean 'metric'?"
    >>> str(with_hint("EarlyStop", TypeError("no"), ["colour"], inspect.signature(early_stop)))
    "[EarlyStop] no: its arguments are (metric='val_loss', patience=10)"
    """
    known = [name for name in signature.parameters if name != "self"]
    hint = next(filter(None, (hint_for(where, name, known) for name in named if name not in known)), "")
    if not hint and known:
        bare = [one.replace(annotation=one.empty) for name, one in signature.parameters.items() if name != "self"]
        hint = f"its arguments are {signature.replace(parameters=bare, return_annotation=signature.empty)}"
    return TypeError(f"[{where}] {error}{hint and ': ' + hint}")


def explained(where: str, positional: str = "") -> Callable[[F], F]:
    """Make Python's errors for the arguments of a function or method say what to do; ``positional`` is the advice for too many
    without a name."""

    def decorate(method: F) -> F:
        code = method.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

        @functools.wraps(method)
        def call(*given: Any, **named: Any) -> Any:
            try:
                return method(*given, **named)
            except TypeError as error:
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise  # it comes from within the method
                told = with_hint(where, error, named, inspect.signature(method))
                many = len(given) > code.co_argcount or any(name in named for name in names[: len(given)])
                raise TypeError(f"{told}: {positional}" if many and positional else str(told)) from None

        return call  # type: ignore[return-value]

    return decorate


def explained_methods(*names: str) -> Callable[[C], C]:
    """Do for these methods of a class what ``explained`` does for one."""

    def decorate(cls: C) -> C:
        for name in names:
            setattr(cls, name, explained(f"{cls.__name__}.{name}")(vars(cls)[name]))
        return cls

    return decorate
