"""The messages of a control channel: fixed kinds of JSON with bounded lengths. Nothing that arrives is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["LARGEST_WORLD", "LIMIT", "MALFORMED", "Malformed", "compose", "parse"]

LIMIT = 4096  # bytes of a message
LARGEST_WORLD = 256  # ranks: kMostRanks of csrc/comm/protocol.h
_VERSION = 1  # the protocol's version: if the two sides differ, an error says so
_TEXT = 1024  # characters
_GENERATIONS = 1 << 31


class Malformed(ValueError):
    """The received bytes are no message of the expected kinds."""


MALFORMED = (Malformed, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class _Integer:
    low: int
    high: int
    or_none: bool = False

    def holds(self, value: object) -> bool:
        if value is None:
            return self.or_none
        return type(value) is int and self.low <= value <= self.high


@dataclass(frozen=True)
class _Text:
    limit: int

    def holds(self, value: object) -> bool:
        return type(value) is str and len(value) <= self.limit


_RANK = _Integer(0, LARGEST_WORLD - 1)
_SIZE = _Integer(1, LARGEST_WORLD)
_SIGNAL = _Integer(1, 64, or_none=True)
_CODE = _Integer(0, 255, or_none=True)

# The kinds of messages with their fields. A message has exactly these fields, and `say`, its kind.
_KINDS: dict[str, dict[str, _Integer | _Text]] = {
    # From a rank: it joins a meeting, with a pidfd of itself, its data segment, and (rank 0) the control segment.
    "join": {
        "version": _Integer(_VERSION, _VERSION),
        "rank": _RANK,
        "size": _SIZE,
        "generation": _Integer(0, _GENERATIONS),
        "meeting": _Integer(0, _GENERATIONS),
    },
    # From a rank: it asks how the rank `rank` ended.
    "how": {"rank": _RANK},
    # From a rank whose time is up: it asks who is missing. The answer names one missing rank, and how many are missing.
    "who": {"meeting": _Integer(0, _GENERATIONS)},
    "missing": {"rank": _Integer(0, LARGEST_WORLD - 1, or_none=True), "count": _Integer(0, LARGEST_WORLD)},
    # To a rank: all have joined. The message carries the control segment.
    "world": {"size": _SIZE, "generation": _Integer(0, _GENERATIONS), "meeting": _Integer(0, _GENERATIONS)},
    # To a rank: the message carries the pidfds and data segments of `count` ranks from `first` on.
    "peers": {"first": _RANK, "count": _Integer(1, 100)},
    # To a rank: the rank `rank` has ended (or lives, if `signal` and `code` are null). The answer to `how`, or sent
    # instead of `world`.
    "ended": {"rank": _RANK, "signal": _SIGNAL, "code": _CODE},
    # To a rank: the hub refuses its last message.
    "refused": {"why": _Text(_TEXT)},
}


def compose(say: str, **fields: Any) -> bytes:
    """The bytes of a message."""
    data = json.dumps({"say": say, **fields}, separators=(",", ":")).encode()
    parse(data)
    return data


def parse(data: bytes) -> dict[str, Any]:
    """The message in these bytes. Bytes that are no message raise one of MALFORMED."""
    if len(data) > LIMIT:
        raise Malformed(f"{len(data)} bytes; a message has at most {LIMIT}")
    try:
        message = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON") from error
    if type(message) is not dict or type(message.get("say")) is not str:
        raise Malformed("not an object that says what it is")
    kind = _KINDS.get(message["say"])
    if kind is None:
        raise Malformed("of no known kind")
    if message.keys() != kind.keys() | {"say"}:
        raise Malformed(f"the fields of {message['say']} are {sorted(kind)}")
    for name, field in kind.items():
        if not field.holds(message[name]):
            raise Malformed(f"{message['say']}: {name} is not within its bounds")
    return message


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Malformed("a field comes twice")
    return result


def _refuse(name: str) -> Any:
    raise Malformed(f"{name} is no number here")
