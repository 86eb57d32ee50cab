"""Writes the figures of the README and of three pages from benchmarks/results, so that no number is copied by hand.

    python scripts/draw_figures.py              # after a measurement
    python scripts/draw_figures.py --check      # exit status 1 if a file is not what the results say

It draws docs/assets/steps.svg and steps-narrow.svg, replaces what stands between the lines `<!-- begin NAME ... -->` and
`<!-- end NAME -->` of these files, and writes docs/description.md: the README as a package index shows it, which can show no
picture of a repository.
"""

# ruff: noqa: RUF001  (tables use the multiplication sign)

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# How the chart calls the peers: name, colour (of Okabe and Ito, for all kinds of eyes), shape, contenders of the race.
PEERS = (
    ("NumPy by hand", "#0072b2", "circle", ("numpy by hand",)),
    ("PyTorch by hand", "#d55e00", "square", ("torch by hand", "torch.compile by hand")),
    ("torch.nn", "#cc79a7", "triangle", ("torch",)),
    ("torch.compile", "#009e73", "diamond", ("torch.compile",)),
    ("JAX", "#000000", "cross", ("jax", "jax scan")),
    ("nn-engine-core", "#56b4e9", "plus", ("nn-engine-core",)),
)
LOST = "▼"
PAGES = ("README.md", "docs/performance.md", "docs/collectives.md", "docs/parallel.md")


def results(name: str) -> dict[str, Any]:
    """One file of benchmarks/results."""
    read: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return read


def library(contender: str) -> str:
    """A contender without its number of threads."""
    return re.sub(r" (1|all)$", "", contender)


def medians(row: Mapping[str, Any]) -> dict[str, float]:
    """The seconds of each library in a row, each at its better number of threads."""
    best: dict[str, float] = {}
    for name, times in row["seconds"].items():
        best[library(name)] = min(statistics.median(times), best.get(library(name), math.inf))
    return best


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 99.5 else f"{value:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def ratio(value: float) -> str:
    """How many times less time gradring takes, with a symbol if it takes more."""
    return f"{value:.2f}×" + (f" {LOST}" if value < 1 else "")


def peer_name(contender: str) -> str:
    """A contender as the tables call it."""
    name = library(contender).replace("torch", "PyTorch").replace("numpy", "NumPy").replace("jax", "JAX")
    return name.replace("PyTorch.compile", "`torch.compile`")


def raced(row: Mapping[str, Any]) -> tuple[float, str, float]:
    """Our time, the best peer and its time."""
    times = medians(row)
    ours = times.pop("gradring")
    best = min(times, key=lambda name: times[name])
    return ours, best, times[best]


def step_rows(suffix: str = "") -> list[dict[str, Any]]:
    """The races of steps, and of epochs where there is a file of them."""
    names = [f"{race}{suffix}" for race in ("step", "fit")]
    return [row for name in names if (RESULTS / f"{name}.json").exists() for row in results(name)["rows"]]


def layers(case: str) -> str:
    """A case of a race as a reader says it."""
    said = re.sub(r"([\d-]+) batch (\d+)", r"MLP \1, batch \2", case)
    return re.sub(r"^fit, (.*), (\d+) rows: a step$", r"`fit`, \1, \2 rows, per step", said)


def sentence() -> str:
    """The README's measurable sentence."""
    ours, best, theirs = raced(results("step")["rows"][0])
    return (
        "gradring trains neural networks straight from NumPy arrays, natively: a training step of an MLP 64-32-10 takes\n"
        f"{duration(ours)}, {theirs / ours:.1f} times less than the fastest of PyTorch, JAX, nn-engine-core and NumPy written "
        "by hand in the same run\n"
        f"({peer_name(best)}; two cores, `gradring bench step`)."
    )


