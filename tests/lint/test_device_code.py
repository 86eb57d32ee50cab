"""Device code speaks through cuda/device.h, and the software device never leaves the source tree."""

import re

import pytest

from lint.source import CSRC, ROOT, cpp_files, name, without_comments

DEVICE = [path for path in cpp_files() if path.suffix == ".cu"]
HEADERS = [path for path in cpp_files() if path.name.endswith("_cuda.h")]
INSTALLS = [path for path in CSRC.rglob("CMakeLists.txt") if "software" in path.read_text()]


def test_there_is_device_code():
    assert len(DEVICE) >= 3


@pytest.mark.parametrize("path", DEVICE, ids=name)
def test_device_code_speaks_through_one_header(path):
    assert '#include "cuda/device.h"' in path.read_text()


@pytest.mark.parametrize("path", DEVICE + HEADERS, ids=name)
def test_kernels_use_no_bare_fences_atomics_or_assembly(path):
    text = without_comments(path.read_text())
    for word in ("<<<", "__threadfence", "asm(", "asm volatile", "cudaLaunchKernel("):
        assert word not in text, f"{word}: say it through cuda/device.h"
    assert not re.search(r"\batomicAdd\(", text), "atomics name their order: device_atomic.h"


def test_assembly_stands_beside_plain_code_in_one_header():
    having = [path for path in (CSRC / "cuda").glob("*.h") if re.search(r"\basm\b", without_comments(path.read_text()))]
    assert [path.name for path in having] == ["device_memory.h"]
    assert "GRADRING_SOFTWARE_DEVICE" in having[0].read_text()


@pytest.mark.parametrize("path", [path for path in DEVICE if path.stem.endswith("_cuda")], ids=name)
def test_kernels_say_at_the_head_of_their_file_what_they_move_and_compute(path):
    head = path.read_text().partition("#include")[0]
    if path.parent.name != "ops":  # there, no file has kernels
        assert re.search(r"\b[Bb]ytes\b", head) and re.search(r"\bFLOPs?\b", head)


@pytest.mark.parametrize("path", DEVICE, ids=name)
def test_device_code_includes_no_header_of_the_software_device_but_in_its_folder_and_in_tests(path):
    if not re.search(r"cuda/software/|cuda_tests", path.as_posix()):
        assert "cuda/software" not in path.read_text()


@pytest.mark.parametrize("path", INSTALLS, ids=name)
def test_the_software_device_is_not_installed(path):
    targets = re.findall(r"install\(TARGETS ([^)]*?) LIBRARY", path.read_text())
    assert not any("software" in target for target in targets)


def test_a_wheel_refuses_the_software_device():
    text = (ROOT / "cmake" / "cuda.cmake").read_text()
    assert re.search(r'STREQUAL "SOFTWARE" AND .*SKBUILD_STATE.*wheel', text)
    assert "FATAL_ERROR" in text


@pytest.mark.parametrize("page", ["README.md", "docs/cuda.md", "docs/description.md"])
def test_a_page_says_in_one_sentence_how_far_the_kernels_are_proved(page):
    text = " ".join((ROOT / page).read_text().split())
    proved = "compiled for sm_80 and sm_90; every kernel runs in CI on a software device; "
    assert len(re.findall(rf"{proved}(?:never run on a card|measured on [^.]*\d{{4}}-\d\d-\d\d)\.", text)) == 1
