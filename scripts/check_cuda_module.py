"""What an installation with CUDA must do on a machine without a driver, and what no wheel may hold.

    python scripts/check_cuda_module.py --plain WHEEL --cuda WHEEL

The wheel with CUDA must be installed in the Python that runs this.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

# They call out of the program, into Python as a rule; or ranks of one host meet; or workers share the host's memory.
OPS_WITHOUT_KERNELS = {
    "function",
    "function_loss",
    "function_vjp",
    "meet",
    "sum_planes",
    "sum_planes_in_place",
    "prove_sums",
}
OPS_WITHOUT_KERNELS |= {"meet_squares", "end_update", "clear_plane", "begin_part", "keep_losses", "merge_moments"}
OPS_WITHOUT_KERNELS |= {"read_shared", "read_shared_rows", "take_shared", "give_shared", "push_sgd", "push_sgd_rows"}


def check_names(plain: Path, cuda: Path) -> None:
    """A wheel without CUDA holds no CUDA file, and none holds the software device, sources or libraries of NVIDIA's."""
    for wheel, with_cuda in ((plain, False), (cuda, True)):
        names = zipfile.ZipFile(wheel).namelist()
        modules = [name for name in names if re.search(r"/_cuda\.", name)]
        assert [name.rpartition(".")[2] for name in modules] == ["so"] * with_cuda, (wheel, modules)
        stray = [name for name in names if re.search(r"\.cu$|software/|libcudart|libcublas|\.cubin$", name)]
        assert not stray, (wheel, stray)


def check_library(path: str) -> None:
    """CUDA's runtime is inside, and our library is found beside the module."""
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert "libgradring.so" in needed, needed
    assert not any("cuda" in name or "cublas" in name for name in needed), needed
    assert re.search(r"(RPATH|RUNPATH).*\[\$ORIGIN\]", dynamic), dynamic


def check_words() -> None:
    """The module loads without a driver, the doctor and the trainer say the same, and nothing loads it before it is needed."""
    import gradring as gr

    assert "gradring._cuda" not in sys.modules
    from gradring import _core, _cuda, cuda_devices  # type: ignore[attr-defined]

    check_library(_cuda.__file__)
    without = {op["name"] for op in _core.ops()} - set(_cuda.kernels())
    assert without <= OPS_WITHOUT_KERNELS, without
    found = _cuda.devices()
    assert not found["software"]
    if found["problem"] is None:
        print("there is a card here:", found["devices"])
        return
    assert found["problem"]["call"] == "cudaGetDeviceCount" and found["devices"] == [], found
    obstacle = cuda_devices.obstacle()
    assert obstacle is not None
    try:
        gr.Trainer(gr.nn.Sequential(gr.nn.Linear(2, 2)), device="cuda")
    except gr.DeviceUnavailable as error:
        assert obstacle.what in str(error) and obstacle.fix in str(error), error
        print(error)
    else:
        raise AssertionError("the trainer took a device that is not there")
    doctor = subprocess.run([sys.executable, "-m", "gradring", "doctor"], capture_output=True, text=True)
    assert obstacle.what in doctor.stdout, doctor.stdout
    assert _cuda.try_device(0)["code"] != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", type=Path, required=True)
    parser.add_argument("--cuda", type=Path, required=True)
    options = parser.parse_args()
    check_names(options.plain, options.cuda)
    check_words()
    print("the CUDA module is as it should be")


if __name__ == "__main__":
    main()
