"""What a model must be like for ranks, asynchronous workers or a CUDA device to train it, and what ranks must agree on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from gradring import devices, losses
from gradring.errors import NotBuilt
from gradring.nn.function import Function
from gradring.nn.layer import Layer
from gradring.optim import Optimizer
from gradring.options import Options
from gradring.session.rates import AHEAD

__all__ = ["facts_of", "facts_of_optimizer", "facts_of_training", "require_asynchronous", "require_dtype", "require_native"]


def text_of(thing: object) -> str:
    """The text of an object, without addresses in memory, which differ between processes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


def facts_of_optimizer(optimizer: Optimizer) -> dict[str, str]:
    """The facts about an optimizer that must be equal on all ranks. The text of a schedule that is a function says nothing of
    its rates, so those that a session computes ahead are compared too."""
    facts = {"optimizer": text_of(optimizer)}
    if any(callable(rate) for rate in optimizer.rates):
        rates = optimizer.all_learning_rates(0, AHEAD)
        digest = hashlib.sha256(rates.tobytes()).hexdigest()[:16]
        facts["learning rate"] = f"{', '.join(f'{rate:.9g}' for rate in rates[:4].ravel())}, ... (digest {digest})"
    return facts


def facts_of_training(optimizer: Any, frozen: Sequence[str], options: Options) -> dict[str, Any]:
    """The facts of any training that must be equal on all ranks. ``seed`` may differ: that of rank 0 counts."""
    return {
        **facts_of_optimizer(optimizer),
        "frozen": list(frozen),
        "accumulate": options.accumulate,
        "clip_norm": options.clip_norm,
        "nonfinite": options.nonfinite,
        "seed": options.seed,
    }


def facts_of(
    model: Layer, loss: losses.Loss, optimizer: Any, frozen: Sequence[str], options: Options, class_weight: Any
) -> dict[str, Any]:
    """The facts that must be equal on all ranks that train together, by the name that an error gives them."""
    store = model.store
    parameters = {f"parameter {name!r}": f"{shape} of {store.dtype}" for name, shape in store.shapes.items()}
    buffers = {f"buffer {name!r}": f"{array.shape}" for name, array in store.buffers.items()}
    return {
        **parameters,
        **buffers,
        "the model": text_of(model),
        "loss": text_of(loss),
        "class_weight": text_of(class_weight),
        **facts_of_training(optimizer, frozen, options),
    }


def require_asynchronous(parallel: str, model: Layer, loss: losses.Loss, optimizer: Optimizer, accumulate: int) -> None:
    """Raise ``ValueError`` if asynchronous updates of this kind cannot apply the optimizer, and ``NotBuilt`` if they would have
    to accumulate gradients, or if the model or the loss has parts that they cannot train yet."""
    kept = [rule for rule in optimizer.rules if rule.state_names]
    if parallel != "locked" and kept:
        raise ValueError(
            f"[Trainer] parallel={parallel!r} updates one number at a time, and {kept[0]} keeps a state beside each parameter: "
            "give gr.optim.SGD without momentum, or parallel='locked', which takes every optimizer"
        )
    if accumulate > 1:
        raise NotBuilt(
            f"accumulate={accumulate} with parallel={parallel!r} is planned; this version pushes after each batch: give larger "
            "batches"
        )
    if model.named_buffers():
        names = ", ".join(model.named_buffers())
        raise NotBuilt(
            f"parallel={parallel!r} for a model with running statistics ({names}) is planned; this version trains it with "
            "parallel='allreduce'"
        )
    if any(isinstance(layer, Function) for _, layer in model.walk()) or isinstance(loss, losses.Function):
        raise NotBuilt(
            f"parallel={parallel!r} for a model with functions in Python is planned; this version trains it with "
            "parallel='allreduce'"
        )


def require_native(model: Layer, loss: losses.Loss, device: str) -> None:
    """Raise ``NotBuilt`` if the model or the loss calls functions of the user's, which a CUDA device cannot run."""
    # They read and write arrays of the host, and a step is one graph of the device, which cannot wait for the host. Without a
    # graph each step would be cut at each function, and the device would idle until Python has run.
    why = (
        f"calls a function of the user's on the host, and device is {device!r}: a step there is one graph, and running the "
        "function between graphs is planned; use device='cpu', or layers and losses of gradring"
    )
    for path, layer in model.walk():
        if isinstance(layer, Function):
            raise NotBuilt(f"[Trainer] layer {path!r} {why}")
    if isinstance(loss, losses.Function):
        raise NotBuilt(f"[Trainer] the loss {why}")


def require_dtype(
    model: Layer, device: str, options: Options, products: str | None, parallel: str, divides: bool
) -> None:
    """Raise ``ValueError`` if a trainer is told how to multiply float32 matrices and to have none, and ``NotBuilt`` if the
    device has no such products, or if the training would have to scale its loss and cannot yet. ``divides`` says that
    several replicas, shards or ranks share a batch."""
    operands = options.operands
    if operands == "tf32" and device == devices.CPU:
        raise ValueError("[Trainer] dtype='tf32' is of CUDA devices: give device='cuda', or dtype='float32'")
    if products not in (None, "fma") and operands is not None:
        raise ValueError(
            f"[Trainer] products={products!r} is about matrices of float32, and dtype={operands!r} makes them {operands}: give "
            "one of the two"
        )
    if device != devices.CPU and products not in (None, "fma"):
        raise NotBuilt(f"[Trainer] products={products!r} on device {device!r} is planned; this version has it on the CPU")
    if options.scales:
        _require_scaling(model, options, parallel, divides)


def _require_scaling(model: Layer, options: Options, parallel: str, divides: bool) -> None:
    if parallel != "allreduce":
        raise NotBuilt(f"[Trainer] dtype='float16' with parallel={parallel!r} is planned; this version has it with 'allreduce'")
    names = ", ".join(model.named_buffers())
    if options.accumulate > 1 and names and divides:
        # An overflow is found when the last micro-batch has come, and one rank has moved the running statistics of all with
        # those before it. Where there is one rank, a copy of them moves (graph/deferred.py).
        raise NotBuilt(
            f"[Trainer] dtype='float16' with accumulate={options.accumulate} for a model with running statistics ({names}) on "
            "replicas, shards or ranks is planned: use dtype='bfloat16', or larger batches"
        )
