"""A transform in C, passed as a ctypes function."""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import gradring as gr


def make_transform() -> gr.transforms.Native:
    library = Path(tempfile.mkdtemp()) / "brightness.so"
    compiler = os.environ.get("CC", "cc")
    source = Path(__file__).with_name("brightness.c")
    flags = ["-O3", "-ffp-contract=off", "-shared", "-fPIC", f"-I{gr.get_include()}"]
    subprocess.run([compiler, *flags, source, "-o", library], check=True)
    function = ctypes.CDLL(str(library)).brightness
    function.argtypes = gr.transforms.Native.PROTOTYPE._argtypes_
    return gr.transforms.Native(function)


if __name__ == "__main__":
    images = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
    steps = [gr.transforms.Cast("float32"), make_transform(), gr.transforms.Scale(1 / 255)]
    with gr.Loader(images, 128, shuffle=True, transforms=steps) as loader:
        print("mean of all batches:", np.mean([batch.mean() for batch in loader]))
        print(loader.stats())
