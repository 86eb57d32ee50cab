"""The loss of a twin: what the loss's op declares, in NumPy or in PyTorch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradring.losses import Loss, as_loss
from gradring.ops._declare import DECLARED, attributes_with_defaults

__all__ = ["LossTwin"]


class LossTwin:
    """A loss that is the mean over the samples, for arrays of NumPy or tensors of PyTorch. ``TypeError`` for one that is no
    mean, weighs classes or labels, or whose op declares no twin."""

    def __init__(self, loss: str | Loss, dtype: str, against: Literal["torch", "numpy"]) -> None:
        self._loss, self._dtype = as_loss("parity", loss), dtype
        op, attributes, constants = self._loss.native()
        declared = DECLARED[op].torch if against == "torch" else DECLARED[op].reference
        if declared is None or constants or self._loss.summed:
            raise TypeError(
                f"[parity] loss is {self._loss!r}: the twins know the losses that are means, have no weights, and have a "
                f"formula in {against}"
            )
        self._declared, self._attributes = declared, attributes_with_defaults(op, {**attributes, "reduction": "sample"})

    def target(self, outputs: tuple[int, ...], y: NDArray[Any]) -> NDArray[Any]:
        """The targets of a batch with these outputs, as the formula takes them."""
        y = self._loss.targets(y)
        dtype = self._loss.target_dtype(self._dtype, y)
        shape, _ = self._loss.target(outputs, self._dtype, (y.shape[1:], dtype))
        return np.ascontiguousarray(y, dtype).reshape(shape)

    def __call__(self, output: Any, target: Any) -> tuple[Any, Any]:
        """The losses of the samples, and the gradient of their sum by the outputs."""
        made = self._declared(x=output, target=target, **self._attributes)
        return made["losses"], made["dx"]
