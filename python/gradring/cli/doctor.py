"""``gradring doctor``: what this machine offers, what is turned off, and how to turn it on."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import resource
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Finding", "add_to", "examine"]


class Finding(NamedTuple):
    """One line of the report. ``good`` is None for a fact that is neither good nor bad."""

    topic: str
    good: bool | None
    value: str
    advice: str = ""


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "doctor", help="what is off on this machine, and how to turn it on", description=__doc__
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings. The exit status is always 0, because everything that may be missing is optional."""
    findings = list(examine())
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        mark = {True: "ok ", False: "off", None: "   "}[finding.good]
        print(f"{mark} {finding.topic:<{width}}  {finding.value}")
        if finding.advice:
            print(f"    {'':<{width}}  -> {finding.advice}")
    return 0


def examine() -> Iterator[Finding]:
    """All findings, topic by topic."""
    for check in (_build, _cpu, _cores, _load, _memory, _pages, _limits, _libraries, _gpu, _data):
        yield from check()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _build() -> Iterator[Finding]:
    from gradring import __version__, _core

    kind = _core.build_type
    advice = (
        ""
        if kind == "Release"
        else "this build is slow; install again without --editable, or with CMAKE_BUILD_TYPE=Release"
    )
    yield Finding(
        "gradring", kind == "Release", f"{__version__}, {kind} build, Python {platform.python_version()}", advice
    )


_TILE_UNIT_ADVICE = {
    "refused": "the system refuses arch_prctl(ARCH_REQ_XCOMP_PERM, 18): a thread had a signal stack (sigaltstack) of "
    "less than AT_MINSIGSTKSZ (about 12 KiB), which must be larger; or a sandbox's rules forbid the call; "
    "or Linux is older than 5.16",
    "wrong": "its sums are not those of the definition, as an emulator's may be; products use gradring's own emulation",
    "switched off": "GRADRING_ISA names a level without it; unset it, or set it to amx",
}


def _cpu() -> Iterator[Finding]:
    from gradring import _core
    from gradring.bench.machine import cpu_model

    yield Finding("CPU", None, f"{cpu_model()}, {platform.machine()}")
    detected, active = _core.detected_isa(), _core.active_isa()
    if active != detected:
        value, advice = f"{active}, though the CPU has {detected}", "GRADRING_ISA asks for less; unset it"
    else:
        value, advice = active, ""
    yield Finding("instructions", active == detected, value, advice)
    unit = _core.tile_unit()
    if unit != "absent":
        rate = _core.tile_unit_advantage() if unit == "permitted" else 0.0
        if unit == "permitted" and not rate:
            unit = "wrong"
        shown = f"{unit}, {rate:.1f} times the multiply-add rate" if rate else unit
        yield Finding("tile unit (AMX)", rate > 0, shown, _TILE_UNIT_ADVICE.get(unit, ""))
    rate = _core.dot_advantage()
    if rate:
        ways = {"tiles": "the tile unit", "dots": "it", "widened": "multiply-adds"}
        uses = f"products of bfloat16 use {ways[_core.bf16_way()]}"
        yield Finding("vdpbf16ps (AVX512_BF16)", None, f"{rate:.1f} times the multiply-add rate; {uses}")
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor:
        advice = "" if governor == "performance" else "for steady timings: cpupower frequency-set -g performance"
        yield Finding("frequency governor", None, governor, advice)


def _cores() -> Iterator[Finding]:
    from gradring import _core

    machine, allowed, used = os.cpu_count() or 1, len(os.sched_getaffinity(0)), _core.usable_cores()
    value, advice = f"{used} of the machine's {machine}", ""
    if used < machine:
        why = (
            "the affinity mask (taskset, cpuset)"
            if allowed < machine and allowed <= used
            else "the control group's CPU quota"
        )
        value += f", limited by {why}"
        advice = "gradring uses these; widen that limit to use more"
    yield Finding("cores", used == machine, value, advice)


def _load() -> Iterator[Finding]:
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    busy = load > 0.5 * cores
    yield Finding(
        "load", not busy, f"{load:.1f} on {cores} cores", "other work slows training and benchmarks" if busy else ""
    )


