"""Covariance matrices, by gradring's matrix product."""

import gradring._core  # noqa: F401  (loads libgradring.so, which the extension needs)

from ._native import covariance

__all__ = ["covariance"]
