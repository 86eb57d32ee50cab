"""What a wheel carries, and what an installed package promises."""

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

import gradring as gr

WHEEL = os.environ.get("GRADRING_WHEEL")  # set by .ci/run to the wheel that was built from the sdist


@pytest.mark.skipif(WHEEL is None, reason="needs GRADRING_WHEEL, the path of a wheel")
def test_the_wheel_has_all_it_needs_and_no_junk():
    assert os.path.getsize(WHEEL) < 1_985_000  # two million bytes are the most that it should ever have
    with zipfile.ZipFile(WHEEL) as wheel:
        names = wheel.namelist()
    for needed in (
        r"gradring/libgradring\.so",
        r"gradring/_core\.[\w-]+\.so",
        r"gradring/_core\.pyi",
        r"gradring/py\.typed",
        r"gradring/capi\.pxd",
        r"gradring/include/gradring/gradring\.h",
        r"gradring/include/gradring/export\.h",
        r"gradring/datasets/digits\.npz",
        r"gradring-[\d.]+\.dist-info/licenses/LICENSE",
        r"gradring-[\d.]+\.dist-info/licenses/NOTICE",
    ):
        assert sum(bool(re.fullmatch(needed, name)) for name in names) == 1, needed
    allowed = re.compile(
        r"gradring/.*\.(py|pyi|pxd|npz)|gradring/py\.typed|gradring/[\w.-]+\.so|gradring/include/.*\.h"
        r"|gradring-[\d.]+\.dist-info/.*"
    )
    assert [name for name in names if not allowed.fullmatch(name)] == []


@pytest.mark.skipif(WHEEL is None, reason="needs GRADRING_WHEEL, the path of a wheel")
@pytest.mark.skipif(
    any(map(os.environ.get, ("GRADRING_CUDA", "CUDACXX", "CUDA_HOME"))), reason="it may be one with CUDA"
)
def test_a_wheel_without_cuda_has_no_file_of_cuda_and_none_of_the_software_device():
    with zipfile.ZipFile(WHEEL) as wheel:
        names = wheel.namelist()
        libraries = {name: wheel.read(name) for name in names if name.endswith(".so")}
    assert sorted(name.partition(".")[0] for name in libraries) == ["gradring/_core", "gradring/libgradring"]
    assert [name for name in names if re.search(r"\.cuh?$|\.cubin$|software|libcu|/_cuda\.", name)] == []
    for name, data in libraries.items():  # neither the runtime nor kernels are inside
        for word in (b"cudaLaunchKernel", b"cudaMalloc", b"cublasLtCreate", b"gradring8software", b".nv_fatbin"):
            assert word not in data, (name, word)


def test_the_extension_finds_the_library_beside_itself():
    from gradring import _core

    extension = Path(_core.__file__).resolve()
    if extension.parent != Path(gr.get_library()).parent:
        pytest.skip("a build tree, not an installation")
    tags = subprocess.run(["readelf", "-d", str(extension)], capture_output=True, text=True, check=True).stdout
    assert "$ORIGIN" in tags


def test_the_library_shows_its_interface_alone():
    """Nothing but gradring's own names is visible, and no weak symbol that another library's copy could replace."""
    command = ["nm", "-D", "--defined-only", "--demangle", gr.get_library()]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    strangers = [line for line in lines if "gradring" not in line]
    assert strangers == []
    assert any("gradring_matmul_f32" in line for line in lines)


def test_the_library_shows_what_the_extension_modules_call():
    """The loader binds functions when they are first called, so a missing one would fail only then."""

    def names(selection: str, library: Path) -> set[str]:
        command = ["nm", "-D", selection, "--format=just-symbols", str(library)]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return {name for name in found if "gradring" in name}

    library = Path(gr.get_library())
    shown = names("--defined-only", library)
    from gradring import _core

    core = Path(_core.__file__)
    for module in core.parent.glob("_c*.so"):  # _core, and _cuda if this build has it
        assert names("--undefined-only", module) - shown == set(), module.name
    assert names("--undefined-only", core)


def test_the_core_needs_no_extra():
    """Importing and training must not need what is only an extra."""
    code = (
        "import sys\n"
        "extras = 'torch', 'jax', 'safetensors', 'matplotlib', 'pytest', 'hypothesis', 'sklearn'\n"
        "sys.modules.update(dict.fromkeys(extras))\n"
        "import gradring as gr\n"
        "for name in gr.__all__: getattr(gr, name)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_few_runtime_dependencies():
    try:
        needed = requires("gradring") or []
    except PackageNotFoundError:
        pytest.skip("not installed")
    names = {re.match(r"[\w-]+", line).group() for line in needed if "extra ==" not in line}
    assert names == {"numpy", "ml_dtypes", "tqdm"}
