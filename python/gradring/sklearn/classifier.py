"""A classifier for scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from gradring.arguments import choice, real
from gradring.choices import Activation, OptimizerName
from gradring.losses import CrossEntropy
from gradring.optim import Optimizer
from gradring.sklearn.network import Network

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Classifier"]

Array = NDArray[Any]


class Classifier(ClassifierMixin, Network):
    """A multilayer perceptron for classification, trained natively.

    ``hidden`` are the sizes of the hidden layers. ``optimizer`` is ``"adamw"``, ``"adam"``, ``"sgd"`` (with momentum 0.9),
    ``"rmsprop"`` or ``"lion"`` (which needs a smaller ``lr``, by a factor of 3 to 10), with the rate ``lr`` and the
    ``weight_decay`` of AdamW and Lion; or one of ``gr.optim``. ``class_weight`` maps labels to numbers by which their samples
    count more or less, 1 where a label is left out; with ``"balanced"`` all classes count the same. The loss of a batch is a
    weighted mean, so a batch should have samples of every class: with ``class_weight``, ``batch_size="auto"`` is at least 32.
    ``scale`` brings each feature to mean 0 and deviation 1, as it is in the samples of ``fit``, or of the first
    ``partial_fit``. With ``early_stopping`` a ``validation_fraction`` of the samples is kept apart, training ends after
    ``n_iter_no_change`` epochs without a better loss on them, and the best weights are kept. ``random_state`` decides initial
    weights, order and dropout.

    Labels are of any kind that ``numpy.unique`` can sort: texts, ints, floats, bools. After ``fit`` it has
    ``classes_``, ``model_`` (a ``gr.nn.Sequential``), ``history_``, ``n_epochs_`` and ``loss_``. It can be cloned and
    pickled. With ``sample_weight`` the loss of each batch, the validation's and the scaling of features are weighted
    means.

    >>> import gradring as gr
    >>> (x, y), (x_test, y_test) = gr.datasets.digits()
    >>> clf = Classifier(hidden=(64,), epochs=10, random_state=0).fit(x, y)
    >>> clf.score(x_test, y_test) > 0.9
    True
    >>> clf.predict_proba(x_test).shape
    (355, 10)
    """

    _loss = "cross_entropy"
    classes_: Array

    def __init__(
        self,
        hidden: Sequence[int] = (100,),
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        epochs: int = 100,
        batch_size: int | Literal["auto"] = "auto",
        optimizer: OptimizerName | Optimizer = "adamw",
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        scale: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        dtype: Literal["float32", "float64"] = "float32",
        threads: int | Literal["auto"] = "auto",
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden,
            activation=activation,
            dropout=dropout,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            scale=scale,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            random_state=random_state,
            dtype=dtype,
            threads=threads,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on samples (N, features) with labels (N,), from the beginning. Samples count by their weights."""
        self._fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One epoch over these samples. The first call must give all ``classes`` that will ever come."""
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"[Classifier.partial_fit] class_weight={self.class_weight!r} needs all labels at once: give a dict by label"
            )
        first = not self._begun
        if first and classes is None:
            raise ValueError("[Classifier.partial_fit] classes must be passed on the first call to partial_fit")
        if classes is not None:
            given = np.unique(np.asarray(classes))
            if not first and not np.array_equal(given, self.classes_):
                raise ValueError(
                    f"[Classifier.partial_fit] classes are {given}, but were {self.classes_} in an earlier call"
                )
            self._given = given
        try:
            self._fit_part(X, y, sample_weight, first=first)
        finally:
            self.__dict__.pop("_given", None)
        return self

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class (N, classes), in the order of ``classes_``."""
        outputs = self._predicted(X)
        if len(self.classes_) == 1:
            return np.ones((len(outputs), 1))
        return CrossEntropy().probabilities(outputs)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of ``predict_proba``."""
        outputs = self._predicted(X)
        if len(self.classes_) == 1:
            return np.zeros((len(outputs), 1))
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        logs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return logs

    def predict(self, X: Any) -> Array:
        """The most likely label of each sample."""
        outputs = self._predicted(X)
        labels: Array = self.classes_[outputs[:, : len(self.classes_)].argmax(axis=1)]
        return labels

    def _checked_target(self, y: Any) -> Array:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        labels: Array = y
        return labels

    def _learn_target(self, y: Array, weight: Array | None) -> None:
        self.classes_ = self.__dict__.get("_given", np.unique(y))

    def _encoded(self, y: Array) -> Array:
        places = np.searchsorted(self.classes_, y)
        places[places == len(self.classes_)] = 0
        strange = self.classes_[places] != y
        if strange.any():
            raise ValueError(
                f"[Classifier] y has the label {y[strange].tolist()[0]!r}, which is none of the classes {self.classes_}"
            )
        return places.astype(np.int64)

    def _weighted(self, y: Array, weight: Array | None) -> Array | None:
        given, classes = self.class_weight, self.classes_.tolist()
        if given is None:
            return weight
        weight = np.ones(len(y)) if weight is None else weight
        places = self._encoded(y)
        factors = np.ones(len(classes))
        if isinstance(given, Mapping):
            for label, factor in given.items():
                if label not in classes:
                    raise ValueError(
                        f"[Classifier] class_weight has the label {label!r}, which is none of the classes {self.classes_}"
                    )
                factors[classes.index(label)] = real("Classifier", f"class_weight[{label!r}]", factor, least=0)
        else:
            choice("Classifier", "class_weight", given, ("balanced",), "or give a dict by label, or None")
            totals = np.bincount(places, weight, len(classes))
            factors = totals.sum() / (len(classes) * totals)
        weighted: Array = weight * factors[places]
        if not weighted.any():
            raise ValueError("[Classifier] class_weight is zero for every label of y: no sample would count")
        return weighted

    @property
    def _least_batch(self) -> int:  # type: ignore[override]
        return 1 if self.class_weight is None else 32

    def _outputs(self) -> int:
        return max(len(self.classes_), 2)
