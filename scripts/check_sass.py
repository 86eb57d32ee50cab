"""Looks at the machine code of the CUDA kernels: wide accesses where they are claimed, no local memory, few registers.

    python scripts/check_sass.py build/_cuda.so [--arch 80 --arch 90]

Reads the machine code out of a module or of object files and disassembles it with nvdisasm, which comes with CUDA's toolkit or
with the wheel nvidia-cuda-nvdisasm. Exit status 0 only if every kernel keeps its rule, and every rule has a kernel.
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

FAT_BINARY = b"\x50\xed\x55\xba"
ELF = b"\x7fELF"


class Rule(NamedTuple):
    """What the kernels with this name promise, in every instantiation."""

    kernel: str
    registers: int
    loads: int = 0  # of 16 bytes, but for those from shared memory (LDS)
    stores: int = 0  # of 16 bytes


# An H100's processor has 65536 registers: at 64 it holds 1024 threads. Blocks that take a row have 512 threads, of which each
# may have 128.
RULES = [
    Rule("element_kernel", 64, loads=1, stores=1),
    Rule("adam_kernel", 80, loads=4, stores=3),
    Rule("sgd_kernel", 64, loads=2, stores=1),
    Rule("lion_kernel", 64, loads=3, stores=2),
    Rule("rmsprop_kernel", 80, loads=3, stores=2),
    Rule("adam_spans_kernel", 80, loads=4, stores=3),
    Rule("sgd_spans_kernel", 64, loads=2, stores=1),
    Rule("lion_spans_kernel", 64, loads=3, stores=2),
    Rule("rmsprop_spans_kernel", 80, loads=3, stores=2),
    Rule("softmax_kernel", 128, loads=1, stores=1),
    Rule("softmax_vjp_kernel", 128, loads=2, stores=1),
    Rule("cross_entropy_kernel", 128, loads=1, stores=1),
    Rule("pointwise_kernel", 128, loads=2, stores=1),
    Rule("row_norm_kernel", 128, loads=1, stores=1),
    Rule("row_norm_vjp_kernel", 128, loads=2, stores=1),
    Rule("normalize_kernel", 128, loads=1, stores=1),
    Rule("dx_kernel", 128, loads=2, stores=1),
    Rule("dropout_kernel", 80, loads=1, stores=1),
    Rule("activate_kernel", 128, loads=1, stores=1),
    Rule("derivative_kernel", 128, loads=2, stores=1),
    Rule("squares_kernel", 64, loads=1),
    Rule("part_squares_kernel", 64, loads=1),
    Rule("sums_kernel", 64, loads=2, stores=1),
    Rule("largest_kernel", 64, loads=1),
]
OTHERS = Rule("", 96)


class Kernel(NamedTuple):
    """One kernel as it was compiled for one architecture."""

    name: str
    arch: int
    registers: int
    loads: int
    stores: int
    local: int


def machine_codes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Architecture and ELF image of each piece of machine code in a file; PTX is left out."""
    at = data.find(FAT_BINARY)
    while at >= 0:
        _, _, header, size = struct.unpack_from("<IHHQ", data, at)
        entry, end = at + header, min(at + header + size, len(data))
        while entry + 64 <= end:
            kind, _, entry_header, entry_size, _ = struct.unpack_from("<HHIQI", data, entry)
            (arch,) = struct.unpack_from("<I", data, entry + 28)
            begin = entry + entry_header
            if kind == 2:
                image = data[begin : begin + entry_size]
                if not image.startswith(ELF):
                    raise SystemExit("the machine code is compressed: build with CUDAFLAGS=--compress-mode=none")
                yield arch, image
            entry = begin + entry_size
        at = data.find(FAT_BINARY, end)


def find_nvdisasm() -> str:
    """The wheel's, or that of PATH."""
    spec = find_spec("nvidia.cu13") if find_spec("nvidia") else None
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (Path(folder) / "bin" / "nvdisasm").exists():
            return str(Path(folder) / "bin" / "nvdisasm")
    found = shutil.which("nvdisasm")
    if found is None:
        raise SystemExit("there is no nvdisasm: pip install nvidia-cuda-nvdisasm==13.2.86")
    return found


# nvdisasm writes the number into the head of a kernel's section for sm_80 alone, but into the information for all.
REGISTERS = re.compile(r"nvinfo : EIATTR_REGCOUNT.*?index@\(([^)]+)\).*?\.word\s+0x([0-9a-f]+)", re.DOTALL)


def parse(text: str, arch: int) -> Iterator[Kernel]:
    """The kernels of one disassembly."""
    registers = {name: int(number, 16) for name, number in REGISTERS.findall(text)}
    for part in re.split(r"^\s*\.section\s+\.text\.", text, flags=re.M)[1:]:
        name = re.match(r"[^,\s]+", part)
        if name is None or name.group() not in registers:
            continue
        yield Kernel(
            name.group(),
            arch,
            registers[name.group()],
            len(re.findall(r"\bLDG?\.E(?:\.\w+)*\.128", part)),
            len(re.findall(r"\bSTG?\.E(?:\.\w+)*\.128", part)),
            len(re.findall(r"\b(?:LDL|STL)\b", part)),
        )


def disassemble(nvdisasm: str, arch: int, image: bytes) -> list[Kernel]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(image)
        file.flush()
        result = subprocess.run([nvdisasm, file.name], capture_output=True, text=True, check=True)
    return list(parse(result.stdout, arch))


def rule_of(name: str) -> Rule:
    """The rule of a mangled name, in which the length of each part stands before it."""
    for rule in RULES:
        if f"{len(rule.kernel)}{rule.kernel}" in name:
            return rule
    return OTHERS


def faults(kernel: Kernel, rule: Rule) -> list[str]:
    """What a kernel breaks of its rule."""
    found = []
    if kernel.registers > rule.registers:
        found.append(f"{kernel.registers} registers, at most {rule.registers}")
    if kernel.local > 0:
        found.append(f"{kernel.local} accesses to local memory")
    if kernel.loads < rule.loads:
        found.append(f"{kernel.loads} loads of 16 bytes, at least {rule.loads}")
    if kernel.stores < rule.stores:
        found.append(f"{kernel.stores} stores of 16 bytes, at least {rule.stores}")
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--arch", type=int, action="append", help="which must be there; default 80 and 90")
    parser.add_argument("--verbose", action="store_true", help="print every kernel")
    options = parser.parse_args(arguments)
    nvdisasm = find_nvdisasm()
    images = [each for file in options.files for each in machine_codes(file.read_bytes())]
    with ThreadPoolExecutor() as pool:
        lists = pool.map(lambda each: disassemble(nvdisasm, *each), images)
    kernels = [kernel for each in lists for kernel in each]
    failed = 0
    for kernel in kernels:
        found = faults(kernel, rule_of(kernel.name))
        failed += bool(found)
        if found or options.verbose:
            print(f"sm_{kernel.arch} {kernel.name}: {kernel.registers} registers; {'; '.join(found) or 'good'}")
    for arch in options.arch or [80, 90]:
        for rule in RULES:
            if not any(kernel.arch == arch and rule_of(kernel.name) is rule for kernel in kernels):
                print(f"sm_{arch}: there is no {rule.kernel}")
                failed += 1
    print(f"{len(kernels)} kernels in {len(images)} pieces of machine code, {failed} faults")
    return 1 if failed or not kernels else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
