"""A classifier for scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from gradring.prediction import probabilities
from gradring.sklearn.network import Network

__all__ = ["Classifier"]

Array = NDArray[Any]


class Classifier(ClassifierMixin, Network):
    """A multilayer perceptron for classification, trained natively.

    ``hidden`` are the sizes of the hidden layers. ``optimizer`` is ``"adamw"``, ``"adam"`` or ``"sgd"`` with the rate
    ``lr`` and ``weight_decay`` (of AdamW), or one of ``gr.optim``. ``scale`` brings each feature to mean 0 and deviation 1,
    as it is in the samples of ``fit``, or of the first ``partial_fit``. With ``early_stopping`` a ``validation_fraction`` of
    the samples is kept apart, training ends after ``n_iter_no_change`` epochs without a better loss on them, and the best
    weights are kept. ``random_state`` decides initial weights, order and dropout.

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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Classifier:
        """Train on samples (N, features) with labels (N,), from the beginning. Samples count by their weights."""
        made: Classifier = self._fit(X, y, sample_weight)
        return made

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Classifier:
        """One epoch over these samples. The first call must give all ``classes`` that will ever come."""
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
            made: Classifier = self._fit_part(X, y, sample_weight, first=first)
        finally:
            self.__dict__.pop("_given", None)
        return made

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class (N, classes), in the order of ``classes_``."""
        outputs = self._predicted(X)
        if len(self.classes_) == 1:
            return np.ones((len(outputs), 1))
        return probabilities("cross_entropy", outputs)

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

    def _outputs(self) -> int:
        return max(len(self.classes_), 2)
