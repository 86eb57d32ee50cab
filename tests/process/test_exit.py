"""The interpreter may end while daemon threads run native code: no crash, no hang, and the script's own exit status."""

import textwrap

import pytest

from helpers import run_script

HEAD = """
import threading, time
import numpy as np
import gradring as gr

# Two threads that print while the interpreter ends may make it abort, even if they do nothing else.
threading.excepthook = lambda given: None

x = np.random.default_rng(0).standard_normal((2000, 8)).astype("f4")
y = np.arange(2000) % 3

def trainer(*layers):
    return gr.Trainer(gr.nn.Sequential(gr.nn.Linear(8, 16), *layers, gr.nn.Linear(16, 3)))

def slow(value):
    time.sleep(0.0003)
    return value * 1

SLOW = gr.sources.Callable(lambda i: (slow(x[i]), y[i]), 2000)
"""

WORK = {
    "fit": "trainer().fit(gr.Loader((x, y), 16), 10**6, verbose=False)",
    "fit, fed by threads": (
        "trainer().fit(gr.Loader((x, y), 16, transforms={0: gr.transforms.Scale(2.0)}), 10**6, verbose=False)"
    ),
    "fit, fed by Python": ("trainer().fit(gr.Loader(SLOW, 16), 10**6, verbose=False)"),
    "fit, fed by itself": ("trainer().fit(gr.Loader(SLOW, 16, num_threads=0), 10**6, verbose=False)"),
    "fit, with a Python layer": (
        "trainer(gr.nn.Function(slow, lambda *given: slow(given[-1]))).fit((x, y), 10**6, verbose=False)"
    ),
    "fit, with steps of one's own": (
        "gr.Trainer(step=lambda params, batch: (slow(1.0), {'w': np.ones(3)}), params={'w': np.zeros(3)}, "
        "optimizer=gr.optim.SGD(1.0)).fit(range(10**9), verbose=False)"
    ),
    "steps": "step = trainer().step\nwhile True: step(x, y)",
    "predictions": "predict = trainer().predict\nwhile True: predict(x)",
    "products": "a = np.ones((300, 300), 'f4')\nwhile True: gr.ops.matmul(a, a)",
    "a loader": "for _ in gr.Loader(np.zeros((100000, 784), 'u1'), 64, transforms=gr.transforms.Scale(0.5)): pass",
}


@pytest.mark.parametrize("work", WORK)
def test_the_interpreter_ends_while_daemon_threads_work(work):
    body = textwrap.indent(WORK[work], "    ")
    script = f"{HEAD}\ndef work():\n{body}\n\nfor _ in range(2): threading.Thread(target=work, daemon=True).start()\n"
    script += "time.sleep(0.3)\nprint('last line', flush=True)\n"
    done = run_script(script)
    assert (done.returncode, done.stdout) == (0, "last line\n"), done.stderr
    # A loader's end may still be told of by the thread that reads it, as far as it gets.
    assert done.stderr == "" or done.stderr.startswith("Exception in thread"), done.stderr
    assert "Fatal" not in done.stderr