def small_table() -> str:
    """Six rows, the losses among them."""
    head = ["| work | gradring | best peer | ratio | measured by |", "|---|---|---|---|---|"]

    def line(work: str, ours: float, peer: str, theirs: float, command: str) -> None:
        head.append(
            f"| {work} | {duration(ours)} | {duration(theirs)}, {peer} | {ratio(theirs / ours)} | `gradring bench {command}` |"
        )

    steps = results("step")["rows"]
    for row in (steps[0], steps[2]):
        ours, best, theirs = raced(row)
        line(f"training step, {layers(row['case']['name'])}", ours, peer_name(best), theirs, "step")
    row = results("fit")["rows"][0]
    ours, best, theirs = raced(row)
    line(f"`fit`, {row['case']['name']}", ours, peer_name(best), theirs, "fit")
    products = [row for row in results("gemm")["rows"] if row["case"]["parameters"]["op"] == "matmul"]
    worst = min(products, key=lambda row: float(row["ratio"]))
    mean = math.exp(statistics.fmean(math.log(row["ratio"]) for row in products))
    size = worst["case"]["parameters"]
    ours, best, theirs = raced(worst)
    line(
        f"the worst of {len(products)} matrix products, {size['m']}×{size['k']} by {size['k']}×{size['n']} (mean: {mean:.2f}×)",
        ours,
        peer_name(best),
        theirs,
        "gemm --full",
    )
    row = next(row for row in results("loader")["rows"] if row["key"] == "scale64")
    times = {name: each["seconds"] for name, each in row["medians"].items() if not name.startswith("ceiling")}
    ours = times["gradring"]
    peers = {name: seconds for name, seconds in times.items() if not name.startswith("gradring")}
    best = min(peers, key=lambda name: peers[name])
    line("one pass over 60000×784 uint8, shuffled, scaled, batch 64", ours, peer_name(best), peers[best], "loader")
    row = next(row for row in results("allreduce")["rows"] if row["name"] == "1 MiB warm")
    middle = {name: times[1] for name, times in row["p10_p50_p90"].items()}
    peers = {name: seconds for name, seconds in middle.items() if not name.startswith("gradring")}
    best = min(peers, key=lambda name: peers[name])
    line(
        f"`all_reduce` of 1 MiB, ordinary arrays (in `comm.empty`: {peers[best] / middle['gradring']:.1f}×)",
        middle["gradring, NumPy arrays"],
        best.split(",")[0],
        peers[best],
        "allreduce",
    )
    return "\n".join(head)


def step_table(suffix: str = "") -> str:
    """All steps and the epoch, of the files of results whose names end so. Only the file of steps must be there."""
    peak = results(f"step{suffix}")["peak_flops"]
    lines = [
        "| work | gradring | best peer | ratio | best of `torch.nn`, `torch.compile`, `jax.jit` | of FMA peak | spread |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in step_rows(suffix):
        ours, best, theirs = raced(row)
        usual = min(seconds for name, seconds in medians(row).items() if name in ("torch", "torch.compile", "jax"))
        low, middle, high = statistics.quantiles(row["seconds"]["gradring"], n=4)
        part = f"{100 * row['case']['flops'] / ours / peak:.0f} %" if row["case"]["flops"] else ""
        name = layers(row["case"]["name"])
        lines.append(
            f"| {name} | {duration(ours)} | {duration(theirs)}, {peer_name(best)} | {ratio(theirs / ours)} "
            f"| {usual / ours:.1f}× | {part} | {100 * (high - low) / middle:.0f} % |"
        )
    return "\n".join(lines)


def steps_on_intel() -> str:
    """The steps on an Intel server, and where they were measured."""
    return f"{machine_of(results('step_intel'))}\n\n{step_table('_intel')}"


PRODUCTS = {
    "gemm_intel": "float32, multiply-adds",
    "gemm_float64_intel": "float64, multiply-adds",
    "gemm_pieces3_intel": 'float32, `"pieces3"`',
    "gemm_pieces2_intel": 'float32, `"pieces2"`',
    "gemm_bfloat16_intel": "bfloat16",
}


def products_on_intel() -> str:
    """One line for each race of products on an Intel server of which there is a file."""
    found = [name for name in PRODUCTS if (RESULTS / f"{name}.json").exists()]
    lines = [
        machine_of(results(found[0])),
        "",
        "| products | shapes | mean ratio | worst | slower than a peer | 2048³ | of the unit's peak | best peer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in found:
        about = results(name)
        rows = [row for row in about["rows"] if row["case"]["parameters"]["op"] == "matmul" and row["ratio"]]
        worst = min(rows, key=lambda row: float(row["ratio"]))
        mean = math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows))
        lost = sum(row["ratio"] < 1 for row in rows)
        large = next(row for row in rows if row["case"]["name"].startswith("2048x2048x2048"))
        ours, best, theirs = raced(large)
        rate, peers = (large["case"]["flops"] / seconds / 1e9 for seconds in (ours, theirs))
        lines.append(
            f"| {PRODUCTS[name]} | {len(rows)} | {ratio(mean)} | {ratio(worst['ratio'])}, {worst['case']['name']} | {lost} "
            f"| {rate:.0f} GFLOP/s | {100e9 * rate / about['peak_flops']:.0f} % | {peers:.0f}, {peer_name(best)} |"
        )
    return "\n".join(lines)


