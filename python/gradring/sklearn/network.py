"""The base class of both estimators: a multilayer perceptron, its training, and its pickle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from gradring import callbacks, nn, optim
from gradring.arguments import choice, real, whole
from gradring.arrays import as_ndarray
from gradring.attributes import Explained
from gradring.choices import Activation, OptimizerName
from gradring.losses import LossName
from gradring.trainer import Trainer

__all__ = ["Network", "moments"]

Array = NDArray[Any]
_BLOCK = 64  # samples that are predicted together
_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class Network(BaseEstimator, metaclass=Explained):
    """The options of both estimators, and their use. The constructor only stores the options and ``fit`` checks them, as
    scikit-learn demands."""

    _loss: LossName
    _least_batch = 1  # the least that batch_size="auto" chooses
    _state: dict[str, Any] | None
    model_: nn.Layer

    def __init__(
        self,
        hidden: Sequence[int] = (100,),
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        epochs: int = 100,
        batch_size: int | Literal["auto"] = "auto",
        optimizer: OptimizerName | optim.Optimizer = "adamw",
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
        scale: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        dtype: Literal["float32", "float64"] = "float32",
        threads: int | Literal["auto"] = "auto",
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.scale = scale
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.dtype = dtype
        self.threads = threads
        self.verbose = verbose

    # Methods of the subclasses

    def _checked_target(self, y: Any) -> Array:
        """Targets that scikit-learn's checks have passed, one row per sample."""
        raise NotImplementedError

    def _learn_target(self, y: Array, weight: Array | None) -> None:
        """Learn from the targets what the network's outputs mean."""
        raise NotImplementedError

    def _encoded(self, y: Array) -> Array:
        """Targets in the form that the loss needs."""
        raise NotImplementedError

    def _outputs(self) -> int:
        raise NotImplementedError

    def _weighted(self, y: Array, weight: Array | None) -> Array | None:
        """The weight of each sample. A subclass may include a factor that depends on the target."""
        return weight

    # Training

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
        x, y = self._data(X, y, reset=True)
        x, y, weight = _counted(x, y, _weights(sample_weight, x))
        self._learn_target(y, weight)
        x, y, weight = _counted(x, y, self._weighted(y, weight))
        self._make(x, weight)
        trainer = self._trainer_of(self._optimizer())
        fields = self._fields(x, y, weight)
        epochs = whole(type(self).__name__, "epochs", self.epochs, 1)
        if self.early_stopping:
            train, check = (tuple(field[part] for field in fields) for part in self._parts(y))
            stop = callbacks.EarlyStop("val_loss", self.n_iter_no_change, restore_best=True)
            self._run(trainer, train, epochs, check, [stop])
        else:
            self._run(trainer, fields, epochs, None, [])
        return self

    def _fields(self, x: Array, y: Array, weight: Array | None) -> tuple[Array, ...]:
        """The fields that the trainer gets: samples, targets and weights."""
        fields = self._scaled(x), self._encoded(y)
        return fields if weight is None else (*fields, weight.astype(self.dtype))

    def _fit_part(self, X: Any, y: Any, sample_weight: Any, *, first: bool) -> Any:
        x, y = self._data(X, y, reset=first)
        weight = _weights(sample_weight, x)
        if first:
            self._learn_target(y, weight)
        weight = self._weighted(y, weight)
        if first:
            self._make(x, weight)
        trainer = self.__dict__.get("_trainer")
        if trainer is None:
            trainer = self._trainer = self._trainer_of(self._optimizer())
        self._run(trainer, self._fields(x, y, weight), 1, None, [])
        return self

    def _run(self, trainer: Trainer, data: Any, epochs: int, check: Any, listeners: list[callbacks.Callback]) -> None:
        samples = len(data[0])
        size: Any = self.batch_size
        if isinstance(size, str) and size == "auto":
            size = min(64, max(samples // 10, self._least_batch))
        self.history_ = trainer.fit(
            data, epochs, validate=check, batch_size=size, callbacks=listeners, verbose=bool(self.verbose)
        )
        self.n_epochs_ = trainer.epoch
        self.loss_ = self.history_.last["loss"]
        self._state = trainer.state_dict()

    def _data(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        if y is None:
            raise ValueError(f"[{type(self).__name__}] requires y to be passed, but the target y is None")
        X, y = _plain("X", X), _plain("y", y)
        x, y = validate_data(
            self, X, y, reset=reset, dtype=[np.float64, np.float32], multi_output=True, y_numeric=False
        )
        return x, self._checked_target(y)

    def _make(self, x: Array, weight: Array | None) -> None:
        """Make a new network for samples like ``x``."""
        name = type(self).__name__
        self._state = None
        self.__dict__.pop("_trainer", None)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        rate = real(name, "dropout", self.dropout, least=0, below=1)
        activation = _ACTIVATIONS[choice(name, "activation", self.activation, tuple(_ACTIVATIONS))]
        self.mean_, self.deviation_ = np.zeros(x.shape[1]), np.ones(x.shape[1])
        if self.scale:
            self.mean_, self.deviation_ = moments(x.astype(np.float64), weight)
        layers: list[nn.Layer] = []
        size = x.shape[1]
        widths: Any = self.hidden
        for width in widths if np.iterable(widths) else [widths]:
            layers += [nn.Linear(size, width), activation()]
            layers += [nn.Dropout(rate)] if rate > 0 else []
            size = width
        self.model_ = nn.Sequential(*layers, nn.Linear(size, self._outputs())).init(seed, self.dtype)
        self._seed = int(seed)

    def _trainer_of(self, optimizer: optim.Optimizer) -> Trainer:
        trainer = Trainer(
            self.model_,
            loss=self._loss,
            optimizer=optimizer,
            metrics=("accuracy",) if self._loss == "cross_entropy" else (),
            dtype=self.dtype,
            threads=self.threads,
        )
        if self._state is not None:
            trainer.load_state_dict(self._state)
        else:
            trainer.load_state_dict({**trainer.state_dict(), "seed": self._seed})
        return trainer

    def _optimizer(self) -> optim.Optimizer:
        if isinstance(self.optimizer, optim.Optimizer):
            return self.optimizer
        names = get_args(OptimizerName)
        kind = choice(type(self).__name__, "optimizer", self.optimizer, names, "or give one of gr.optim")
        if kind in ("adamw", "lion"):
            return (optim.AdamW if kind == "adamw" else optim.Lion)(self.lr, weight_decay=self.weight_decay)
        if kind == "sgd":
            return optim.SGD(self.lr, momentum=0.9)
        return optim.Adam(self.lr) if kind == "adam" else optim.RMSprop(self.lr)

    def _parts(self, targets: Array) -> tuple[Array, Array]:
        """Which samples train, and which decide when to stop."""
        name, samples = type(self).__name__, len(targets)
        share = real(name, "validation_fraction", self.validation_fraction, above=0, below=1)
        whole(name, "n_iter_no_change", self.n_iter_no_change, 1)
        count = max(round(samples * share), 1)
        if count >= samples:
            raise ValueError(
                f"[{name}] early_stopping needs samples for both training and validation: n_samples={samples}"
            )
        order = np.random.default_rng(self._seed).permutation(samples)
        return np.sort(order[count:]), np.sort(order[:count])

    # Use

    def _predicted(self, X: Any) -> Array:
        check_is_fitted(self)
        x = validate_data(self, _plain("X", X), reset=False, dtype=[np.float64, np.float32])
        samples = len(x)
        # Predict in blocks of one shape: a sum's order depends on the shape, and a prediction must not depend on how many
        # other samples come with it.
        outputs = np.empty((-(-samples // _BLOCK) * _BLOCK, self._outputs()))
        for first in range(0, samples, _BLOCK):
            block = self._scaled(x[first : first + _BLOCK])
            if len(block) < _BLOCK:
                block = np.concatenate([block, np.zeros((_BLOCK - len(block), block.shape[1]), block.dtype)])
            outputs[first : first + _BLOCK] = self.model_(block)
        return outputs[:samples]

    def _scaled(self, x: Array) -> Array:
        scaled: Array = ((x - self.mean_) / self.deviation_).astype(self.dtype)
        return scaled

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_trainer", None)  # it has native memory and threads; ``_state`` can make it again
        return state

    @property
    def _begun(self) -> bool:
        """Whether a call of ``fit`` or ``partial_fit`` has succeeded since the network was made."""
        return self.__dict__.get("_state") is not None

    def __sklearn_is_fitted__(self) -> bool:
        return self._begun


def _plain(argument: str, given: Any) -> Any:
    """Tensors as arrays, and the error for arrays that hide values, which scikit-learn would read."""
    if isinstance(given, np.ma.MaskedArray) or hasattr(given, "detach"):
        return as_ndarray("sklearn", argument, given)
    return given


def _weights(sample_weight: Any, x: Array) -> Array | None:
    """One weight per sample, none negative and not all zero; None if none are given."""
    if sample_weight is None:
        return None
    weight: Array = _check_sample_weight(
        _plain("sample_weight", sample_weight), x, dtype=np.float64, ensure_non_negative=True
    )
    return weight


def _counted(x: Array, y: Array, weight: Array | None) -> tuple[Array, Array, Array | None]:
    """The samples without those that count for nothing, so that no part for validation has nothing else."""
    if weight is None:
        return x, y, None
    counts = weight > 0
    return x[counts], y[counts], weight[counts]


def moments(table: Array, weight: Array | None) -> tuple[Array, Array]:
    """The mean and the deviation of each column, a sample counting as often as its weight says; 1 where it does not vary."""
    mean = np.average(table, axis=0, weights=weight)
    deviation = np.sqrt(np.average((table - mean) ** 2, axis=0, weights=weight))
    deviation[~(deviation > 1e-12 * np.abs(mean))] = 1.0
    return mean, deviation