def _memory() -> Iterator[Finding]:
    info = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    sizes = {name: int(value.split()[0]) * 1024 for name, value in info.items() if value.strip().endswith("kB")}
    if "MemTotal" in sizes:
        yield Finding("memory", None, f"{_gib(sizes.get('MemAvailable', 0))} free of {_gib(sizes['MemTotal'])}")
    limit = _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    if limit.isdigit() and int(limit) < sizes.get("MemTotal", 2**62):
        yield Finding("memory limit", None, f"{_gib(int(limit))} by the control group")


def _pages() -> Iterator[Finding]:
    modes = _read("/sys/kernel/mm/transparent_hugepage/enabled")
    if modes:
        mode = modes.partition("[")[2].partition("]")[0]
        advice = "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" if mode == "never" else ""
        yield Finding("huge pages", mode != "never", mode, advice)
    modes = _read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    if modes:
        yield Finding("huge pages, shared", None, modes.partition("[")[2].partition("]")[0])
    from gradring import _core

    support = _core.huge_page_support()
    good = support == "collapsed"
    advice = "" if good else "arrays of comm.empty use small pages, which is slower; Linux 6.1 or newer can do better"
    yield Finding("huge pages, on demand", good, support, advice)


def _limits() -> Iterator[Finding]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    advice = "raise it for many trainers or loaders: ulimit -n 4096" if 0 <= files < 1024 else ""
    yield Finding("open files", not advice, "unlimited" if files < 0 else str(files), advice)
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    yield Finding("locked memory", None, "unlimited" if locked < 0 else f"{locked // 1024} KiB")
    for name in sorted(os.environ):
        if name.startswith("GRADRING_") or name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            note = "" if name.startswith("GRADRING_") else " (gradring does not read it)"
            yield Finding("environment", None, f"{name}={os.environ[name]}{note}")


def _libraries() -> Iterator[Finding]:
    uses = {"numpy": "", "ml_dtypes": "bfloat16", "tqdm": "the progress bar", "matplotlib": "History.plot"}
    for name, use in uses.items():
        version = _version(name)
        advice = "" if version else f"pip install {name}" + (f", for {use}" if use else "")
        yield Finding(name, bool(version), version or "not installed", advice)
    peers = [f"{name} {_version(name)}" for name in ("torch", "jax", "cupy", "mpi4py", "safetensors") if _version(name)]
    yield Finding("peers", None, ", ".join(peers) or "none (optional)")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _gpu() -> Iterator[Finding]:
    from gradring import cuda_devices

    driver = _read("/proc/driver/nvidia/version").partition("\n")[0]
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        advice = "" if not driver else "the kernel module is loaded, its library libcuda.so.1 is not found: install it"
        yield Finding("GPU", None, driver or "no NVIDIA driver; training uses the CPU", advice)
    else:
        count = ctypes.c_int(0)
        failed = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
        if failed:
            yield Finding("GPU", False, f"the driver answers with error {failed}", "see whether nvidia-smi works")
        else:
            yield Finding("GPU", None, f"{count.value} found; this version trains on the CPU")
    found = cuda_devices.obstacle()
    if found is not None:
        yield Finding("CUDA", None, found.what, found.fix)
        if not found.what.startswith(cuda_devices.NOT_BUILT):
            yield _cublas(None)
        return
    report = cuda_devices.report() or {}
    kind = "software device, for tests" if report["software"] else f"runtime {report['runtime_version']}"
    yield Finding("CUDA", True, f"{kind}, driver {report['driver_version']}")
    for number, device in enumerate(report["devices"]):
        major, minor = device["capability"]
        text = f"{device['name']}, sm_{major}{minor}, {device['processors']} processors, {_gib(device['bytes'])}"
        yield Finding(f"cuda:{number}", None, text)
    yield _cublas(False)


def _cublas(missing: bool | None) -> Finding:
    """The library of matrix products. ``missing``: what it means that there is none."""
    from gradring import cuda_libraries
    from gradring.errors import DeviceUnavailable

    try:
        library = cuda_libraries.cublaslt("doctor")
    except DeviceUnavailable as error:
        what, _, fix = str(error).removeprefix("[doctor] ").rpartition("; ")
        return Finding("cuBLASLt", missing, what, fix)
    return Finding("cuBLASLt", True, f"{library.version}, {library.path}")


def _data() -> Iterator[Finding]:
    from gradring.datasets.fashion_mnist import SYSTEM_FOLDER

    found = SYSTEM_FOLDER.is_dir()
    yield Finding(
        "Fashion-MNIST",
        found,
        str(SYSTEM_FOLDER) if found else "not found",
        "" if found else "apt install dataset-fashion-mnist",
    )
