import sys
import types

import pytest

from gradring import _core
from gradring.cli import main


@pytest.mark.parametrize("name", ["gemm", "step", "fit"])
def test_options_reach_the_benchmark(name, monkeypatch, tmp_path):
    calls = []
    fake = types.ModuleType(f"gradring.bench.{name}")
    fake.run = lambda **options: calls.append(options)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(_core, "build_type", "Release")
    assert main(["bench", name]) == 0
    assert main(["bench", name, "--rounds", "3", "--out", str(tmp_path / "r.json")]) == 0
    assert calls == [{"out": None}, {"rounds": 3, "out": tmp_path / "r.json"}]


def test_every_benchmark_exists():
    from importlib import import_module

    from gradring.cli.bench import _BENCHMARKS

    for name in _BENCHMARKS:
        assert callable(import_module(f"gradring.bench.{name}").run)


def test_a_slow_build_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(_core, "build_type", "Debug")
    assert main(["bench", "step"]) == 1
    assert "Debug build" in capsys.readouterr().err


def test_bad_rounds(monkeypatch, capsys):
    monkeypatch.setattr(_core, "build_type", "Release")
    assert main(["bench", "step", "--rounds", "0"]) == 1
    assert "--rounds must be at least 1, got 0" in capsys.readouterr().err


def test_the_grid_of_products(monkeypatch, capsys):
    calls = []
    fake = types.ModuleType("gradring.bench.gemm")
    fake.run = lambda **options: calls.append(options)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(_core, "build_type", "Release")
    assert main(["bench", "gemm", "--full"]) == 0
    assert main(["bench", "gemm", "--sample", "7"]) == 0
    assert calls == [{"out": None, "full": True}, {"out": None, "sample": 7}]
    assert main(["bench", "step", "--full"]) == 1
    assert "--full belongs to gemm, got step" in capsys.readouterr().err
    assert main(["bench", "gemm", "--sample", "0"]) == 1
    assert "--sample must be at least 1, got 0" in capsys.readouterr().err


def test_each_option_belongs_to_some_benchmarks(monkeypatch, capsys, tmp_path):
    calls = []
    for name in ("gemm", "step", "fit", "loader"):
        fake = types.ModuleType(f"gradring.bench.{name}")
        fake.run = lambda **options: calls.append(options)
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(_core, "build_type", "Release")
    assert main(["bench", "gemm", "--shard", "2/4", "--add"]) == 0
    assert main(["bench", "loader", "--only", "scale64", "scale512"]) == 0
    assert main(["bench", "fit", "--peers", "JAX", "--peers-from", str(tmp_path)]) == 0
    assert calls == [
        {"out": None, "shard": (2, 4), "add": True},
        {"out": None, "only": ["scale64", "scale512"]},
        {"out": None, "peers": ["JAX"], "peers_from": tmp_path},
    ]
    for command in (["step", "--only", "scale64"], ["fit", "--shard", "1/2"]):
        assert main(["bench", *command]) == 1
        assert f"{command[1]} belongs to" in capsys.readouterr().err
    for shard in ("0/2", "3/2", "2", "a/b"):
        assert main(["bench", "gemm", "--shard", shard]) == 1
        assert f"--shard must be I/N with 1 <= I <= N, got {shard}" in capsys.readouterr().err


def test_products_of_another_dtype_or_kind(monkeypatch, capsys):
    calls = []
    fake = types.ModuleType("gradring.bench.gemm")
    fake.run = lambda **options: calls.append(options)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(_core, "build_type", "Release")
    assert main(["bench", "gemm", "--dtype", "bfloat16", "--threads", "1"]) == 0
    assert main(["bench", "gemm", "--products", "pieces3"]) == 0
    assert calls == [{"out": None, "dtype": "bfloat16", "threads": 1}, {"out": None, "products": "pieces3"}]
    assert main(["bench", "gemm", "--threads", "0"]) == 1
    assert "--threads must be at least 1, got 0" in capsys.readouterr().err
    assert main(["bench", "fit", "--dtype", "bfloat16"]) == 1
    assert "--dtype belongs to gemm and step, got fit" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "gemm", "--dtype", "int8"])
