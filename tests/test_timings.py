import pytest

from gradring.timings import Timings


def test_the_bottleneck_is_named_with_what_to_do():
    timings = Timings({"data": 3.0, "compute": 1.0})
    assert timings.bottleneck == "data" and timings.total == 4.0 and dict(timings)["reduction"] == 0.0
    assert str(timings).startswith("4.00 s: 75.0 % data, 25.0 % compute; the bottleneck is data (gathering batches")


def test_before_the_first_step():
    assert str(Timings({})) == "no step yet" and Timings({}).bottleneck == ""


def test_tiny_phases_are_left_out_and_clocks_that_run_back_count_as_nothing():
    assert str(Timings({"compute": 1.0, "update": 1e-5, "python": -1e-9})).startswith("1.00 s: 100.0 % compute; the")


def test_an_unknown_phase():
    with pytest.raises(ValueError, match=r"\[Timings\] unknown phases \['sleep'\]"):
        Timings({"sleep": 1.0})
