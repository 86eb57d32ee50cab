"""The tables that notebooks show, whose cells are those of the printed text."""

import pickle
from html.parser import HTMLParser

import numpy as np
import pytest

import gradring as gr
from gradring.tables import Table, html


class Cells(HTMLParser):
    """The rows of a table, and a check that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open, self.caption = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data
        elif self.open[-1:] == ["caption"]:
            self.caption += data


def test_texts_are_escaped_and_many_rows_cut():
    shown = Cells(html(["<b>", "n"], [["<script>alert('&')</script>", i] for i in range(1000)], caption="a < b"))
    assert shown.caption == "a < b" and shown.rows[0] == ["<b>", "n"]
    assert shown.rows[1] == ["<script>alert('&')</script>", "0"] and shown.rows[-1][1] == "999"
    assert len(shown.rows) == 102 and shown.rows[51] == ["...", "..."]


def test_a_table_is_a_text():
    table = Table.of(["a", "b"], [["x", 12345]])
    assert table == "a       b\nx   12345" and repr(table) == str(table) and isinstance(table, str)
    assert Cells(table._repr_html_()).rows == [["a", "b"], ["x", "12345"]]
    assert pickle.loads(pickle.dumps(table))._repr_html_() == table._repr_html_()


@pytest.fixture(scope="module")
def trained():
    x = np.random.default_rng(0).standard_normal((320, 8)).astype("f4")
    model = gr.nn.Sequential(gr.nn.Linear(8, 4), gr.nn.ReLU(), gr.nn.Linear(4, 2))
    trainer = gr.Trainer(model)
    loader = gr.Loader((x, np.arange(320) % 2), 16)
    history = trainer.fit(loader, epochs=3, validate=(x, np.arange(320) % 2), verbose=False)
    return trainer, loader, history


def test_a_summary(trained):
    table = trained[0].model.summary((16, 8))
    rows = Cells(table._repr_html_()).rows
    lines = str(table).splitlines()
    assert [row[0] for row in rows] == [line.split("  ")[0] for line in lines] and rows[-1][2] == "46"
    assert len(rows) == len(lines) and all(cell in line for row, line in zip(rows, lines, strict=True) for cell in row)


def test_a_history(trained):
    rows = Cells(trained[2]._repr_html_()).rows
    assert rows[0] == list(trained[2].metrics) and [row[0] for row in rows[1:]] == ["1", "2", "3"]
    assert float(rows[-1][rows[0].index("val_loss")]) == pytest.approx(trained[2].last["val_loss"], rel=1e-3)
    assert Cells(gr.History()._repr_html_()).rows == [[]]


def test_a_plan(trained):
    plan = trained[0].plan()
    shown = Cells(plan._repr_html_())
    assert len(shown.rows) == 1 + len(plan.instructions)
    assert "train program for x (16, 8)" in shown.caption and str(plan).splitlines()[-1] in shown.caption
    for row, line in zip(shown.rows[1:], str(plan).splitlines()[2:-1], strict=True):
        assert all(cell.strip() in line for cell in row)


def test_stats_and_timings(trained):
    trainer, loader, _ = trained
    stats = loader.stats()
    shown = Cells(stats._repr_html_())
    assert dict(shown.rows[1:])["bottleneck"] == stats.bottleneck and shown.caption == stats.advice
    timings = trainer.timings()
    shown = Cells(timings._repr_html_())
    assert [row[0] for row in shown.rows[1:]] == list(timings) and shown.caption == str(timings)
