"""Estimators that work with scikit-learn's tools, such as cross-validation and grid search."""

from __future__ import annotations

try:
    import sklearn as _installed  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise ImportError("[gr.sklearn] needs scikit-learn: pip install 'scikit-learn>=1.6'") from error

from gradring.sklearn.classifier import Classifier
from gradring.sklearn.regressor import Regressor

__all__ = ["Classifier", "Regressor"]