def pieces_on_intel() -> str:
    """Large products by pieces, and steps by them, against the best peer's float32."""
    lines = ["| work (m×n×k) | products | gradring | best peer, float32 | ratio |", "|---|---|---|---|---|"]
    files = ("gemm_pieces3_intel", "gemm_pieces2_intel", "step_pieces3_intel")
    for products, row in ((name.split("_")[1], row) for name in files for row in results(name)["rows"]):
        name, size, flops = (row["case"][key] for key in ("name", "parameters", "flops"))
        if "batch" in size or (size["op"] == "matmul" and name.endswith(" NN") and flops > 2e8):
            ours, best, theirs = raced(row)
            work = layers(name).replace("x", "×").removesuffix(" NN")
            times = f"{duration(ours)} | {duration(theirs)}, {peer_name(best)} | {ratio(theirs / ours)}"
            lines.append(f"| {work} | `{products}` | {times} |")
    return "\n".join(lines)


def machine() -> str:
    """The machine and the versions with which the steps were measured."""
    about = results("step")["machine"]
    versions = about["versions"]
    return (
        f"{about['usable_cores']} cores of an {about['cpu']} ({about['isa']}), {about['date']}; Python {versions['python']}, "
        "NumPy\n"
        f"{versions['numpy']}, PyTorch {versions['torch']}, JAX {versions['jax']}."
    )


def shape(kind: str, x: float, y: float, colour: str) -> str:
    """A mark of the chart."""
    r = 5
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y}" r="{r}" fill="{colour}"/>'
    if kind == "square":
        return f'<rect x="{x - r + 0.5:.1f}" y="{y - r + 0.5}" width="9" height="9" fill="{colour}"/>'
    corners = {
        "triangle": ((0, -r), (r, r - 1), (-r, r - 1)),
        "diamond": ((0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)),
    }
    if kind in corners:
        points = " ".join(f"{x + dx:.1f},{y + dy}" for dx, dy in corners[kind])
        return f'<polygon points="{points}" fill="{colour}"/>'
    strokes = f"M{x - 4:.1f} {y - 4}L{x + 4:.1f} {y + 4}M{x - 4:.1f} {y + 4}L{x + 4:.1f} {y - 4}"
    if kind == "plus":
        strokes = f"M{x - r:.1f} {y}H{x + r:.1f}M{x:.1f} {y - r}V{y + r}"
    return f'<path d="{strokes}" stroke="{colour}" stroke-width="2.5"/>'


