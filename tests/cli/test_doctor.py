import pytest

from gradring import _core
from gradring.cli import main
from gradring.cli.doctor import examine


def test_it_reports_every_topic_and_never_fails(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    topics = [line[4:].split("  ")[0] for line in lines if not line.startswith(" " * 8)]
    for topic in ("gradring", "CPU", "instructions", "cores", "memory", "numpy", "GPU", "Fashion-MNIST"):
        assert topic in topics
    on_demand = next(line for line in lines if line[4:].startswith("huge pages, on demand"))
    assert _core.huge_page_support() in on_demand
    assert all(line[:4] in ("ok  ", "off ", "    ") for line in lines)


def test_what_is_off_says_how_to_turn_it_on(monkeypatch):
    monkeypatch.setattr(_core, "build_type", "Debug")
    monkeypatch.setattr(_core, "active_isa", lambda: "base")
    monkeypatch.setattr(_core, "detected_isa", lambda: "avx2")
    monkeypatch.setattr(_core, "usable_cores", lambda: 0)
    found = {finding.topic: finding for finding in examine()}
    assert found["gradring"].good is False and "install again" in found["gradring"].advice
    assert found["instructions"].good is False and "GRADRING_ISA" in found["instructions"].advice
    assert found["cores"].good is False and "widen that limit" in found["cores"].advice
    assert all(finding.advice for finding in found.values() if finding.good is False)


@pytest.mark.parametrize(
    ("state", "good", "text"),
    [
        ("permitted", True, "times the multiply-add rate"),
        ("refused", False, "arch_prctl"),
        ("refused", False, "sigaltstack"),
        ("switched off", False, "amx"),
        ("wrong", False, "its sums are not those of the definition"),
    ],
)
def test_the_tile_unit_is_shown_where_there_is_one(monkeypatch, state, good, text):
    monkeypatch.setattr(_core, "tile_unit", lambda: "permitted" if state == "wrong" else state)
    monkeypatch.setattr(_core, "tile_unit_advantage", lambda: 9.7 if state == "permitted" else 0.0)
    (found,) = [finding for finding in examine() if finding.topic.startswith("tile unit")]
    assert found.good is good and text in found.value + found.advice
    monkeypatch.setattr(_core, "tile_unit", lambda: "absent")
    assert not [finding for finding in examine() if finding.topic.startswith("tile unit")]


@pytest.mark.parametrize(("way", "used"), [("tiles", "the tile unit"), ("dots", "it"), ("widened", "multiply-adds")])
def test_the_instruction_for_bfloat16_is_shown_where_there_is_one(monkeypatch, way, used):
    monkeypatch.setattr(_core, "dot_advantage", lambda: 1.87)
    monkeypatch.setattr(_core, "bf16_way", lambda: way)
    (found,) = [finding for finding in examine() if finding.topic.startswith("vdpbf16ps")]
    assert found.value == f"1.9 times the multiply-add rate; products of bfloat16 use {used}"
    monkeypatch.setattr(_core, "dot_advantage", lambda: 0.0)
    assert not [finding for finding in examine() if finding.topic.startswith("vdpbf16ps")]


@pytest.mark.parametrize("name", ["GRADRING_ISA", "OMP_NUM_THREADS"])
def test_the_environment_is_shown(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    shown = [finding.value for finding in examine() if finding.topic == "environment"]
    assert any(value.startswith(f"{name}=7") for value in shown)
