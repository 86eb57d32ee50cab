"""Makes the error to raise from the fault that a program found in a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

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
    loss: Any,
    batch: int,
    y: Any,
    target: str,
    plans: Iterable[Plan],
    updates: int | None,
    culprit: str = "",
) -> Exception:
    """The error for a native result with a bad label or a loss that is not finite. ``loss`` is one of ``gr.losses``.
    ``updates`` is the number of updates done, or None in an evaluation; ``y`` is the sample's target, or None where it
    cannot be read, and ``target`` is its dtype in the program."""
    unchanged = "" if updates is None else "; no parameter was changed by this batch"
    if result["fault"] == "id":
        return id_error(result, plans, result["sample"], batch, updates is not None)
    if result["fault"] == "weight" and result["value"]:
        found = next(i for plan in plans for i in plan.instructions if i.least_rows)
        return ValueError(
            f"[Trainer] {found.origin}: batch {batch} of all ranks has {result['value']} row: training needs at least "
            f"{found.least_rows} rows, because one row has no variance; leave the last batch out with "
            f"drop_last=True, or choose another batch size{unchanged}"
        )
    if result["fault"] == "weight":
        if result["row"] < 0:
            return ValueError(
                f"[Trainer] the weights of batch {batch} are all zero, or add up to less than 1e-30, by which single precision "
                f"cannot divide: leave such samples out, or multiply all weights by one number{unchanged}"
            )
        return ValueError(
            f"[Trainer] batch {batch}, row {result['row']} (sample {result['sample']}): the weight is negative, infinite or "
            f"NaN: must be finite and at least 0{unchanged}"
        )
    if result["fault"] == "label":
        sample = result["sample"]
        classes = next((i.limit() for plan in plans for i in plan.instructions if i.is_loss), None)
        if y is not None and target == "int64" and classes is not None and 0 <= y < classes:
            y = None  # the caller has changed it since
        what = loss.bad_target(y, target, classes)
        return ValueError(f"[{loss.kind}] batch {batch}, row {result['row']} (sample {sample}): {what}{unchanged}")
    because = f", because {culprit} (correct such samples or leave them out)" if culprit else ""
    if updates is None:
        return NonFinite(
            f"[evaluate] the {loss.kind} loss of batch {batch} is not finite"
            f"{because or ': look at its samples and at the parameters'}; "
            "nonfinite='ignore' continues regardless"
        )
    if result["fault"] == "gradient":
        return NonFinite(
            f"[{loss.kind}] a gradient of step {updates + 1} (batch {batch}) is not finite, though the loss is: the parameters "
            f"are those after step {updates}. Look at the size of that batch's numbers, or try a lower learning rate; "
            "nonfinite='ignore' continues regardless"
        )
    advice = "See to the data" if culprit else "Try a lower learning rate, clip_norm, or look at that batch"
    return NonFinite(
        f"[{loss.kind}] the loss of step {updates + 1} (batch {batch}) is not finite{because}: the parameters are those after "
        f"step {updates}. {advice}; nonfinite='ignore' continues regardless"
    )