def chart(width: int = 840) -> str:
    """Each peer's time beside gradring's, in a row per race and on a logarithmic axis. A narrow chart, for telephones, has the
    name of each race above its marks."""
    rows = step_rows()
    narrow = width < 600
    left, right, top, pitch = (20, 20, 66, 52) if narrow else (250, 24, 66, 34)
    legend, x, lines = [], 12.0, 0
    for name in (*(name for name, *_ in PEERS), "gradring"):
        if x + 17 + 7.2 * len(name) > width - 8:
            x, lines = 12.0, lines + 1
        legend.append((x, 43 + 20 * lines))
        x += 38 + 7.2 * len(name)
    top += 20 * lines
    bottom = top + pitch * len(rows)
    most = max(max(medians(row).values()) / medians(row)["gradring"] for row in rows)
    limit = math.log(most * 1.15)

    def place(times: float) -> float:
        return left + (width - left - right) * math.log(times) / limit

    height = bottom + (60 if narrow else 44)
    title = "Time of a training step, as a multiple of gradring's"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="DejaVu Sans,Helvetica,Arial,sans-serif" font-size="12" fill="#222">',
        f"<title>{title}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="14" font-weight="bold">{title.replace("training ", "") if narrow else title}</text>',
    ]
    for (name, colour, kind, _), (x, y) in zip(PEERS, legend, strict=False):  # the last place is gradring's
        parts += [shape(kind, x + 6, y, colour), f'<text x="{x + 17:.0f}" y="{y + 4}">{name}</text>']
    x, y = legend[-1]
    parts += [
        f'<rect x="{x + 1:.0f}" y="{y - 7}" width="3" height="14" fill="#c8102e"/>',
        f'<text x="{x + 12:.0f}" y="{y + 4}">gradring</text>',
    ]
    for tick in (1, 2, 5, 10, 20, 50, 100):
        if math.log(tick) <= limit:
            at = place(tick)
            colour, thick = ("#c8102e", 3) if tick == 1 else ("#ddd", 1)
            parts.append(f'<path d="M{at:.1f} {top - 6}V{bottom}" stroke="{colour}" stroke-width="{thick}"/>')
            parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{tick}×</text>')
    for number, row in enumerate(rows):
        y = top + pitch * number + pitch // 2 - 3
        times = medians(row)
        ours = times["gradring"]
        name = layers(row["case"]["name"])
        if "`" in name:  # there is no room for all of it
            name = re.sub(r"`|MLP |, per step|batch |, \d+ rows", "", name)
        own = f"gradring: {duration(ours)}"
        if narrow:
            y -= 14
            parts.append(f'<text x="28" y="{y}">{name} <tspan font-size="11" fill="#666">{own}</tspan></text>')
            y += 15
        else:
            parts.append(f'<text x="12" y="{y}">{name}</text>')
            parts.append(f'<text x="12" y="{y + 14}" font-size="11" fill="#666">{own}</text>')
        for _, colour, kind, contenders in PEERS:
            found = [times[each] for each in contenders if each in times]
            if found:
                parts.append(shape(kind, place(min(found) / ours), y + 3, colour))
    said = "Logarithmic; left is faster; each at its better of one and two threads."
    drawn = "Drawn by scripts/draw_figures.py from benchmarks/results."
    for number, text in enumerate((said, drawn) if narrow else (f"{said} {drawn}",)):
        parts.append(f'<text x="12" y="{bottom + 36 + 15 * number}" font-size="11" fill="#666">{text}</text>')
    return "\n".join([*parts, "</svg>", ""])


