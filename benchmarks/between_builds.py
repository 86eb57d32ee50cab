"""Two builds of gradring against each other, in one run, interleaved.

    python benchmarks/between_builds.py OLD_PYTHON NEW_PYTHON [--starts 5] [--rounds 3] [--only step,fit,loader,call,gemm]

Each interpreter has one build installed. Both run every case in turn, in processes of their own that wait in a read
between their turns. Where an array begins within a cache line decides up to half of the time of a short product, and
two builds leave the heap in different states. So operands of products and calls begin equally far after a page in both
builds, and at another place in each start. A row gives the median of the paired ratios new/old (below 1: the new build
is faster) and the interval in which that median lies with 95 % confidence (by order statistics).
"""

import argparse
import inspect
import json
import math
import subprocess
import sys
import time
from itertools import pairwise

STEPS = [((64, 32, 10), 32), ((784, 128, 10), 64), ((784, 256, 128, 10), 64), ((784, 1024, 1024, 10), 128)]


def products(count):
    """A sample of matrix products, spread over the published grid by a fixed rule."""
    sizes_m, sizes = [1, 4, 16, 64, 128, 256, 1024], [10, 32, 64, 128, 256, 512, 784, 1024, 2048]
    grid = [(m, n, k, t) for m in sizes_m for n in sizes for k in sizes for t in ("nn", "nt", "tn")]
    grid = [g for g in grid if g[0] * g[1] * g[2] <= 2**28]
    return [grid[i * 7919 % len(grid)] for i in range(count)]


def product_of(text):
    """The sizes and transpositions that a word such as 64x128x784tn gives."""
    m, n, k = text[:-2].split("x")
    return int(m), int(n), int(k), text[-2:]


def cases(only, shapes):
    made = []
    if "step" in only:
        made += [{"kind": "step", "sizes": s, "batch": b} for s, b in STEPS]
    if "fit" in only:
        made += [{"kind": "fit", "rows": 1440, "sizes": (64, 32, 10), "batch": 32}]
        made += [{"kind": "fit", "rows": 512, "sizes": (64, 32, 10), "batch": 32}]
        made += [{"kind": "fit", "rows": 20000, "sizes": (784, 128, 10), "batch": 64}]
    if "loader" in only:
        made += [{"kind": "loader", "batch": b} for b in (64, 512)]
    if "call" in only:
        made += [{"kind": "call", "op": op} for op in ("relu", "softmax", "linear", "matmul")]
    if "gemm" in only:
        made += [{"kind": "gemm", "m": m, "n": n, "k": k, "t": t} for m, n, k, t in shapes]
    return made


def placed(array, beyond):
    """A copy of the array that begins `beyond` bytes after a page."""
    import numpy as np

    memory = np.empty(array.nbytes + 8192, np.uint8)
    begin = -memory.ctypes.data % 4096 + beyond
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def work_of(case):
    """A function that does the case's work once."""
    import numpy as np

    import gradring as gr

    rng = np.random.default_rng(0)
    kind = case["kind"]

    def mlp(sizes):
        layers = []
        for i, o in pairwise(sizes):
            layers += [gr.nn.Linear(i, o), gr.nn.ReLU()]
        return gr.nn.Sequential(*layers[:-1])

    if kind in ("step", "fit"):
        rows = case.get("rows", case["batch"])
        x = rng.standard_normal((rows, case["sizes"][0]), dtype=np.float32)
        y = rng.integers(0, case["sizes"][-1], rows)
        trainer = gr.Trainer(mlp(case["sizes"]), optimizer=gr.optim.SGD(0.001, momentum=0.9))
        if kind == "step":
            return lambda: trainer.step(x, y)
        loader = gr.Loader((x, y), case["batch"], shuffle=True)
        # Without lines on the epochs, which older builds do not print where there is no terminal.
        quiet = {"verbose": False} if "verbose" in inspect.signature(trainer.fit).parameters else {}
        return lambda: trainer.fit(loader, epochs=5, **quiet)
    if kind == "loader":
        x = rng.integers(0, 255, (60000, 784), dtype=np.uint8)
        transforms = {0: [gr.transforms.Cast("float32"), gr.transforms.Scale(1 / 255, 0.0)]}
        loader = gr.Loader((x, np.arange(60000)), case["batch"], shuffle=True, transforms=transforms)

        def epoch():
            for batch in loader:
                batch[0].max()

        return epoch
    if kind == "call":
        x = placed(rng.standard_normal((32, 64), dtype=np.float32), case["beyond"])
        w = placed(rng.standard_normal((64, 10), dtype=np.float32), case["beyond"])
        functions = {
            "relu": lambda: gr.ops.relu(x),
            "softmax": lambda: gr.ops.softmax(x),
            "linear": lambda: gr.ops.linear(x, w),
            "matmul": lambda: gr.ops.matmul(x, w),
        }
        return functions[case["op"]]
    a = rng.standard_normal((case["k"], case["m"]) if case["t"][0] == "t" else (case["m"], case["k"]), dtype=np.float32)
    b = rng.standard_normal((case["n"], case["k"]) if case["t"][1] == "t" else (case["k"], case["n"]), dtype=np.float32)
    a, b = placed(a, case["beyond"]), placed(b, case["beyond"])
    out = placed(np.zeros((case["m"], case["n"]), np.float32), case["beyond"])
    flags = {"trans_a": case["t"][0] == "t", "trans_b": case["t"][1] == "t", "out": out}
    return lambda: gr.ops.matmul(a, b, **flags)


