"""After a fork the child gets a clear error or a working trainer, and never hangs; the parent is not disturbed."""

import pytest

from helpers import run_script

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

def same(a, b):
    assert a == b

def own(params, rows):
    return float(params["w"].sum()), {"w": np.full(3, rows.mean(), np.float64)}

trainer = make()
trainer.fit((x, y), epochs=1)
parts = gr.Trainer(step=own, params={"w": np.zeros(3)}, replicas=2)
parts.step(x[:4])
evaluated, predicted = trainer.evaluate((x, y)), trainer.predict(x).tobytes()
"""

CASES = {
    "fit": ("trainer.fit((x, y), epochs=1)", "3"),
    "step": ("trainer.step(x[:64], y[:64])", "3"),
    "evaluate": ("same(trainer.evaluate((x, y)), evaluated)", "0"),
    "predict": ("same(trainer.predict(x).tobytes(), predicted)", "0"),
    "a step of one's own in parts": ("parts.step(x[:4])", "0"),
    "save": ("trainer.save(sys.argv[1])", "0"),
    "a new trainer": ("make().fit((x, y), epochs=1)", "0"),
    "kernels": ("gr.ops.matmul(x, np.ones((64, 300), np.float32))", "0"),
    "the model": ("trainer.model(x)", "0"),
    "a loader": ("[0 for _ in gr.Loader((x, y), 10, num_threads=2)]", "0"),
}


@pytest.mark.parametrize("case", CASES)
def test_fork_after_use(case, tmp_path):
    work, wanted = CASES[case]
    script = f"""{HEAD}
print(in_child(lambda: {work}))
if os.path.exists(sys.argv[1]):
    make().load(sys.argv[1])
trainer.fit((x, y), epochs=1)
print('parent done')
"""
    result = run_script(script, tmp_path / "saved.safetensors")
    assert result.returncode == 0, result.stderr
    status, parent = result.stdout.splitlines()
    assert parent == "parent done"
    assert status == wanted, f"status {status}: {result.stderr}"
    if status == "3":  # the parameters are the parent's too, and the child must not train them behind its back
        assert "made before this process was forked" in result.stderr
    assert (tmp_path / "saved.safetensors").exists() == (case == "save")


def test_fork_while_another_thread_trains():
    script = f"""{HEAD}
import threading
loader = gr.Loader((x, y), 16, shuffle=True, transforms={{0: gr.transforms.Scale(0.5)}}, num_threads=2)
stop = threading.Event()

class Stop(gr.callbacks.Callback):
    def on_epoch_end(self, run):
        if stop.is_set():
            run.stop = "enough"

thread = threading.Thread(target=lambda: trainer.fit(loader, epochs=10**6, callbacks=[Stop()]))
thread.start()
statuses = {{in_child(lambda: (make().fit((x, y)), trainer.fit(loader))) for _ in range(20)}}
stop.set()
thread.join()
print(statuses)
"""
    result = run_script(script)
    assert result.stdout == "{3}\n" and "Traceback" not in result.stderr, result.stdout + result.stderr


def test_fork_while_a_line_is_written_to_a_pipe_that_is_full():
    """A child inherits the locks of its parent's files; one that was held at the fork would stay so for ever."""
    script = f"""{HEAD}
import threading
from gradring.callbacks import Progress
ours, theirs = os.pipe()
pipe = open(theirs, "w")
stop = threading.Event()

def write():
    bar = Progress(pipe)
    bar._lines = True
    while not stop.is_set():
        bar._write("x" * 4000)

def read():
    while os.read(ours, 8192):
        stop.wait(0.002)

threads = [threading.Thread(target=write), threading.Thread(target=read, daemon=True)]
for thread in threads:
    thread.start()
statuses = {{in_child(lambda: print("child", file=pipe, flush=True)) for _ in range(30)}}
stop.set()
threads[0].join()
print(statuses)
"""
    result = run_script(script)
    assert result.stdout == "{0}\n", result.stdout + result.stderr