def all_reduce_table(file: str) -> str:
    """The race of all_reduce: our times, and the peers' as multiples of them."""
    about = results(file)
    near, far = (duration(seconds) for seconds in about["core_round_trips"])
    trips = f"{near.split()[0]} to {far}" if near.split()[1] == far.split()[1] else f"{near} to {far}"
    lines = [
        f"Measured on {about['machine']['date']} on two cores of an {about['machine']['cpu']}, between which a word's round "
        f"trip took {trips}, at a load average of {about['machine']['load_average']:.1f} before the race.",
        "",
        "| work | gradring, from Python | native | staged | best MPI | ratio | against gloo | staged, ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in about["rows"]:
        middle = {name: times[1] for name, times in row["p10_p50_p90"].items()}
        ours, staged = middle["gradring"], middle["gradring, NumPy arrays"]
        mpi = min((name for name in middle if "MPI" in name), key=lambda name: middle[name])
        native = duration(row["native"][1]) if row["native"] else ""
        bound = f", {100 * row['bound'] / ours:.0f} % of the bound" if row["bound"] else ""
        ratios = f"{ratio(middle[mpi] / ours)} | {middle['gloo'] / ours:.1f}× | {ratio(middle[mpi] / staged)}"
        lines.append(
            f"| {row['name']} | {duration(ours)}{bound} | {native} | {duration(staged)} | {duration(middle[mpi])}, "
            f"{mpi.split(',')[0].split(' of ')[0]} | {ratios} |"
        )
    return "\n".join(lines)


# The race of loaders as the table shows it: the row, what the work is called, and the peers or limits beside it, by the
# beginnings of their names. A limit gives a percentage, a peer a ratio.
LOADER_ROWS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "scale64",
        "60000×784 uint8 → float32, scaled, shuffled, batch 64",
        (("turboloader", "turboloader"), ("numpy", "NumPy"), ("torch", "DataLoader at its best"), ("spdl", "SPDL")),
    ),
    (
        "scale512",
        "the same, batch 512",
        (("turboloader", "turboloader"), ("numpy", "NumPy"), ("torch", "DataLoader at its best"), ("spdl", "SPDL")),
    ),
    (
        "rows",
        "rows of 3×224×224 uint8, shuffled, batch 64",
        (("turboloader", "turboloader"), ("ceiling: gather", "a gather")),
    ),
    ("warm", "the same from a file, warm", (("turboloader", "turboloader"), ("ceiling: pread", "plain reads"))),
    ("cold", "the same from a file, cold", (("numpy", "NumPy"), ("ceiling: pread", "plain reads"))),
    ("augment", "crop, flip, normalize 32×32×3, batch 128", (("torch", "batched PyTorch at its best"),)),
    ("process2", "worker processes, batches of 2 MiB", (("spdl", "SPDL"), ("torch", "DataLoader at its best"))),
    ("process8", "the same, 8 MiB", (("spdl", "SPDL"), ("torch", "DataLoader at its best"))),
    ("process32", "the same, 32 MiB", (("spdl", "SPDL"), ("torch", "DataLoader at its best"))),
    (
        "first",
        "first batch, 2 worker processes, 64 MB of objects",
        (
            ("torch samples, 2 forked", "DataLoader, forked"),
            ("spdl", "SPDL"),
            ("torch samples, 2 spawned", "DataLoader, spawned"),
        ),
    ),
    ("handoff", "hand-off of a ready batch, median", (("spdl", "SPDL"), ("torch", "DataLoader"))),
)


def loader_table() -> str:
    """The race of loaders: our loader as it tunes itself, and each peer at its best."""
    lines = ["| work | gradring | processor time | memory | against | ratio |", "|---|---|---|---|---|---|"]
    races = {row["key"]: row["medians"] for row in results("loader")["rows"]}
    for key, work, peers in LOADER_ROWS:
        medians = races[key]
        ours = medians["gradring"]
        cells = f"{work} | {duration(ours['seconds'])}"
        used = duration(ours["cpu_seconds"]) if "cpu_seconds" in ours else ""
        memory = f"{ours['memory_bytes'] / 2**20:.0f} MiB" if "memory_bytes" in ours else ""
        for begin, name in peers:
            theirs = min(times["seconds"] for contender, times in medians.items() if contender.startswith(begin))
            against = (
                f"{100 * theirs / ours['seconds']:.0f} %" if "ceiling" in begin else ratio(theirs / ours["seconds"])
            )
            lines.append(f"| {cells} | {used} | {memory} | {name}, {duration(theirs)} | {against} |")
            cells, used, memory = " | ", "", ""
    beside = races["slowdown"]["gradring"]
    lines.append(f"| slowdown of `fit` while the loader keeps up | {100 * beside['slowdown']:.1f} % | | | | |")
    return "\n".join(lines)


