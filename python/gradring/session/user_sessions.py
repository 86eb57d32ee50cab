"""Chooses the session behind ``Trainer(step=fn, params=...)`` by where the parameters lie and who trains them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradring import devices
from gradring.cuda import as_array, is_device_array
from gradring.errors import NotBuilt
from gradring.session.user import UserFunction, UserSession
from gradring.session.user_device import DeviceUserSession
from gradring.session.user_rank_shards import UserSessionOfShards
from gradring.session.user_ranks import UserSessionOfRanks

__all__ = ["user_session"]


def user_session(
    step: UserFunction,
    params: Mapping[str, Any],
    *,
    device: str,
    replicas: int,
    shards: int,
    comm: Any,
    **options: Any,
) -> UserSession:
    """The session of a step of the user's own, for parameters of the host or of a CUDA device."""
    together = 1 if comm is None else comm.size
    place = device_of(params, device)
    if place == devices.CPU:
        if together > 1:
            kind = UserSessionOfShards if shards else UserSessionOfRanks
            return kind(step, params, comm=comm, replicas=replicas, shards=shards, **options)
        return UserSession(step, params, replicas=replicas, shards=shards, **options)
    if replicas > 1 or shards or together > 1:
        raise NotBuilt(
            "replicas=, shards= and comm= with step= and params on a CUDA device are planned; leave them out"
        )
    return DeviceUserSession(step, params, device=place, **options)


def device_of(params: Any, device: str) -> str:
    """The device on which the parameters of ``Trainer(step=fn)`` lie: the CPU, or that of the first one that is on a device.
    ``ValueError`` if another CUDA device was asked for, ``NotBuilt`` if they would have to be moved to it."""
    known = params.items() if isinstance(params, Mapping) else ()
    first = next(((name, value) for name, value in known if is_device_array(value)), None)
    if first is None:
        if devices.named(device, "Trainer") != devices.CPU:
            raise NotBuilt(
                f"[Trainer] device is {device!r}, and params are in the host's memory: step= updates arrays where they lie; "
                "give params as arrays on the device, such as CuPy's, or leave device out"
            )
        return devices.CPU
    place = as_array(first[1], f"Trainer: params[{first[0]!r}]").device
    if device != devices.CPU and devices.named(device, "Trainer") != place:
        raise ValueError(f"[Trainer] params[{first[0]!r}] is on {place}, and device is {device!r}: must be one device")
    return place
