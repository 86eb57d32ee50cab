import csv
import math
import sys

import pytest

import gradring as gr


@pytest.fixture
def history():
    history = gr.History()
    history.append({"epoch": 1, "loss": 1.5, "accuracy": 0.25})
    history.append({"epoch": 2, "loss": 1e-7, "accuracy": 1.0, "val_loss": float("inf")})
    return history


def test_a_metric_that_comes_late_or_goes_is_nan(history):
    history.append({"epoch": 3})
    assert {len(values) for values in history.metrics.values()} == {3}
    assert math.isnan(history.metrics["val_loss"][0]) and math.isnan(history.metrics["loss"][2])
    assert history.last["epoch"] == 3


def test_csv_reads_back_exactly(history, tmp_path):
    path = tmp_path / "h.csv"
    path.write_text("old")
    history.to_csv(path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["epoch"] == "1"
    for name, values in history.metrics.items():
        for row, value in zip(rows, values, strict=True):
            assert float(row[name]) == value or (math.isnan(value) and row[name] == "nan")
    assert [p.name for p in tmp_path.iterdir()] == ["h.csv"]


def test_an_empty_history(tmp_path):
    history = gr.History()
    assert repr(history) == "History(0 epochs)" and history.last == {}
    history.to_csv(tmp_path / "h.csv")
    with pytest.raises(ValueError, match="no epoch to draw yet"):
        history.plot(tmp_path / "h.png")


def test_repr_shows_the_last_epoch(history):
    assert repr(history) == "History(2 epochs; last: epoch=2, loss=1e-07, accuracy=1, val_loss=inf)"


@pytest.mark.parametrize(("name", "magic"), [("h.png", b"\x89PNG"), ("h.svg", b"<?xml"), ("h", b"\x89PNG")])
def test_plot(history, tmp_path, name, magic):
    pytest.importorskip("matplotlib")
    figure = history.plot(tmp_path / name)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_plot_gives_the_figure_that_shows_itself(history):
    figure = pytest.importorskip("matplotlib.figure")
    history.append({"epoch": 3, "mae": 2.0, "val_r2": 0.5})
    drawn = history.plot()
    assert isinstance(drawn, figure.Figure) and drawn._repr_png_().startswith(b"\x89PNG")
    shown = [axes for axes in drawn.axes if axes.axison]
    assert [axes.get_ylabel() for axes in shown] == ["loss", "accuracy", "mae", "r2"]
    assert [len(axes.lines) for axes in shown] == [2, 1, 1, 1]


def test_plot_without_matplotlib_says_what_to_install(history, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'gradring\[plot\]'"):
        history.plot(tmp_path / "h.png")


def test_an_unwritable_folder(history, tmp_path):
    with pytest.raises(FileNotFoundError):
        history.to_csv(tmp_path / "none" / "h.csv")
