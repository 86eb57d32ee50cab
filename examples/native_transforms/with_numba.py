"""A Numba cfunc as a transform."""

import numba
import numpy as np
from numba import types

import gradring as gr

SIGNATURE = types.int32(
    types.CPointer(types.float32), types.int64, types.CPointer(types.float32), types.int64, types.int64, types.uint64,
    types.voidptr,
)  # fmt: skip


@numba.cfunc(SIGNATURE)
def brightness(source, source_bytes, target, target_bytes, sample, random, user_data):
    uniform = np.float32(random >> np.uint64(40)) * np.float32(2.0**-24)
    factor = np.float32(0.8) + np.float32(0.4) * uniform
    for i in range(target_bytes // 4):
        target[i] = source[i] * factor
    return 0


def make_transform() -> gr.transforms.Native:
    return gr.transforms.Native(brightness)


if __name__ == "__main__":
    images = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
    steps = [gr.transforms.Cast("float32"), make_transform(), gr.transforms.Scale(1 / 255)]
    with gr.Loader(images, 128, shuffle=True, transforms=steps) as loader:
        print("mean of all batches:", np.mean([batch.mean() for batch in loader]))
        print(loader.stats())
