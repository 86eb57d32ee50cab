"""The loader: batches filled ahead by native threads or worker processes, delivered without a copy."""

from __future__ import annotations

from gradring.loader.loader import Loader
from gradring.loader.plain import Stream, as_source, is_batches, load_npy
from gradring.loader.stats import LoaderStats

__all__ = ["Loader", "LoaderStats", "Stream", "as_source", "is_batches", "load_npy"]
