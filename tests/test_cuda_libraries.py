"""What a user hears where a library of NVIDIA's is missing or has another major version."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

import gradring as gr
from gradring import cuda_devices, cuda_libraries
from gradring.cli.doctor import examine


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A function that puts a library with this C source in the place of cuBLASLt."""

    def put(source):
        (tmp_path / "blas.c").write_text(source)
        path = tmp_path / "libcublasLt.so.13"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, tmp_path / "blas.c"], check=True)
        found = SimpleNamespace(load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=str(path)))
        monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=found))
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", found)

    cuda_libraries.cublaslt.cache_clear()
    yield put
    cuda_libraries.cublaslt.cache_clear()


def hear():
    with pytest.raises(gr.DeviceUnavailable) as caught:
        cuda_libraries.cublaslt()
    return str(caught.value)


def test_a_library_of_the_right_version_is_loaded_once(library):
    library("#include <stddef.h>\nsize_t cublasLtGetVersion(void) { return 130002; }")
    found = cuda_libraries.cublaslt()
    assert found.version == 130002 and found.handle > 0
    assert cuda_libraries.cublaslt() is found


def test_another_major_version_is_refused_by_number_with_its_cure(library):
    library("#include <stddef.h>\nsize_t cublasLtGetVersion(void) { return 120805; }")
    message = hear()
    assert "120805" in message and "nvidia-cublas>=13,<14" in message


def test_a_library_without_the_function_is_named(library):
    library("int other;")
    assert "no cublasLtGetVersion" in hear()


def test_a_missing_library_says_how_to_install_it(library, monkeypatch):
    def nothing(name):
        raise RuntimeError(f"no {name} anywhere:\n  not here,\n  not there\n")

    library("int other;")
    sys.modules["cuda.pathfinder"].load_nvidia_dynamic_lib = nothing
    message = hear()
    assert "no cublasLt anywhere: not here, not there; pip install" in message


def test_without_the_finder_the_extra_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    assert "gradring[cuda]" in hear()


def test_the_handle_is_what_dlsym_takes(library):
    library("#include <stddef.h>\nsize_t cublasLtGetVersion(void) { return 130000; }")
    found = cuda_libraries.cublaslt()
    symbol = ctypes.CDLL(None).dlsym
    symbol.restype, symbol.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
    assert symbol(found.handle, b"cublasLtGetVersion")


def finding(monkeypatch, problem=None):
    """What the doctor says of cuBLASLt, on a machine whose build has the module _cuda."""
    device = {"name": "a card", "capability": (9, 0), "processors": 132, "bytes": 2**36}
    report = {
        "problem": problem,
        "devices": [] if problem else [device],
        "driver_version": 13000,
        "runtime_version": 13000,
        "software": False,
    }
    monkeypatch.setattr(cuda_devices, "report", lambda: report)
    return next(each for each in examine() if each.topic == "cuBLASLt")


def test_the_doctor_names_the_library_and_its_version(library, monkeypatch):
    library("#include <stddef.h>\nsize_t cublasLtGetVersion(void) { return 130002; }")
    found = finding(monkeypatch)
    assert found.good is True
    assert found.value.startswith("130002, ") and "libcublasLt.so.13" in found.value


@pytest.mark.parametrize(
    ("source", "value", "advice"),
    [
        (
            "#include <stddef.h>\nsize_t cublasLtGetVersion(void) { return 120805; }",
            "major version 13",
            "nvidia-cublas>=13",
        ),
        (None, "no cublasLt anywhere", "nvidia-cublas>=13"),
        ("", "cuda-pathfinder is missing", "gradring[cuda]"),
    ],
)
def test_the_doctor_says_what_is_missing_and_the_command_that_brings_it(library, monkeypatch, source, value, advice):
    def nothing(name):
        raise RuntimeError(f"no {name} anywhere:\n  not here,\n  not there\n")

    library(source or "int other;")
    if source is None:
        sys.modules["cuda.pathfinder"].load_nvidia_dynamic_lib = nothing
    elif not source:
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    found = finding(monkeypatch)
    assert found.good is False
    assert value in found.value and found.advice.startswith("pip install") and advice in found.advice


def test_without_a_driver_a_missing_library_is_a_fact_and_no_fault(library, monkeypatch):
    library("int other;")
    problem = {"code": 100, "call": "cudaGetDeviceCount", "name": "cudaErrorNoDevice", "text": "no device"}
    assert finding(monkeypatch, problem).good is None
