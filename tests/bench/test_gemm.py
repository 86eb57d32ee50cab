"""The race of products: its cases, the error beside the times, and other dtypes than float32."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import gradring as gr
from gradring import _core
from gradring.bench import contender, gemm, step
from gradring.bench.gemm_contenders import error_of, layer, operands
from gradring.bench.peers import contenders, read_peers
from gradring.bench.report import library

FACTORIES = {"gradring": f"{gemm.MODULE}:ours", **gemm.PEERS}
HALF = {"dtype": "bfloat16"}
LEAST = {"float32": 1e-6, "float64": 1e-15, "bfloat16": 2**-8}  # below this, the error of a product is one of rounding


def cases(how):
    found = [gemm.matmul_case(5, 7, 33, *flags, how=how) for flags in gemm.FLAGS]
    return [*found, *gemm.layer_cases(5, 7, 6, how)]


@pytest.fixture(autouse=True)
def gradients_as_before():
    """A contender has a process of its own, and may switch PyTorch's gradients off there. Here it may not."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)


@pytest.mark.parametrize("dtype", LEAST)
@pytest.mark.parametrize("name", FACTORIES)
def test_every_contender_computes_the_same(name, dtype, monkeypatch):
    pytest.importorskip("ml_dtypes")
    if name == "torch":
        pytest.importorskip("torch")
    monkeypatch.setenv("GRADRING_BENCH_THREADS", "1")
    for case in cases(gemm.how_text(dtype, "fma")):
        result = contender.load(FACTORIES[name])(case.parameters)()
        error = error_of(case.parameters, result)
        if case.parameters["op"] == "matmul":
            assert error is not None and 0 < error < LEAST[dtype]
        else:
            assert error is None


@pytest.mark.parametrize("dtype", LEAST)
@pytest.mark.parametrize("name", FACTORIES)
def test_every_contender_computes_all_results_of_a_layer(name, dtype, monkeypatch):
    pytest.importorskip("ml_dtypes")
    if name == "torch":
        pytest.importorskip("torch")
    monkeypatch.setenv("GRADRING_BENCH_THREADS", "1")
    for case in gemm.layer_cases(5, 7, 6, gemm.how_text(dtype, "fma")):
        given = {key: np.asarray(array, np.float64) for key, array in layer(case.parameters).items()}
        x, w, b, dy, pre = (given[key] for key in ("x", "w", "b", "dy", "pre"))
        root = (2 / np.pi) ** 0.5

        def gelu(z, root=root):
            return 0.5 * z * (1 + np.tanh(root * (z + 0.044715 * z**3)))

        slope = dy * (gelu(pre + 1e-5) - gelu(pre - 1e-5)) / 2e-5
        forward = case.parameters["op"] == "linear"
        expected = (gelu(x @ w + b),) if forward else (slope @ w.T, x.T @ slope, slope.sum(0))
        result = contender.load(FACTORIES[name])(case.parameters)()
        results = result if isinstance(result, (tuple, list)) else (result,)
        assert len(results) == len(expected)
        for got, want in zip(results, expected, strict=True):
            torch_dtype = str(got.dtype).removeprefix("torch.") if hasattr(got, "detach") else dtype
            got = np.asarray(got.detach().double().numpy() if hasattr(got, "detach") else got)
            assert torch_dtype == dtype and got.dtype == (np.float64 if name == "torch" else dtype)
            assert np.abs(got.astype(np.float64) - want).max() < {"bfloat16": 0.05, "float32": 1e-4, "float64": 1e-8}[dtype]


def test_the_error_is_that_of_the_worst_element():
    pytest.importorskip("ml_dtypes")
    case = gemm.matmul_case(70, 80, 20, True, False, how=HALF).parameters
    a, b = (array.astype(np.float64) for array in operands(case))
    exact = a.T @ b
    assert error_of(case, exact) == 0
    exact[69, 79] += 0.25 * (np.abs(a.T) @ np.abs(b))[69, 79]
    assert error_of(case, exact) == pytest.approx(0.25)
    exact[0, 0] = np.nan
    assert not error_of(case, exact) < 1


def test_cases_count_their_bytes_and_say_how_they_multiply():
    plain, half = gemm.matmul_case(3, 4, 5, False, True), gemm.matmul_case(3, 4, 5, False, True, how=HALF)
    assert plain.bytes == 2 * half.bytes == 4 * (15 + 20 + 12)
    assert plain.name == half.name == "3x4x5 NT"
    assert "dtype" not in plain.parameters and half.parameters["dtype"] == "bfloat16"
    assert gemm.matmul_case(3, 4, 5, False, True, how={"dtype": "float64"}).bytes == 2 * plain.bytes
    assert len(gemm.cases(full=True, how=HALF)) == len(gemm.cases(full=True)) == 1176 + 1 + 8


