"""Includes point one way: bindings and capi, then program, loader and comm, then ops, then runtime, then include."""

import re
from functools import cache

import pytest

from lint.source import CSRC, cpp_files, name, without_comments

MAY_INCLUDE = {
    "include": {"gradring"},
    "runtime": {"gradring", "runtime"},
    "ops": {"gradring", "runtime", "ops"},
    "loader": {"gradring", "runtime", "ops", "loader"},
    "comm": {"gradring", "runtime", "ops", "comm"},
    "program": {"gradring", "runtime", "ops", "program"},
    "cuda": {"gradring", "runtime", "cuda"},
    "capi": {"gradring", "runtime", "ops", "comm", "capi"},
    "bindings": {"gradring", "runtime", "ops", "loader", "comm", "program", "cuda", "bindings"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)
PYTHON = re.compile(r"^(Python\.h|pybind11/|numpy/)")
CUDA = re.compile(r"^(cuda|cublas|cudnn|nccl|nvrtc|nvml|curand|cub/|thrust/)")
INTRINSICS = re.compile(r"^(\w*mmintrin\.h|x86intrin\.h|arm_neon\.h|arm_sve\.h)$")


@cache
def includes(path):
    return INCLUDE.findall(without_comments(path.read_text()))


@pytest.mark.parametrize("path", cpp_files(), ids=name)
def test_includes_point_downwards(path):
    part = path.relative_to(CSRC).parts[0]
    # A test may bring what its part meets only at run time: an epoch's test feeds it from a real source.
    allowed = MAY_INCLUDE[part] | ({"loader", "program"} if path.stem.endswith("_test") else set())
    allowed |= {"loader"} if path.parent.name == "cuda_tests" else set()
    device = path.suffix == ".cu" or path.stem.endswith("_cuda") or path.parent.name in ("cuda", "cuda_tests")
    allowed |= {"cuda"} if device else set()
    for quote, target in includes(path):
        if quote == '"':
            assert (CSRC / target).exists() or (CSRC / "include" / target).exists(), f"{target}: write it from csrc/"
            assert target.split("/")[0] in allowed, f"{part} must not know {target}"


@pytest.mark.parametrize("path", cpp_files(), ids=name)
def test_foreign_headers_stay_in_their_rooms(path):
    place = path.relative_to(CSRC).as_posix()
    for _, target in includes(path):
        assert not PYTHON.match(target) or place.startswith("bindings/"), f"{target}: csrc/bindings alone knows Python"
        ours = (CSRC / target).exists() and target != "cuda/device.h"
        device = place.startswith("cuda/") or place.endswith(".cu")
        assert ours or not CUDA.match(target) or device, f"{target}: not here"
        assert not INTRINSICS.match(target) or re.search(r"simd_\w+\.h$", place), f"{target}: ISA-specific files alone"


def reached(path):
    """Every header that a file includes, directly or through others. Those of the software device are for its tests alone."""
    found, left = set(), [path]
    while left:
        for _, target in includes(left.pop()):
            if target in found or target.startswith("cuda/software/"):
                continue
            found.add(target)
            left += [CSRC / target] if (CSRC / target).exists() else []
    return found


HOST = [p for p in cpp_files() if p.suffix != ".cu" and not {"cuda_tests", "software"} & {*p.parts}]


@pytest.mark.parametrize("path", [p for p in HOST if p != CSRC / "cuda" / "device.h"], ids=name)
def test_no_header_of_nvidias_reaches_what_is_compiled_without_cuda(path):
    device = "cuda/device.h" in (found := reached(path))
    foreign = {target for target in found if CUDA.match(target) and not (CSRC / target).exists()}
    assert not foreign and not device, f"{path.name} includes {sorted(foreign)} through other headers"


def test_headers_that_come_through_others_are_seen():
    assert "cuda_runtime.h" in reached(CSRC / "cuda" / "stream.cu")


def test_cmake_adds_the_rooms_in_layer_order():
    parts = re.findall(r"add_subdirectory\((\w+)\)", (CSRC / "CMakeLists.txt").read_text())
    assert parts[0] == "runtime"
    for position, part in enumerate(parts):
        later = set(parts[position + 1 :])
        assert not (MAY_INCLUDE[part] & later), f"{part} comes before a part that it may include"
