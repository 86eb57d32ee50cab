"""Train two models in each way of ``parallel=``, and write how the loss fell with time: a file of results, and a chart
of it.

The models: a logistic regression over 20,000 binary features, of which each sample has 32 (an embedding whose rows
are read and pushed alone), and a network 784-128-10. Both take plain SGD in float32, with the same rate in every way.
The ways: one process on one thread, one on all threads, synchronous replicas, and asynchronous workers, locked,
atomic and hogwild, each with one thread. They take turns, epoch by epoch. A point is the loss on held-out samples
after an epoch, and the seconds of training so far, without those of evaluations. The time to a loss is that of the
first point at or below it; the loss is the worst of all ways' best ones.

    python scripts/measure_asynchronous.py [--workers 2] [--epochs 12] [--out benchmarks/results/asynchronous.json]
    python scripts/measure_asynchronous.py --draw          # the chart alone, from the file
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gradring as gr
from gradring.bench.machine import describe

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "asynchronous.json"
CHART = ROOT / "docs" / "assets" / "asynchronous.svg"
FEATURES, ACTIVE = 20_000, 32
# The ways, and the colours of their lines (of Okabe and Ito, for all kinds of eyes).
COLOURS = {
    "one thread": "#000000",
    "all threads": "#999999",
    "replicas": "#0072b2",
    "locked": "#009e73",
    "atomic": "#cc79a7",
    "hogwild": "#d55e00",
}

Data = tuple[np.ndarray, np.ndarray]
Point = tuple[float, float]


def regression() -> tuple[Data, Data, Callable[..., gr.Trainer], int]:
    """The sparse logistic regression: samples for training and for the loss, its trainer, and the rows of a batch."""
    rng = np.random.default_rng(0)
    samples = 40_000
    ids = (FEATURES * rng.random((samples, ACTIVE)) ** 3).astype(
        np.int64
    )  # some features are far more frequent than others
    logits = rng.standard_normal(FEATURES)[ids].sum(axis=1) / ACTIVE**0.5
    y = (rng.random(samples) < 1 / (1 + np.exp(-2 * logits))).astype(np.float32)[:, None]

    def trainer(**how: Any) -> gr.Trainer:
        layers = gr.nn.Embedding(FEATURES, 1), gr.nn.Flatten(), gr.nn.Linear(ACTIVE, 1, bias=False)
        model = gr.nn.Sequential(*layers).init(0)
        model.params["0.weight"] = np.zeros((FEATURES, 1))
        model.params["2.weight"] = np.ones((ACTIVE, 1))  # adds the weights of a sample's features up, and stays so
        loss, sgd = "binary_cross_entropy", gr.optim.SGD(0.25)
        return gr.Trainer(model, loss, sgd, metrics=(), frozen="2.*", **how)

    cut = samples * 9 // 10
    return (ids[:cut], y[:cut]), (ids[cut:], y[cut:]), trainer, 16


def network() -> tuple[Data, Data, Callable[..., gr.Trainer], int]:
    """The same for the network."""
    rng = np.random.default_rng(0)
    samples = 12_000
    x = rng.standard_normal((samples, 784)).astype(np.float32)
    hidden = np.tanh(x @ rng.standard_normal((784, 24)) / 8)
    y = (hidden @ rng.standard_normal((24, 10))).argmax(axis=1)

    def trainer(**how: Any) -> gr.Trainer:
        model = gr.nn.Sequential(gr.nn.Linear(784, 128), gr.nn.ReLU(), gr.nn.Linear(128, 10)).init(0)
        return gr.Trainer(model, optimizer=gr.optim.SGD(0.1), **how)

    cut = samples * 9 // 10
    return (x[:cut], y[:cut]), (x[cut:], y[cut:]), trainer, 32


WORKS = {"sparse logistic regression": regression, "MLP 784-128-10": network}


def ways(workers: int) -> dict[str, dict[str, Any]]:
    """The options of each way."""
    several = {"replicas": workers, "threads": workers}
    return {
        "one thread": {"threads": 1},
        "all threads": {"threads": workers},
        "replicas": several,
        **{way: {"parallel": way, **several} for way in ("locked", "atomic", "hogwild")},
    }


def measured(work: Callable[[], Any], workers: int, epochs: int) -> dict[str, Any]:
    """The curve and the counts of each way."""
    train, test, make, batch = work()
    trainers = {name: make(**how) for name, how in ways(workers).items()}
    curves: dict[str, list[Point]] = {name: [(0.0, make().evaluate(test)["loss"])] for name in trainers}
    for _ in range(epochs):
        for name, trainer in trainers.items():
            begin = time.perf_counter()
            trainer.fit(train, epochs=1, batch_size=batch, verbose=0)
            seconds = time.perf_counter() - begin
            curves[name].append((curves[name][-1][0] + seconds, trainer.evaluate(test)["loss"]))
    target = max(min(loss for _, loss in curve) for curve in curves.values())
    counts = {name: trainer.sharing() for name, trainer in trainers.items() if trainer.session.workers}
    return {
        "batch": batch,
        "target": target,
        "seconds_to_target": {name: time_to(curve, target) for name, curve in curves.items()},
        "curves": curves,
        "counts": counts,
    }


def time_to(curve: list[Point], target: float) -> float:
    """The seconds of the first point at or below the target."""
    return next(seconds for seconds, loss in curve if loss <= target)


def chart(works: Mapping[str, Any]) -> str:
    """The curves as an SVG picture, one field for each model."""
    width, height, left, top, gap = 400, 260, 58, 46, 70
    whole = len(works) * (width + gap) + 10
    style = (
        "text{font:12px sans-serif;fill:#222}.t{font-weight:bold}line{stroke:#ccc}polyline{fill:none;stroke-width:2}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height + 112}" width="{whole}" height="{height + 112}" '
        'role="img">',
        "<title>How the loss falls with time, for each way of asynchronous updates</title>",
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, (name, work) in enumerate(works.items()):
        at = left + number * (width + gap)
        points = [point for curve in work["curves"].values() for point in curve]
        longest = max(seconds for seconds, _ in points)
        lowest, highest = min(loss for _, loss in points), max(loss for _, loss in points)
        span = max(highest - lowest, 1e-9)
        parts.append(f'<text class="t" x="{at}" y="{top - 18}">{name}</text>')
        for step in range(5):
            y = top + height * step / 4
            parts.append(f'<line x1="{at}" y1="{y:.1f}" x2="{at + width}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{at - 6}" y="{y + 4:.1f}" text-anchor="end">{highest - span * step / 4:.2f}</text>')
            x = at + width * step / 4
            text = f"{longest * step / 4:.2g} s"
            parts.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{text}</text>')
        for way, curve in work["curves"].items():
            line = " ".join(
                f"{at + width * seconds / longest:.1f},{top + height * (highest - loss) / span:.1f}"
                for seconds, loss in curve
            )
            parts.append(f'<polyline points="{line}" stroke="{COLOURS[way]}"/>')
    for number, (way, colour) in enumerate(COLOURS.items()):
        x = left + number * 130
        parts.append(f'<rect x="{x}" y="{top + height + 40}" width="22" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 28}" y="{top + height + 46}">{way}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="how many replicas, workers and threads")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of results")
    parser.add_argument("--chart", type=Path, default=CHART)
    parser.add_argument("--draw", action="store_true", help="draw the chart of a file that is there")
    given = parser.parse_args()
    if not given.draw:
        works = {name: measured(work, given.workers, given.epochs) for name, work in WORKS.items()}
        said = {"machine": describe(), "workers": given.workers, "works": works}
        given.out.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    works = json.loads(given.out.read_text(encoding="utf-8"))["works"]
    given.chart.write_text(chart(works), encoding="utf-8")
    for name, work in works.items():
        print(f"{name}, batches of {work['batch']}: seconds to a loss of {work['target']:.4f}")
        for way, seconds in work["seconds_to_target"].items():
            counts = work["counts"].get(way)
            more = (
                f"; {counts['updates']} updates, {counts['lost']} of {counts['counted']} elements lost"
                if counts
                else ""
            )
            print(f"  {way:12} {seconds:8.3f}{more}")


if __name__ == "__main__":
    main()