def machine_of(about: Mapping[str, Any]) -> str:
    """Where and when one file of results was measured."""
    where = about["machine"]
    return (
        f"Measured on {where['date']} on two cores of an {where['cpu']}, at a load average of {where['load_average']:.1f} "
        "before the race."
    )


def data_parallel_tables() -> str:
    """The race of data-parallel steps, and what it measures in addition."""
    about = results("dp")
    ours, others = about["ours"], about["others"]

    def against(name: str, seconds: float) -> str:
        times = (others[name].get(f"gradring, {way}") for way in ("1 rank of 2 threads", "2 replicas"))
        return " | ".join(f"{statistics.median(each) / seconds:.2f}×" if each else "" for each in times)

    lines = [
        machine_of(about),
        "",
        "| step of two processes | time | processors | DDP, best | JAX | over one process of 2 threads | over 2 replicas |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in about["rows"]:
        times = {name: statistics.median(seconds) for name, seconds in row["seconds"].items()}
        mine, name = times[ours], row["case"]["name"]
        ddp = min(seconds for peer, seconds in times.items() if "DDP" in peer)
        jax = next(seconds for peer, seconds in times.items() if "jax" in peer)
        lines.append(
            f"| {name} | {duration(mine)} | {duration(row['cpu_seconds'][ours])} | {duration(ddp)}, {ratio(ddp / mine)} | "
            f"{duration(jax)}, {ratio(jax / mine)} | {against(name, mine)} |"
        )
    custom = next(name for name in others if "NumPy function" in name)
    mine = statistics.median(others[custom][ours])
    lines += [f"| {custom} | {duration(mine)} |  |  |  | {against(custom, mine)} |", ""]
    lines += [
        "| update alone, AdamW, 2 ranks | gradring | all_reduce, then AdamW on each rank | ratio |",
        "|---|---|---|---|",
    ]
    for row in others["reduce and update"]:
        mine, other = row["seconds"], row["all_reduce then AdamW"]
        count = f"{row['parameters'] / 1e6:.0f} M parameters"
        lines.append(f"| {count} | {duration(mine)} | {duration(other)} | {ratio(other / mine)} |")
    lines += [
        "",
        "| memory of two ranks, 20 M parameters | bytes | numbers per parameter | ours |",
        "|---|---|---|---|",
    ]
    for row in others["memory"]:
        share = "" if row["contender"] == "gradring" else f"{others['memory'][0]['bytes'] / row['bytes']:.2f}×"
        size = f"{row['bytes'] / 1e6:.0f} MB"
        lines.append(f"| {row['contender']} | {size} | {row['numbers per parameter']:.1f} | {share} |")
    lines += [
        "",
        "| ranks on two cores | step | processors | compute | reduction | update | meetings | gradients read per rank |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in others["growth"]:
        parts = " | ".join(duration(row["parts"][part]) for part in ("compute", "reduction", "update"))
        network = "-".join(map(str, row["sizes"]))
        lines.append(
            f"| {row['ranks']}, {network} | {duration(row['seconds'])} | {duration(row['cpu_seconds'])} | {parts} | "
            f"{row['meetings']} | {row['bytes'] / 1e6:.2f} MB |"
        )
    return "\n".join(lines)


def data_parallel_summary(file: str) -> str:
    """One line for each ratio in the race of data-parallel steps."""
    about = results(file)
    ours, others = about["ours"], about["others"]
    lines = [
        machine_of(about),
        "",
        "| work of two processes | time | against | their time | ratio |",
        "|---|---|---|---|---|",
    ]

    def line(work: str, mine: float, name: str, theirs: float) -> None:
        lines.append(f"| {work} | {duration(mine)} | {name} | {duration(theirs)} | {ratio(theirs / mine)} |")

    races = {row["case"]["name"]: row["seconds"] for row in about["rows"]}
    for work, ways in ((name, others[name]) for name in others if isinstance(others[name], dict)):
        mine = statistics.median(ways[ours])
        for name, seconds in (races.get(work, {}) | ways).items():
            if name != ours and "default" not in name:
                line(work, mine, peer_name(name), statistics.median(seconds))
    for row in others["reduce and update"]:
        work = f"update alone, {row['parameters'] / 1e6:.0f} M parameters"
        line(work, row["seconds"], "all_reduce, then AdamW on each rank", row["all_reduce then AdamW"])
    mine, *peers = others["memory"]
    for row in peers:
        size = [f"{each['bytes'] / 1e6:.0f} MB" for each in (mine, row)]
        share = f"{mine['bytes'] / row['bytes']:.2f}× as much"
        lines.append(f"| memory, 20 M parameters | {size[0]} | {peer_name(row['contender'])} | {size[1]} | {share} |")
    return "\n".join(lines)


def asynchronous_table() -> str:
    """The time to a loss in each way of updating."""
    about = results("asynchronous")
    works = about["works"]
    heads = [f"{name}, to a loss of {work['target']:.4g}" for name, work in works.items()]
    lines = [
        machine_of(about),
        "",
        f"| way | {' | '.join(heads)} |",
        "|---|" + "---|" * len(works),
    ]
    for way in next(iter(works.values()))["seconds_to_target"]:
        times = " | ".join(duration(work["seconds_to_target"][way]) for work in works.values())
        lines.append(f"| {way} | {times} |")
    return "\n".join(lines)


def installing() -> str:
    """How long the README's first command takes, where scripts/measure_install.py has measured it."""
    if not (RESULTS / "install.json").exists():
        return "compiles for a few minutes"
    about = results("install")
    minutes = sum(about["seconds"].values()) / 60
    return f"{minutes:.0f} minutes on {about['processors']} cores"


BLOCKS: dict[str, Callable[[], str]] = {
    "loader": loader_table,
    "all_reduce": lambda: all_reduce_table("allreduce"),
    "all_reduce on Intel": lambda: all_reduce_table("allreduce_intel"),
    "sentence": sentence,
    "six rows": small_table,
    "steps": step_table,
    "steps on Intel": steps_on_intel,
    "products on Intel": products_on_intel,
    "pieces on Intel": pieces_on_intel,
    "machine": machine,
    "data parallel": data_parallel_tables,
    "data parallel on Intel": lambda: data_parallel_summary("dp_intel"),
    "asynchronous": asynchronous_table,
}


def filled(text: str) -> str:
    """The text with every block between markers, and the time of the first command, written anew."""

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}"

    text = re.sub(r"(&& gradring train digits +# )[^\n]*", rf"\g<1>{installing()}", text)
    return re.sub(r"(<!-- begin ([\w ]+): [^\n]*-->\n).*?(<!-- end \2 -->)", replace, text, flags=re.DOTALL)


def description(readme: str) -> str:
    """The README for a package index: without the picture and without comments."""
    text = re.sub(r"<img [^>]*>\n\n?", "", readme)
    return re.sub(r"<!--.*?-->\n", "", text)


def main() -> int:
    """Writes the files, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file differs")
    arguments = parser.parse_args()
    texts = {path: filled((ROOT / path).read_text(encoding="utf-8")) for path in PAGES}
    texts["docs/description.md"] = description(texts["README.md"])
    texts["docs/assets/steps.svg"] = chart()
    texts["docs/assets/steps-narrow.svg"] = chart(400)
    stale = []
    for name, text in texts.items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not arguments.check:
                path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name} {'is not what benchmarks/results say' if arguments.check else 'written'}")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
