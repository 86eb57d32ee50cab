"""After a fork the child gets a clear error or a working trainer, and never hangs; the parent is not disturbed."""

import subprocess
import sys

import pytest

HEAD = """
import os, sys, signal
import numpy as np
import gradring as gr

rng = np.random.default_rng(0)
x, y = rng.standard_normal((500, 64), np.float32), rng.integers(0, 10, 500)

def make():
    model = gr.nn.Sequential(gr.nn.Linear(64, 256), gr.nn.ReLU(), gr.nn.Linear(256, 10))
    return gr.Trainer(model, threads=2)

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # a child that hangs is killed, and its status says so
        try:
            work()
            os._exit(0)
        except gr.GradringError as error:
            os.write(2, str(error).encode())
            os._exit(3)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

trainer = make()
trainer.fit((x, y), epochs=1)
"""

CASES = {
    "fit": ("trainer.fit((x, y), epochs=1)", "3"),
    "step": ("trainer.step(x[:64], y[:64])", "3"),
    "evaluate": ("trainer.evaluate((x, y))", "3"),
    "predict": ("trainer.predict(x)", "3"),
    "save": ("trainer.save(os.devnull + '.never')", "4"),
    "a new trainer": ("make().fit((x, y), epochs=1)", "0"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_fork_after_use(case):
    work, wanted = CASES[case]
    script = f"{HEAD}\nprint(in_child(lambda: {work}))\ntrainer.fit((x, y), epochs=1)\nprint('parent done')\n"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    status, parent = result.stdout.splitlines()
    assert parent == "parent done"
    assert status in (wanted, "0"), f"status {status}: {result.stderr}"
    if status == "3":
        assert "fork" in result.stderr
