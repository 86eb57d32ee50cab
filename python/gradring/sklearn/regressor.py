"""A regressor for scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from gradring.sklearn.network import Network, moments

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Regressor"]

Array = NDArray[Any]


class Regressor(RegressorMixin, Network):
    """A multilayer perceptron that predicts numbers, trained natively on the mean square error.

    The options are those of ``Classifier``. Targets are (N,) or (N, k) numbers; the network is trained on them scaled to
    mean 0 and deviation 1, and predictions are in the targets' own units.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((300, 3))
    >>> reg = Regressor(hidden=(32,), epochs=50, random_state=0).fit(x, 1000 * x[:, 0] + 5000)
    >>> reg.score(x, 1000 * x[:, 0] + 5000) > 0.95
    True
    """

    _loss = "mse"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on samples (N, features) with targets (N,) or (N, k), from the beginning. Samples count by their weights."""
        self._fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One epoch over these samples. The first call decides how features and targets are scaled."""
        self._fit_part(X, y, sample_weight, first=not self._begun)
        return self

    def predict(self, X: Any) -> Array:
        """The predicted numbers of each sample: (N,), or (N, k) if the training's targets were (N, k)."""
        numbers: Array = self._predicted(X) * self.target_deviation_ + self.target_mean_
        return numbers if self._many else numbers[:, 0]

    def _checked_target(self, y: Any) -> Array:
        if y.dtype.kind not in "fiub":
            try:
                y = y.astype(np.float64)
            except (TypeError, ValueError):
                raise ValueError(f"[Regressor] y must be numbers, got dtype {y.dtype}") from None
        targets: Array = y
        return targets

    def _learn_target(self, y: Array, weight: Array | None) -> None:
        table = y.reshape(len(y), -1).astype(np.float64)
        self._many = y.ndim == 2
        self.target_mean_, self.target_deviation_ = moments(table, weight)

    def _encoded(self, y: Array) -> Array:
        table = y.reshape(len(y), -1).astype(np.float64)
        if table.shape[1] != self._outputs():
            raise ValueError(f"[Regressor] y has {table.shape[1]} numbers per sample, but had {self._outputs()} before")
        scaled: Array = ((table - self.target_mean_) / self.target_deviation_).astype(self.dtype)
        return scaled

    def _outputs(self) -> int:
        return len(self.target_mean_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags
