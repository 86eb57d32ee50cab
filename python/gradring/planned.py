"""Public names that are planned. If one is not built yet, reading it raises ``NotBuilt`` with a sentence about this
version.

A module's own names come first, so a name may stay in the table when it is built; delete it then.

>>> import gradring as gr
>>> hasattr(gr.nn, "NoSuchLayer"), hasattr(gr, "no_such_name")
(False, False)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from gradring.errors import NotBuilt
from gradring.habits import close_to

__all__ = ["PLANNED", "getter", "refuse"]

_VECTORS = "this version has layers and kernels of vectors"

# Maps a module and a name in it to a text about what this version has instead.
PLANNED: dict[str, dict[str, str]] = {
    "gradring.nn": {
        **dict.fromkeys(
            ("AvgPool2d", "BatchNorm2d", "Conv2d", "MaxPool2d", "MultiHeadAttention"),
            _VECTORS,
        ),
    },
    "gradring.ops": {
        name + suffix: _VECTORS
        for name in (
            "attention",
            "avg_pool2d",
            "conv2d",
            "max_pool2d",
        )
        for suffix in ("", "_vjp")
    },
}


# Names of other libraries.
_ELSEWHERE = {
    **dict.fromkeys(("Dense", "LazyLinear"), "the layer is gr.nn.Linear(inputs, outputs)"),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax"),
        "no layer is needed: the loss cross_entropy takes scores, and trainer.predict_proba gives probabilities",
    ),
    **dict.fromkeys(("Module", "Model"), "a model is a gr.nn.Layer; gr.nn.Sequential(...) makes one of several"),
    **dict.fromkeys(("CrossEntropyLoss", "SparseCategoricalCrossentropy"), "the loss is gr.losses.CrossEntropy()"),
    **dict.fromkeys(("BCEWithLogitsLoss", "BCELoss"), "the loss is gr.losses.BinaryCrossEntropy()"),
    **dict.fromkeys(("DataLoader", "Dataset", "TensorDataset"), "gr.Loader(source, batch_size) makes batches"),
    **dict.fromkeys(("ModelCheckpoint", "BackupAndRestore"), "the callback is gr.callbacks.Checkpoint(path)"),
    "EarlyStopping": "the callback is gr.callbacks.EarlyStop()",
    "CSVLogger": "the callback is gr.callbacks.Csv(path)",
    **dict.fromkeys(
        ("ProgressBar", "TQDMProgressBar", "RichProgressBar", "ProgbarLogger"), "gr.callbacks.Progress shows it"
    ),
    **dict.fromkeys(
        ("LearningRateScheduler", "LearningRateMonitor", "LRScheduler", "lr_scheduler", "LambdaLR"),
        "optimizers take a schedule or a function of the step as lr: see gr.optim.schedule",
    ),
    **dict.fromkeys(("LambdaCallback", "LoggerCallback"), "a subclass of gr.callbacks.Callback does this"),
    **dict.fromkeys(
        ("CosineAnnealingLR", "CosineDecay", "cosine_decay_schedule"), "gr.optim.schedule.cosine(start, steps)"
    ),
    **dict.fromkeys(("StepLR", "ExponentialDecay", "ExponentialLR"), "gr.optim.schedule.step(start, every, factor)"),
    **dict.fromkeys(
        ("MultiStepLR", "SequentialLR", "PiecewiseConstantDecay"), "gr.optim.schedule.join(schedules, starts)"
    ),
    **dict.fromkeys(("OneCycleLR",), "gr.optim.schedule.one_cycle(peak, steps)"),
    **dict.fromkeys(
        ("PolynomialDecay", "PolynomialLR", "LinearLR"), "gr.optim.schedule.polynomial and linear fall to an end"
    ),
    **dict.fromkeys(("MSELoss", "MeanSquaredError"), "the loss is gr.losses.MSE()"),
    **dict.fromkeys(("L1Loss", "MeanAbsoluteError"), "gr.losses.MAE() and gr.metrics.MAE() compute it"),
    **dict.fromkeys(("SmoothL1Loss", "HuberLoss"), "the loss is gr.losses.Huber(delta)"),
    **dict.fromkeys(("BinaryCrossentropy", "BinaryCrossEntropyLoss"), "the loss is gr.losses.BinaryCrossEntropy()"),
    **dict.fromkeys(
        ("CategoricalCrossentropy", "NLLLoss"), "gr.losses.CrossEntropy() takes class numbers, and also shares"
    ),
    **dict.fromkeys(
        ("F1", "F1Score", "Precision", "Recall", "AUC", "AUROC", "f1_score", "roc_auc_score"),
        "any function of predictions and targets is a metric: Trainer(metrics=[function])",
    ),
    **dict.fromkeys(
        ("SparseCategoricalAccuracy", "BinaryAccuracy"), "the metric is gr.metrics.Accuracy(), or 'accuracy'"
    ),
    **dict.fromkeys(
        ("ToTensor", "Compose", "Lambda", "Resize"), "transforms= takes a list; gr.transforms.Python(fn) does the rest"
    ),
    **dict.fromkeys(("manual_seed", "set_seed", "set_random_seed"), "gr.seed(n) does this"),
    **dict.fromkeys(("tensor", "Tensor", "from_numpy", "array"), "NumPy's arrays are taken as they are"),
    **dict.fromkeys(("no_grad", "inference_mode"), "leave it out: model(x) and predict compute no gradients"),
    "save": "model.save(path), or trainer.save(path) for all of a training's state",
}


def refuse(module: str, name: str) -> NoReturn:
    """Raise the error for a name that ``module`` does not have: ``NotBuilt`` if the name is planned."""
    instead = PLANNED.get(module, {}).get(name)
    if instead is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}{_hint(module, name)}")
    public = "gr" + module.removeprefix("gradring")
    raise NotBuilt(f"{public}.{name} is planned; {instead}")


def _hint(module: str, name: str) -> str:
    if name.startswith("_"):  # Python itself and tools ask for such names
        return ""
    public, known = "gr" + module.removeprefix("gradring"), _ELSEWHERE.get(name)
    if known is not None:
        return f": {known}"
    close = close_to(name, getattr(sys.modules.get(module), "__all__", ()))
    return f"; did you mean {public}.{close}?" if close else ""


def getter(module: str) -> Callable[[str], Any]:
    """A module's ``__getattr__``."""
    return lambda name: refuse(module, name)
