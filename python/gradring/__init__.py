"""gradring: train neural networks straight from NumPy arrays, natively."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradring import hooks
from gradring.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CollectiveMismatch,
    DeviceUnavailable,
    GradientMismatch,
    GradringError,
    LoaderError,
    NonFinite,
    NotBuilt,
    PeerDied,
    PeerStalled,
    PeerStopped,
    WorkerDied,
)

if TYPE_CHECKING:
    from gradring import (
        callbacks,
        comm,
        cuda,
        datasets,
        errors,
        graph,
        interop,
        losses,
        metrics,
        nn,
        ops,
        optim,
        parity,
        session,
        sources,
        transforms,
    )
    from gradring._core import get_num_threads, seed, set_num_threads
    from gradring.float32_products import get_float32_products, set_float32_products
    from gradring.gradient_check import check_grad
    from gradring.history import History
    from gradring.loader import Loader
    from gradring.model_file import load
    from gradring.paths import get_include, get_library
    from gradring.trainer import Trainer

# Public names and the modules that define them. A module is imported on first use, so that `import gradring` stays
# cheap. Names that need another package are not in __all__.
_MODULES = (
    "callbacks",
    "comm",
    "cuda",
    "datasets",
    "errors",
    "graph",
    "interop",
    "jax",
    "losses",
    "metrics",
    "nn",
    "ops",
    "optim",
    "parity",
    "session",
    "sklearn",
    "sources",
    "torch",
    "transforms",
)
_NAMES = {
    "History": "history",
    "Loader": "loader",
    "Trainer": "trainer",
    "check_grad": "gradient_check",
    "get_include": "paths",
    "get_library": "paths",
    "get_float32_products": "float32_products",
    "get_num_threads": "_core",
    "load": "model_file",
    "seed": "_core",
    "set_float32_products": "float32_products",
    "set_num_threads": "_core",
}

# A call of a layer needs the module that runs it, which `import gradring.nn` alone does not import.
hooks.forward.load = lambda: import_module("gradring.session")
hooks.save.load = lambda: import_module("gradring.model_file")

__version__ = "0.1.0"
__all__ = [
    "CheckpointCorrupt",
    "CheckpointMismatch",
    "CollectiveMismatch",
    "DeviceUnavailable",
    "GradientMismatch",
    "GradringError",
    "History",
    "Loader",
    "LoaderError",
    "NonFinite",
    "NotBuilt",
    "PeerDied",
    "PeerStalled",
    "PeerStopped",
    "Trainer",
    "WorkerDied",
    "callbacks",
    "check_grad",
    "comm",
    "cuda",
    "datasets",
    "errors",
    "get_float32_products",
    "get_include",
    "get_library",
    "get_num_threads",
    "graph",
    "interop",
    "load",
    "losses",
    "metrics",
    "nn",
    "ops",
    "optim",
    "parity",
    "seed",
    "session",
    "set_float32_products",
    "set_num_threads",
    "sources",
    "transforms",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(f"gradring.{name}")
    elif name in _NAMES:
        value = getattr(import_module(f"gradring.{_NAMES[name]}"), name)
    else:
        from gradring.planned import refuse

        refuse("gradring", name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
