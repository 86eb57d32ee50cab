"""How the build decides about CUDA, and where it looks for the compiler. CMake alone is asked: nothing is compiled."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def cmake_alone():
    """The path of a cmake that runs where PATH has no other program, or None."""
    found = shutil.which("cmake")
    if found and subprocess.run([found, "--version"], capture_output=True, env={"PATH": "/nowhere"}).returncode == 0:
        return found
    return None


CMAKE = cmake_alone()
pytestmark = pytest.mark.skipif(CMAKE is None, reason="there is no cmake here that runs alone")

# The command that would run the compiler says which one it is instead.
SCRIPT = """
cmake_policy(SET CMP0054 NEW)  # as in the build: what stands in quotes is never the name of a variable
macro(enable_language language)
  message("compiler ${CMAKE_CUDA_COMPILER}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
endmacro()
include("@ROOT@/cmake/cuda.cmake")
message("decided ${GRADRING_CUDA}")
"""


@pytest.fixture
def decide(tmp_path):
    """A function that returns what CMake says with these variables, and `PATH` the folder `bin` alone."""
    (tmp_path / "decide.cmake").write_text(SCRIPT.replace("@ROOT@", str(ROOT)))
    (tmp_path / "bin").mkdir()

    def run(*options, **environment):
        variables = {"PATH": str(tmp_path / "bin"), "HOME": os.environ.get("HOME", "/"), **environment}
        command = [CMAKE, *options, "-P", str(tmp_path / "decide.cmake")]
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        return " ".join(done.stderr.split())

    return run


def put_nvcc(folder):
    """A program that could be nvcc."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nvcc").write_text("#!/bin/sh\n")
    (folder / "nvcc").chmod(0o755)
    return folder / "nvcc"


def test_a_stray_nvcc_does_not_lengthen_the_build(decide, tmp_path):
    put_nvcc(tmp_path / "bin")
    assert decide() == "decided OFF"


@pytest.mark.parametrize("name", ["CUDACXX", "CUDA_HOME"])
def test_a_variable_that_names_the_compiler_turns_cuda_on(decide, tmp_path, name):
    nvcc = put_nvcc(tmp_path / "toolkit" / "bin")
    value = nvcc if name == "CUDACXX" else tmp_path / "toolkit"
    assert f"compiler {nvcc}, architectures 80-real;90 decided ON" in decide(**{name: str(value)})


def test_the_environment_decides_and_an_option_decides_before_it(decide, tmp_path):
    nvcc = put_nvcc(tmp_path / "bin")
    assert decide(GRADRING_CUDA="off", CUDACXX=str(nvcc)) == "decided OFF"
    assert "decided ON" in decide(GRADRING_CUDA="ON")
    assert decide("-DGRADRING_CUDA=OFF", GRADRING_CUDA="ON") == "decided OFF"
    assert "GRADRING_CUDA is 'MAYBE': expected OFF, ON or SOFTWARE" in decide(GRADRING_CUDA="maybe")


def test_the_compiler_is_looked_for_in_cudacxx_then_cuda_home_then_path(decide, tmp_path):
    by_path = put_nvcc(tmp_path / "bin")
    by_home, by_name = put_nvcc(tmp_path / "home" / "bin"), put_nvcc(tmp_path / "named")
    home, on = str(tmp_path / "home"), {"GRADRING_CUDA": "ON"}
    assert f"compiler {by_name}," in decide(CUDACXX=str(by_name), CUDA_HOME=home, **on)
    assert f"compiler {by_home}," in decide(CUDA_HOME=home, **on)
    assert f"compiler {by_path}," in decide(**on)
    assert f"compiler {by_path}," in decide(CUDACXX="nvcc", CUDA_HOME=home)


def test_a_user_chooses_the_architectures(decide, tmp_path):
    put_nvcc(tmp_path / "bin")
    assert "architectures 75-virtual " in decide("-DCMAKE_CUDA_ARCHITECTURES=75-virtual", GRADRING_CUDA="ON")


def test_a_compiler_that_is_not_there_is_named_with_the_command_that_brings_one(decide):
    assert "CUDACXX is 'none': there is no such compiler" in decide(CUDACXX="none")
    said = decide(GRADRING_CUDA="ON")
    assert "there is no nvcc in CUDACXX, CUDA_HOME, PATH or NVIDIA's wheels" in said
    assert "pip install 'gradring[cuda-build]'" in said


@pytest.mark.parametrize("state", ["wheel", "sdist"])
def test_a_wheel_refuses_the_software_device(decide, state):
    said = decide("-DGRADRING_CUDA=SOFTWARE", f"-DSKBUILD_STATE={state}")
    assert "is for tests and never goes into a wheel" in said
