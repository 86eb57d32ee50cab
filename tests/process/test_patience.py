"""The tests' own measure of load."""

import pytest

from patience import load, promised


@pytest.mark.parametrize("share, loaded", [(0.0, False), (9.99, False), (10.5, True), (99.0, True)])
def test_pressure_decides_where_the_kernel_tells_it(tmp_path, share, loaded):
    file = tmp_path / "cpu"
    file.write_text(f"some avg10={share} avg60=99.00 avg300=99.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    found, words = load(pressure=file)
    assert found is loaded and f"{share:g} %" in words


@pytest.mark.parametrize("average, loaded", [(0.1, False), (1000.0, True)])
def test_the_load_average_decides_elsewhere(tmp_path, average, loaded):
    file = tmp_path / "loadavg"
    file.write_text(f"{average} 0.00 0.00 1/100 1\n")
    found, words = load(pressure=tmp_path / "none", average=file)
    assert found is loaded and f"{average:g} on" in words


def test_a_failure_shows_what_was_promised_and_why(monkeypatch):
    monkeypatch.setattr("patience.load", lambda: (True, "it is loaded"))
    assert promised(2.0) == 10.0 and repr(promised(2.0)) == "10 (5 times what was promised, as it is loaded)"
    monkeypatch.setattr("patience.load", lambda: (False, "it is idle"))
    assert promised(2.0) == 2.0 and repr(promised(2.0)) == "2 (as promised, and it is idle)"
