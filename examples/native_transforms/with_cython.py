"""A Cython function, passed as the PyCapsule that Cython makes of it."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

import gradring as gr


def make_transform() -> gr.transforms.Native:
    # What `cythonize -i brightness.pyx` does.
    folder = Path(tempfile.mkdtemp())
    c_file, library = folder / "brightness.c", folder / "brightness.so"
    source = Path(__file__).with_name("brightness.pyx")
    subprocess.run([sys.executable, "-m", "cython", "-3", source, "-o", c_file], check=True)
    compiler = os.environ.get("CC", "cc")
    flags = ["-O3", "-ffp-contract=off", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
    subprocess.run([compiler, *flags, c_file, "-o", library], check=True)
    spec = importlib.util.spec_from_file_location("brightness", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return gr.transforms.Native(module.__pyx_capi__["brightness"])


if __name__ == "__main__":
    images = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
    steps = [gr.transforms.Cast("float32"), make_transform(), gr.transforms.Scale(1 / 255)]
    with gr.Loader(images, 128, shuffle=True, transforms=steps) as loader:
        print("mean of all batches:", np.mean([batch.mean() for batch in loader]))
        print(loader.stats())