def test_a_number_of_threads_gives_each_peer_one_contender():
    found = contenders(gemm.PEERS, {}, read_peers(None), count=3)
    assert [(each.name, each.threads) for each in found] == [("numpy 3", 3), ("torch 3", 3)]
    assert {library(each.name) for each in found} == {"numpy", "torch"}
    assert library("torch all") == "torch" and library("gradring") == "gradring"


def test_choices_that_cannot_be_run_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"--products pieces3 is a way to multiply float32: --dtype is bfloat16"):
        gemm.check_how("bfloat16", "pieces3")
    with pytest.raises(ValueError, match=r"--products pieces2 is a way to multiply float32: --dtype is float64"):
        gemm.check_how("float64", "pieces2")
    with pytest.raises(ValueError, match=r"--dtype float64 belongs to gemm, got step"):
        step.run(dtype="float64")
    with pytest.raises(ValueError, match=r"--dtype float16 belongs to step, got gemm"):
        gemm.run(dtype="float16")
    gemm.check_how("float64", "fma")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    gemm.check_how("float32", "pieces2")
    gemm.check_how("float16", "fma")
    with pytest.raises(ImportError, match="needs the package ml_dtypes"):
        gemm.check_how("bfloat16", "fma")


def test_the_reply_of_a_contender_has_the_error():
    pytest.importorskip("ml_dtypes")
    request = {"do": "prepare", "min_seconds": 1e-5, "agree_calls": 0, "check": f"{gemm.MODULE}:error_of"}
    numpy = contender.load(FACTORIES["numpy"])
    product, layer = (case.parameters for case in (cases(HALF)[0], cases(HALF)[-1]))
    reply = contender.answer(numpy, {}, {**request, "case": product})
    assert 0 < reply["error_of_result"] < 2**-8 and reply["first"] == []
    assert "error_of_result" not in contender.answer(numpy, {}, {**request, "case": layer})
    assert "error_of_result" not in contender.answer(numpy, {}, {**request, "case": product, "check": ""})


@pytest.mark.parametrize(
    ("dtype", "products", "tiles", "way", "unit", "peak"),
    [
        ("float32", "fma", 600.0, "tiles", "fp32 multiply-adds on 2 threads", 90.0),
        ("float32", "pieces3", 600.0, "tiles", "divided by the 6 products", 100.0),
        ("float32", "pieces2", 600.0, "tiles", "divided by the 3 products", 200.0),
        ("bfloat16", "fma", 600.0, "tiles", "the tile unit's bf16 products on 2 threads", 600.0),
        ("float32", "pieces3", 0.0, "dots", "fp32 multiply-adds on 2 threads", 90.0),
        ("bfloat16", "fma", 0.0, "dots", "vdpbf16ps on 2 threads", 170.0),
        ("bfloat16", "fma", 0.0, "widened", "fp32 multiply-adds on 2 threads", 90.0),
        ("float16", "fma", 600.0, "tiles", "fp32 multiply-adds on 2 threads", 90.0),
        ("float64", "fma", 600.0, "tiles", "fp64 multiply-adds on 2 threads", 45.0),
    ],
)
def test_the_measured_peak_is_that_of_the_unit_which_multiplies(monkeypatch, dtype, products, tiles, way, unit, peak):
    asked = []

    def measure(dots=False):
        asked.append(gr.get_num_threads())
        return 170.0 if dots else tiles

    monkeypatch.setattr(_core, "measure_tile_flops", measure)
    monkeypatch.setattr(_core, "bf16_way", lambda: way)
    peaks = {False: 90.0, True: 45.0}
    monkeypatch.setattr(_core, "measure_peak_flops", lambda wide=False: asked.append(gr.get_num_threads()) or peaks[wide])
    before = gr.get_num_threads()
    name, rate = gemm.measured_peak(dtype, products, 2)
    assert unit in name and rate == peak
    assert set(asked) == {2} and gr.get_num_threads() == before


def test_the_measured_peak_is_a_rate():
    for dtype, unit in (("float32", "fp32"), ("float64", "fp64")):
        name, rate = gemm.measured_peak(dtype, "fma", 1)
        assert name == f"{unit} multiply-adds on 1 thread" and 1e8 < rate < 1e13
    name, rate = gemm.measured_peak("bfloat16", "fma", 1)
    assert name.endswith("on 1 thread") and 1e8 < rate < 1e14
    by_dots = _core.bf16_way() == "dots"
    assert ("vdpbf16ps" in name) == by_dots
    assert ("tile unit" in name) == (_core.tile_unit_advantage() > 0 and not by_dots)
