"""Layers that normalize: LayerNorm, RMSNorm and BatchNorm1d."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import flag, real, whole
from gradring.ir import Value
from gradring.nn.layer import Layer, ParameterSpec

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["BatchNorm1d", "LayerNorm", "RMSNorm"]


def _ones(_: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.ones(shape)


def _zeros(_: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.zeros(shape)


class _Norm(Layer):
    """The base class of these layers. It has the weight, of ones, and the bias, of zeros, each with one number per feature."""

    features: int
    _vectors: tuple[str, ...]  # the parameters' names

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        fills = {"weight": _ones, "bias": _zeros}
        return {name: ParameterSpec((self.features,), fills[name]) for name in self._vectors}

    def _inputs(self, tracer: Builder, x: str) -> dict[str, str]:
        return {"x": x, **{name: tracer.parameter(name, (self.features,)) for name in self._vectors}}

    def _check(self, tracer: Builder, x: str, axes: str) -> None:
        shape = tracer.shape(x)
        if len(shape) < 2 or shape[-1] != self.features:
            raise ValueError(
                f"[{type(self).__name__}] {tracer.where(self)} needs ({axes}{self.features}), "
                f"but {tracer.maker(x)} gives {shape}"
            )


class LayerNorm(_Norm):
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, with the mean and variance along the last axis.

    ``weight`` begins with ones and ``bias`` with zeros, (features,) each. Ba, Kiros and Hinton, "Layer Normalization",
    2016.

    Args:
        features: the extent of the last axis.
        eps: at least 0.
        bias: whether there is a bias.

    >>> import numpy as np
    >>> from gradring import nn
    >>> nn.LayerNorm(2, eps=0.0)(np.array([[1.0, 3.0]])).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, features: int, eps: float = 1e-5, bias: bool = True) -> None:
        self.features = whole("LayerNorm", "features", features, 1)
        self.eps = real("LayerNorm", "eps", eps, least=0)
        self.bias = flag("LayerNorm", "bias", bias)

    @property
    def _vectors(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("weight", "bias") if self.bias else ("weight",)

    def trace(self, tracer: Builder, x: str) -> str:
        self._check(tracer, x, "batch, ..., ")
        return tracer.node("layer_norm", self._inputs(tracer, x), tracer.shape(x), {"eps": self.eps})

    def __repr__(self) -> str:
        return f"LayerNorm({self.features}{_shown(self.eps, 1e-5)}{'' if self.bias else ', bias=False'})"


class RMSNorm(_Norm):
    """``x / sqrt(mean(x ** 2) + eps) * weight``, with the mean along the last axis.

    ``weight`` begins with ones, (features,). Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

    Args:
        features: the extent of the last axis.
        eps: at least 0.

    >>> import numpy as np
    >>> from gradring import nn
    >>> nn.RMSNorm(2, eps=0.0)(np.array([[3.0, -3.0]])).tolist()
    [[1.0, -1.0]]
    """

    _vectors = ("weight",)

    def __init__(self, features: int, eps: float = 1e-6) -> None:
        self.features = whole("RMSNorm", "features", features, 1)
        self.eps = real("RMSNorm", "eps", eps, least=0)

    def trace(self, tracer: Builder, x: str) -> str:
        self._check(tracer, x, "batch, ..., ")
        return tracer.node("rms_norm", self._inputs(tracer, x), tracer.shape(x), {"eps": self.eps})

    def __repr__(self) -> str:
        return f"RMSNorm({self.features}{_shown(self.eps, 1e-6)})"


class BatchNorm1d(_Norm):
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` of (batch, features), with one mean and variance per feature.

    Training uses those of the batch, which must have at least 2 rows; ``evaluate`` and ``predict`` use the running ones,
    the buffers ``running_mean`` and ``running_var``: each training step moves them towards the batch's, ``running = (1 -
    momentum) * running + momentum * batch``, after the check of the step has passed. The running variance averages the
    batches' unbiased variances, as in PyTorch. Ioffe and Szegedy, "Batch Normalization", 2015. Where replicas or shards divide
    a batch, each part is normalized by its own moments, or by the running ones if it has only one row, and the running moments
    move towards those of the whole batch.

    Args:
        features: the extent of the last axis.
        eps: at least 0.
        momentum: the weight of a batch in the running moments, in [0, 1].
        affine: whether there are a weight (ones at first) and a bias (zeros).

    >>> from gradring import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).init()
    >>> list(model.params), list(model.buffers)
    (['0.weight', '0.bias', '1.weight', '1.bias'], ['1.running_mean', '1.running_var'])
    """

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        self.features = whole("BatchNorm1d", "features", features, 1)
        self.eps = real("BatchNorm1d", "eps", eps, least=0)
        self.momentum = real("BatchNorm1d", "momentum", momentum, least=0, most=1)
        self.affine = flag("BatchNorm1d", "affine", affine)

    @property
    def _vectors(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("weight", "bias") if self.affine else ()

    def buffer_specs(self) -> dict[str, ParameterSpec]:
        shape = (self.features,)
        return {"running_mean": ParameterSpec(shape, _zeros), "running_var": ParameterSpec(shape, _ones)}

    def trace(self, tracer: Builder, x: str) -> str:
        shape = tracer.shape(x)
        if len(shape) != 2:
            raise ValueError(
                f"[BatchNorm1d] {tracer.where(self)} needs (batch, {self.features}), but {tracer.maker(x)} gives {shape}"
            )
        self._check(tracer, x, "batch, ")
        moments = {name: tracer.buffer(name, (self.features,)) for name in ("running_mean", "running_var")}
        inputs = self._inputs(tracer, x)
        if not tracer.training:
            inputs |= {"mean": moments["running_mean"], "variance": moments["running_var"]}
            return tracer.node("batch_norm_inference", inputs, shape, {"eps": self.eps})
        if shape[0] < 2 and tracer.part:
            return self._of_one_row(tracer, inputs, moments)
        if shape[0] < 2:
            raise ValueError(
                f"[BatchNorm1d] {tracer.where(self)} gets {shape}: training needs at least 2 rows, because one row has no "
                "variance; leave the last batch out with drop_last=True, or choose another batch size"
            )
        made = {name: Value(name, (self.features,), dtype=tracer.dtype) for name in ("mean", "variance")}
        y = tracer.node("batch_norm", inputs, shape, {"training": True, "eps": self.eps}, also=made)
        node = tracer.graph.nodes[-1]
        tracer.update_buffers(
            "batch_norm_update",
            {**moments, "mean": node.outputs["mean"], "variance": node.outputs["variance"]},
            ("running_mean", "running_var"),
            {"rows": shape[0], "momentum": self.momentum},
        )
        return y

    def _of_one_row(self, tracer: Builder, inputs: dict[str, str], moments: dict[str, str]) -> str:
        """One row has no variance, but belongs to a batch that has one: the running moments normalize it."""
        used = {"mean": moments["running_mean"], "variance": moments["running_var"]}
        y = tracer.node("batch_norm_inference", inputs | used, (1, self.features), {"eps": self.eps})
        tracer.update_buffers(
            "batch_norm_update",
            {
                **moments,
                "mean": tracer.view(inputs["x"], (self.features,)),
                "variance": tracer.constant("no variance", (0.0,) * self.features),
            },
            ("running_mean", "running_var"),
            {"rows": 1, "momentum": self.momentum},
        )
        return y

    def __repr__(self) -> str:
        momentum = "" if self.momentum == 0.1 else f", momentum={self.momentum!r}"
        affine = "" if self.affine else ", affine=False"
        return f"BatchNorm1d({self.features}{_shown(self.eps, 1e-5)}{momentum}{affine})"


def _shown(eps: float, default: float) -> str:
    return "" if eps == default else f", eps={eps!r}"
