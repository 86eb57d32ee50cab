"""Programs of a device with and without the passes that fuse them: the same bits in every schedule, and fewer launches."""

import pytest

from device_producers import run_lazily

BITS = """
from fused import MODELS, OPTIONS, fusing, trained

wrong, number, ran = [], 0, 0
for model in MODELS:
    for name, options in OPTIONS.items():
        for dtype in ("float32", "bfloat16", "float16"):
            if dtype == "float32" and "accumulate" not in options:
                continue  # nothing to fuse
            number += 1
            if number % SHARES != SHARE:
                continue
            bits, nodes = {}, {}
            for on in (False, True):
                with fusing(on):
                    bits[on], graph = trained(model, device="cuda", dtype=dtype, **options)
                nodes[on] = len(graph.nodes)
            if bits[True] != bits[False] or nodes[True] >= nodes[False]:
                wrong.append((model, name, dtype, nodes, [key for key in bits[True] if bits[True][key] != bits[False][key]]))
            ran += 1
print(wrong, ran > 10)
"""

LAUNCHES = """
from fused import MODELS, data, fusing
import gradring as gr
from gradring.cuda.streams import native

made = []
for options in ({"dtype": "bfloat16"}, {"dtype": "float16"}, {"accumulate": 3}):
    for on in (False, True):
        with fusing(on):
            trainer = gr.Trainer(MODELS["perceptron"](), device="cuda", optimizer=gr.optim.AdamW(1e-2), seed=3, **options)
            before = native().software_calls().get("cudaLaunchKernel", 0)
            float(trainer.step(*data()))
            made.append(native().software_calls()["cudaLaunchKernel"] - before)
print(*made)
"""


@pytest.mark.parametrize(("schedule", "share"), [("eager", 0), ("lazy", 1), ("1", 2), ("2", 3), ("3", 4), ("4", 5)])
def test_the_bits_of_a_training_stay_in_every_schedule(schedule, share):
    script = BITS.replace("SHARES", "6").replace("SHARE", str(share))
    assert run_lazily(script, whole=True, GRADRING_CUDA_SCHEDULE=schedule) == "[] True"


def test_launches_are_counted():
    counts = [int(each) for each in run_lazily(LAUNCHES, whole=True, GRADRING_CUDA_SCHEDULE="eager").split()]
    saved = [before - after for before, after in zip(counts[::2], counts[1::2], strict=True)]
    # All instructions run twice: once with the fault word set, and once into a graph. Gone are three casts of weights, two of
    # activations and three of gradients; and five of eight copies of gradients.
    assert saved == [2 * 8, 2 * 8, 2 * 5]
