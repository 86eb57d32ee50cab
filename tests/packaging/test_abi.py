"""The C interface as its users see it: it changes only on purpose, and C, Cython and the library agree on it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradring as gr
from packaging_abi import SNAPSHOT, functions, lines

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "cython_package"
DECLARATIONS = ROOT / "python" / "gradring" / "capi.pxd"


def test_the_interface_is_the_recorded_one():
    """Symbols are added, never changed: a line that is gone needs another GRADRING_ABI_VERSION."""
    recorded = SNAPSHOT.read_text().splitlines()
    found = lines(Path(gr.get_include()))
    version = next(line for line in recorded if line.startswith("version"))
    assert version not in found or set(recorded) <= set(found), (
        "raise GRADRING_ABI_VERSION, or keep what C programs use"
    )
    assert found == recorded, "record what was added: python tests/packaging_abi.py"


def test_the_library_shows_just_these_functions_to_c():
    command = ["nm", "-D", "--defined-only", gr.get_library()]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shown = {name for name in re.findall(r" T (\w+)$", symbols, re.MULTILINE) if not name.startswith("_Z")}
    assert shown == functions(SNAPSHOT.read_text().splitlines())


def types(declaration):
    """A declaration without the names of its parameters."""
    result, name, parameters = re.fullmatch(r"(.*?) ?(\w+)\((.*?)\)", " ".join(declaration.split())).groups()
    kinds = [
        re.sub(r" ?\b\w+$", "", each.strip()) for each in parameters.split(",") if each.strip() not in ("", "void")
    ]
    return name, result, tuple(kinds)


def test_cython_declares_what_the_header_declares():
    pxd = DECLARATIONS.read_text()
    declared = re.findall(r"^    ((?:const )?\w+\*? \w+\([^)]*\)) noexcept$", pxd, re.MULTILINE)
    recorded = SNAPSHOT.read_text().splitlines()
    expected = [line.removeprefix("function ") for line in recorded if line.startswith("function ")]
    assert sorted(map(types, declared)) == sorted(map(types, expected))
    constants = {line.split()[1] for line in recorded if line.startswith("constant ")}
    assert constants == set(re.findall(r"^        (GRADRING_\w+)$", pxd, re.MULTILINE))


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("Cython", "setuptools")),
    reason="needs Cython and setuptools",
)
def test_a_cython_package_builds_and_gets_the_right_numbers(tmp_path):
    source = tmp_path / "source"
    (source / "covariance").mkdir(parents=True)
    for path in PACKAGE.rglob("*.*"):
        if path.suffix in {".py", ".pyx", ".toml"}:
            (source / path.relative_to(PACKAGE)).write_bytes(path.read_bytes())
    target = tmp_path / "target"
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-lib", target]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[1]); import covariance\n"
        "np.save(sys.argv[3], covariance.covariance(np.load(sys.argv[2])))"
    )
    values = np.random.default_rng().normal(size=(301, 7))
    np.save(tmp_path / "values.npy", values)
    files = [tmp_path / "values.npy", tmp_path / "result.npy"]
    done = subprocess.run([sys.executable, "-c", code, target, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.allclose(np.load(files[1]), np.cov(values.T), rtol=1e-12)
