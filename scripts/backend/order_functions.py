"""Write the order in which a linker should lay out functions, so that a zip file of the library takes fewer bytes.

    python scripts/backend/order_functions.py ORDER OBJECTS...      # then: -fuse-ld=gold -Wl,--section-ordering-file=ORDER

A zip file refers to bytes that occurred at most 32 KiB before. So functions with many sequences of bytes in common should lie
side by side, such as the instances of a template for float and double. The script begins with the largest function. Then it
repeatedly chooses the function that has most in common with those just before. The objects must be ELF files of 64 bits that
were compiled with -ffunction-sections. The result depends on the objects alone.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

_WINDOW = 30_000  # bytes; a little less than the 32 KiB, because a function itself has a length
_LENGTH = 6  # of the sequences that are compared: about an instruction
_SAMPLED = 8  # one sequence of so many is compared, chosen by its content, so that equal code has equal samples
_COMMON = 64  # a sequence that more functions have says little, and would take most of the time
_HEADER = struct.Struct("<40xQ10x3H")
_SECTION = struct.Struct("<2I4Q")
_PROGBITS, _EXECUTABLE = 1, 4


def functions(path: Path) -> Iterator[tuple[str, bytes]]:
    """The sections of an object that have a function of their own: name and machine code."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return
    table, entry, count, names = _HEADER.unpack_from(data)
    sections = [_SECTION.unpack_from(data, table + i * entry) for i in range(count)]
    strings = sections[names][4]
    for name, kind, flags, _, begin, size in sections:
        if kind == _PROGBITS and flags & _EXECUTABLE and size:
            text = data[strings + name : data.index(b"\0", strings + name)].decode()
            if text.startswith(".text."):
                yield text, data[begin : begin + size]


def samples(code: bytes) -> set[bytes]:
    last = len(code) - _LENGTH + 1
    return {
        code[i : i + _LENGTH] for i in range(last) if (code[i] * 7 + code[i + 2] * 13 + code[i + 4] * 3) % _SAMPLED == 0
    }


def order(codes: list[bytes]) -> list[int]:
    """The positions of functions, in an order that makes similar ones neighbours."""
    users: defaultdict[bytes, list[int]] = defaultdict(list)
    for i, code in enumerate(codes):
        for sample in samples(code):
            users[sample].append(i)
    shared: list[list[list[int]]] = [[] for _ in codes]  # per function, its samples, each as the list of its users
    for found in users.values():
        if 1 < len(found) <= _COMMON:
            for i in found:
                shared[i].append(found)
    scores = [0] * len(codes)  # how many samples a function has in common with those in the window
    weights = [1 / (len(code) + 200) for code in codes]
    counts: Counter[int] = Counter()  # per sample in the window, how many functions there have it
    window: deque[int] = deque()
    held = 0
    result: list[int] = []
    left = set(range(len(codes)))
    while left:
        chosen = max(left, key=lambda i: (scores[i] * weights[i], len(codes[i]), -i))
        left.remove(chosen)
        result.append(chosen)
        window.append(chosen)
        held += len(codes[chosen])
        for found in shared[chosen]:
            counts[id(found)] += 1
            if counts[id(found)] == 1:
                for i in found:
                    scores[i] += 1
        while held > _WINDOW and len(window) > 1:
            oldest = window.popleft()
            held -= len(codes[oldest])
            for found in shared[oldest]:
                counts[id(found)] -= 1
                if not counts[id(found)]:
                    for i in found:
                        scores[i] -= 1
    return result


def main(target: str, objects: list[str]) -> None:
    found: dict[str, bytes] = {}
    for path in objects:
        for name, code in functions(Path(path)):
            found.setdefault(name, code)  # of an inline function, the linker also takes one copy
    names = list(found)
    Path(target).write_text("".join(f"{names[i]}\n" for i in order(list(found.values()))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
