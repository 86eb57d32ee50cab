"""Where the bytes of a wheel are: by kind of file, and in the library by instruction set and by function.

    python scripts/measure_wheel.py WHEEL [--library LIBRARY] [--top 30]

A wheel is compressed file by file, so the first table gives what each kind of file takes in it. Its libraries have no symbols:
--library names the same library as the build made it, such as build/editable-*/csrc/libgradring.so. The second table then
gives the bytes of machine code per instruction set, and the third those of the largest templates, all instances together.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import zipfile
from collections import Counter
from pathlib import PurePath


def kind_of(name: str) -> str:
    path = PurePath(name)
    return path.name.partition(".")[0] + ".so" if path.suffix == ".so" else path.suffix or "metadata"


def print_wheel(wheel: str) -> None:
    packed: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            kind = kind_of(entry.filename)
            packed[kind] += entry.compress_size
            whole[kind] += entry.file_size
    print(f"{os.path.getsize(wheel):>10,} bytes: {wheel}")
    for kind, size in packed.most_common():
        print(f"{size:>10,}  of {whole[kind]:>10,}  {kind}")


def functions(library: str) -> list[tuple[int, str]]:
    """Returns the size and the name of each function; one that has several names counts once."""
    command = ["nm", "--print-size", "--demangle", "--radix=d", "--defined-only", library]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {}
    for line in lines:
        fields = line.split(None, 3)
        if len(fields) == 4 and fields[1].isdigit() and fields[2] in "tTwW":
            found[fields[0]] = int(fields[1]), fields[3]
    return list(found.values())


def print_library(library: str, top: int) -> None:
    levels: Counter[str] = Counter()
    templates: Counter[str] = Counter()
    instances: Counter[str] = Counter()
    for size, name in functions(library):
        level = re.search(r"isa_(\w+?)::", name)
        levels[level[1] if level else "all"] += size
        template = re.sub(r"\(anonymous namespace\)::|gradring::|isa_\w+?::", "", name)
        template = re.split(r"[<(]", template.removeprefix("void "))[0] or name
        templates[template] += size
        instances[template] += 1
    for level, size in levels.most_common():
        print(f"{size:>10,}  instruction set: {level}")
    for template, size in templates.most_common(top):
        print(f"{size:>10,}  {instances[template]:>4} x {template}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel")
    parser.add_argument("--library")
    parser.add_argument("--top", type=int, default=30)
    options = parser.parse_args()
    print_wheel(options.wheel)
    if options.library:
        print_library(options.library, options.top)


if __name__ == "__main__":
    main()