def worker():
    """Reads a case or a number of repetitions per line; answers with seconds."""
    work = None
    for line in sys.stdin:
        told = json.loads(line)
        if isinstance(told, dict):
            work = work_of(told)
            for _ in range(3):
                work()
            began, count = time.perf_counter(), 0
            while time.perf_counter() - began < 0.1:
                work()
                count += 1
            answer = (time.perf_counter() - began) / count
        else:
            began = time.perf_counter()
            for _ in range(told):
                work()
            answer = (time.perf_counter() - began) / told
        print(json.dumps(answer), flush=True)


class Racer:
    def __init__(self, python):
        command = [python, __file__, "--worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, told):
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a build ended in the middle of {told}")
        return json.loads(line)


def interval(ratios):
    """The median, and the order statistics between which it lies with about 95 % confidence."""
    ordered, n = sorted(ratios), len(ratios)
    half = 0.98 * math.sqrt(n)
    low, high = max(int(n / 2 - half), 0), min(math.ceil(n / 2 + half), n - 1)
    return ordered[n // 2], ordered[low], ordered[high]


def race(options, made):
    """The seconds of both builds for each case: pairs of neighbours in time, from processes that are started anew."""
    seconds = [([], []) for _ in made]
    # Where a process happens to put its code and pages decides much, too, so there are several starts.
    for start in range(options.starts):
        racers = [Racer(options.old), Racer(options.new)]
        for case, (old, new) in zip(made, seconds, strict=True):
            slowest = max(racer.ask({**case, "beyond": start % 4 * 16}) for racer in racers)
            count = max(int(options.seconds / slowest), 1)
            for turn in range(options.rounds):
                order = (0, 1) if turn % 2 == 0 else (1, 0)
                now = {i: racers[i].ask(count) for i in order}
                old.append(now[0])
                new.append(now[1])
        for racer in racers:
            racer.process.stdin.close()
            racer.process.wait()
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--starts", type=int, default=5, help="of each build's process")
    parser.add_argument("--rounds", type=int, default=3, help="in each start")
    parser.add_argument("--seconds", type=float, default=0.03, help="of one turn")
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--shapes", help="race these products instead, such as 64x128x784tn,1x512x512nn")
    parser.add_argument("--only", default="step,fit,loader,call,gemm")
    options = parser.parse_args()
    shapes = list(map(product_of, options.shapes.split(","))) if options.shapes else products(options.products)
    made = cases(options.only.split(","), shapes)
    slower, every = [], []
    for case, seconds in zip(made, race(options, made), strict=True):
        name = " ".join(f"{value}" for value in case.values())
        median, low, high = interval([new / old for old, new in zip(*seconds, strict=True)])
        every.append(median)
        mark = ""
        if high > 1.03:
            mark = "  slower" if low > 1.03 else "  perhaps slower"
            slower.append(name + mark)
        old, new = (sorted(s)[len(s) // 2] * 1e6 for s in seconds)
        print(f"{name:44} {old:12.2f} us {new:12.2f} us  {median:.3f} [{low:.3f}, {high:.3f}]{mark}", flush=True)
    mean = math.exp(sum(map(math.log, every)) / len(every))
    print(f"{len(every)} rows, geometric mean {mean:.3f}; {len(slower)} may be more than 3 % slower")
    for name in slower:
        print(" ", name)


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        worker()
    else:
        main()
