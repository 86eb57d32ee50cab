"""`import gradring` is cheap and has no side effects."""

import gradring as gr
from helpers import run_script


def child(script):
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_neither_numpy_nor_the_core_and_starts_no_thread():
    script = (
        "import os, sys, gradring; heavy = {'numpy', 'gradring._core', 'tqdm', 'torch'} & set(sys.modules);"
        "print(sorted(heavy), len(os.listdir('/proc/self/task')))"
    )
    assert child(script) == "[] 1\n"


def test_making_a_model_and_a_loader_starts_no_thread_either():
    script = (
        "import os, numpy as np; before = len(os.listdir('/proc/self/task')); import gradring as gr;"
        "gr.nn.Sequential(gr.nn.Linear(4, 2)); gr.Loader(np.zeros((4, 4)), 2); gr.datasets.digits();"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    assert child(script) == "0\n"


def test_modules_come_on_their_first_use():
    script = "import gradring as gr; print(gr.interop.__name__, hasattr(gr, 'nothing'))"
    assert child(script) == "gradring.interop False\n"


def test_every_public_name_is_there():
    for name in gr.__all__:
        assert getattr(gr, name) is not None
    assert set(gr.__all__) <= set(dir(gr))


def test_an_unknown_name():
    try:
        gr.nonsense  # noqa: B018
    except AttributeError as error:
        assert str(error) == "module 'gradring' has no attribute 'nonsense'"
    else:
        raise AssertionError("no AttributeError")
