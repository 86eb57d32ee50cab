"""Instructions of one training step, counted by valgrind: the difference between N and 2N steps.

    GRADRING_ISA=avx2 python benchmarks/instructions.py [--python OLD NEW ...]

Counts do not depend on what else the machine does, so they compare two builds where times cannot. ``--python`` names
the interpreters whose gradring is counted, side by side; an editable install checks its build at import and counts
unevenly, so install wheels. Steps run on one thread.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

CASES = {
    "64-32-10 batch 32, SGD": ((64, 32, 10), 32, "gr.optim.SGD(0.01, momentum=0.9)", ""),
    "64-32-10 batch 32, Adam": ((64, 32, 10), 32, "gr.optim.Adam(0.01)", ""),
    "64-32-10 batch 32, AdamW": ((64, 32, 10), 32, "gr.optim.AdamW(0.01)", ""),
    "64-32-10 batch 32, AdamW, no decay on biases": (
        (64, 32, 10),
        32,
        "gr.optim.AdamW(0.01, groups=[{'params': '*.bias', 'weight_decay': 0.0}])",
        "",
    ),
    "64-32-10 batch 32, AdamW, frozen layer": ((64, 32, 10), 32, "gr.optim.AdamW(0.01)", ", frozen='0.*'"),
    "64-32-10 batch 32, AdamW, clipped": ((64, 32, 10), 32, "gr.optim.AdamW(0.01)", ", clip_norm=1.0"),
    "784-256-128-10 batch 64, SGD": ((784, 256, 128, 10), 64, "gr.optim.SGD(0.01, momentum=0.9)", ""),
    "784-256-128-10 batch 64, Adam": ((784, 256, 128, 10), 64, "gr.optim.Adam(0.01)", ""),
}
SCRIPT = """
import numpy as np, gradring as gr
sizes, batch, steps = {sizes}, {batch}, {steps}
layers = []
for i, o in zip(sizes, sizes[1:]):
    layers += [gr.nn.Linear(i, o), gr.nn.ReLU()]
model = gr.nn.Sequential(*layers[:-1])
trainer = gr.Trainer(model, optimizer={optimizer}, threads=1{options})
x = np.linspace(-1, 1, batch * sizes[0], dtype=np.float32).reshape(batch, -1)
y = np.arange(batch) % sizes[-1]
for _ in range(steps):
    trainer.step(x, y)
"""


def count(python: str, script: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", python, "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            check=True,
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"valgrind printed no count: {done.stderr[-500:]}")
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=[sys.executable], help="interpreters to count, side by side")
    parser.add_argument("--steps", type=int, default=2000, help="of the small cases; the large ones take a fortieth")
    options = parser.parse_args()
    for name, (sizes, batch, optimizer, extra) in CASES.items():
        steps = options.steps if sizes[0] < 100 else max(options.steps // 40, 1)
        counts = []
        for python in options.python:
            runs = [
                count(python, SCRIPT.format(sizes=sizes, batch=batch, steps=n, optimizer=optimizer, options=extra))
                for n in (steps, 2 * steps)
            ]
            counts.append((runs[1] - runs[0]) / steps)
        change = "".join(f"  {(other / counts[0] - 1) * 100:+.2f} %" for other in counts[1:])
        print(f"{name:36}" + "".join(f"{c:14,.0f}" for c in counts) + change, flush=True)


if __name__ == "__main__":
    main()
