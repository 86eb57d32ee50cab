"""Makes the error to raise from the fault that a program found in a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.errors import NonFinite
from gradring.graph.plan import Plan

__all__ = ["fault_error", "id_error"]


def id_error(
    result: Mapping[str, Any], plans: Iterable[Plan], sample: object, batch: int | None = None, training: bool = False
) -> ValueError:
    """The error for an id that is no row of an embedding's table, in a batch of a session or in a prediction."""
    value, place = result["value"], result["place"]
    limits = [(plan, i, limit) for plan in plans for i in plan.instructions if (limit := i.limit()) is not None]
    plan, found, count = next((plan, i, n) for plan, i, n in limits if not i.is_loss and not 0 <= value < n)
    shape = plan.input_shape[1:]
    at = f" at place {tuple(map(int, np.unravel_index(place, shape)))}" if shape else ""
    where = f"sample {sample}" if batch is None else f"batch {batch}, row {result['row']} (sample {sample})"
    unchanged = "; no parameter was changed by this batch" if training else ""
    return ValueError(
        f"[embedding] {found.origin}: {where}: the id{at} is {value}: must be at least 0 and below {count}, the rows of the "
        f"table{unchanged}"
    )


def fault_error(
    result: Mapping[str, Any],
    *,
    loss: str,
    batch: int,
    y: NDArray[Any] | None,
    plans: Iterable[Plan],
    updates: int | None,
    culprit: str = "",
) -> Exception:
    """The error for a native result with a bad label or a loss that is not finite. ``updates`` is the number of
    updates done, or None in an evaluation; ``y`` are the labels, if they are in memory."""
    if result["fault"] == "id":
        return id_error(result, plans, result["sample"], batch, updates is not None)
    if result["fault"] == "weight":
        unchanged = "" if updates is None else "; no parameter was changed by this batch"
        if result["row"] < 0:
            return ValueError(f"[Trainer] the weights of batch {batch} are all zero: leave such samples out{unchanged}")
        return ValueError(
            f"[Trainer] batch {batch}, row {result['row']} (sample {result['sample']}): the weight is negative, infinite or "
            f"NaN: must be finite and at least 0{unchanged}"
        )
    if result["fault"] == "label":
        sample = result["sample"]
        if loss == "binary_cross_entropy":
            target = "" if y is None else f", {y[sample]}," if y[sample].ndim == 0 or y[sample].size < 9 else ""
            unchanged = "" if updates is None else "; no parameter was changed by this batch"
            return ValueError(
                f"[binary_cross_entropy] batch {batch}, row {result['row']} (sample {sample}): the target{target} must be "
                f"from 0 to 1: divide 0..255 by 255, and (y + 1) / 2 makes 0 and 1 of -1 and 1{unchanged}"
            )
        if y is not None and y.ndim > 1:
            return ValueError(
                f"[cross_entropy] batch {batch}, row {result['row']} (sample {sample}): the target is no distribution: "
                "probabilities are from 0 to 1"
            )
        classes = next(i.limit() for plan in plans for i in plan.instructions if i.is_loss)
        label = "out of range:" if y is None else f"{y[sample]},"
        unchanged = "" if updates is None else "; no parameter was changed by this batch"
        return ValueError(
            f"[cross_entropy] batch {batch}, row {result['row']} (sample {sample}): label is {label} "
            f"must be at least 0 and below {classes}, the number of classes{unchanged}"
        )
    because = f", because {culprit} (correct such samples or leave them out)" if culprit else ""
    if updates is None:
        return NonFinite(
            f"[evaluate] the {loss} loss of batch {batch} is not finite"
            f"{because or ': look at its samples and at the parameters'}; "
            "nonfinite='ignore' continues regardless"
        )
    if result["fault"] == "gradient":
        return NonFinite(
            f"[{loss}] a gradient of step {updates + 1} (batch {batch}) is not finite, though the loss is: the parameters "
            f"are those after step {updates}. Look at the size of that batch's numbers, or try a lower learning rate; "
            "nonfinite='ignore' continues regardless"
        )
    advice = "See to the data" if culprit else "Try a lower learning rate, clip_norm, or look at that batch"
    return NonFinite(
        f"[{loss}] the loss of step {updates + 1} (batch {batch}) is not finite{because}: the parameters are those after step "
        f"{updates}. {advice}; nonfinite='ignore' continues regardless"
    )
