"""The library in a process: its threads, its cores, its one copy of the runtime, and calls from many threads."""

import os
import threading

import numpy as np
import pytest

import gradring as gr
from gradring import _core
from helpers import run_script


def test_importing_starts_no_thread():
    code = (
        "import os, numpy as np, gradring as gr; gr.nn, gr.optim, gr.ops, gr.Trainer; gr.Loader(np.arange(10), 2);"
        "print(len(os.listdir('/proc/self/task')))"
    )
    # NumPy's BLAS starts threads of its own unless told not to.
    done = run_script(code, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    assert done.stdout.split() == ["1"], done.stderr


def test_one_copy_of_the_runtime():
    gr.ops.matmul(np.ones((300, 300), np.float32), np.ones((300, 300), np.float32))
    with open("/proc/self/maps") as maps:
        copies = {line.split()[-1] for line in maps if "libgradring" in line}
    assert len(copies) == 1


def test_fewer_cores_than_the_machine_has_are_noticed():
    first = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{first}}}); import gradring as gr; print(gr.get_num_threads())"
    done = run_script(code)
    assert done.stdout.split() == ["1"], done.stderr


def test_isa_may_be_lowered_and_not_raised():
    levels = ["base", "avx2", "avx512"]
    detected = levels.index(_core.detected_isa())
    for wanted, level in enumerate(levels):
        done = run_script("from gradring import _core; print(_core.active_isa())", GRADRING_ISA=level)
        assert done.stdout.split() == [levels[min(wanted, detected)]]
    done = run_script("from gradring import _core; print(_core.active_isa())", GRADRING_ISA="nonsense")
    assert done.stdout.split() == [levels[detected]]
    assert "GRADRING_ISA is 'nonsense', expected base, avx2, avx512 or amx: ignored" in done.stderr


def test_a_lower_level_switches_the_tile_unit_off():
    code = "from gradring import _core; print(_core.tile_unit(), _core.tile_unit_advantage())"
    present = run_script(code, GRADRING_ISA="amx").stdout.rsplit(maxsplit=1)[0]
    assert present in ("absent", "refused", "permitted")
    for level in ("base", "avx2", "avx512"):
        done = run_script(code, GRADRING_ISA=level)
        expected = "absent" if present == "absent" else "switched off"
        assert done.stdout.strip() == f"{expected} 0.0", done.stderr


def test_the_way_of_bfloat16_follows_the_level_and_the_measured_rates():
    code = "from gradring import _core; print(_core.bf16_way(), _core.tile_unit_advantage(), _core.dot_advantage())"
    for level in ("base", "avx2", "avx512", "amx"):
        way, unit, dots = run_script(code, GRADRING_ISA=level).stdout.split()
        if level in ("base", "avx2") or _core.detected_isa() != "avx512":
            assert way == "widened"
        elif float(unit) >= 2:
            assert way == "tiles"
        else:
            assert way == ("dots" if float(dots) >= 1.3 else "widened")


SMALL_SIGNAL_STACK = """
import ctypes, os
import numpy as np
import gradring as gr
class Stack(ctypes.Structure):
    _fields_ = [("memory", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
library = ctypes.CDLL(None, use_errno=True)
memory = ctypes.create_string_buffer(8192)
def small_stack():
    stack = Stack(ctypes.addressof(memory), 0, 8192)
    return library.sigaltstack(ctypes.byref(stack), None)
"""


def test_float32_products_on_several_threads_leave_small_signal_stacks_possible():
    """The tile unit's permission would forbid them, so only products that use the unit ask for it."""
    if not run_script(SMALL_SIGNAL_STACK + "print(small_stack())").stdout.startswith("0"):
        pytest.skip("this machine has no signal stacks of 8 KiB")
    code = SMALL_SIGNAL_STACK + (
        "gr.set_num_threads(2); a = np.ones((500, 500), np.float32); gr.ops.matmul(a, a);"
        "threads = len(os.listdir('/proc/self/task'));"
        "print(threads, small_stack(), os.strerror(ctypes.get_errno()))"
    )
    done = run_script(code, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    assert done.stdout.split()[:2] == ["2", "0"], done.stdout + done.stderr


def test_a_small_signal_stack_refuses_the_tile_unit():
    code = SMALL_SIGNAL_STACK + (
        "from gradring import _core; assert small_stack() == 0;"
        "print(_core.tile_unit(), _core.tile_unit_advantage())"
    )
    if run_script("from gradring import _core; print(_core.tile_unit())").stdout.strip() != "permitted":
        pytest.skip("this machine has no tile unit to refuse")
    done = run_script(code)
    assert done.stdout.split() == ["refused", "0.0"], done.stdout + done.stderr


def test_many_threads_may_use_the_module_at_once():
    """The promise behind mod_gil_not_used: no call needs the GIL to be right."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((120, 130)).astype(np.float32)
    b = rng.standard_normal((130, 110)).astype(np.float32)
    expected = gr.ops.matmul(a, b)
    wrong: list[str] = []
    start = threading.Barrier(8)

    def hammer(number):
        start.wait()
        for turn in range(60):
            if not np.array_equal(gr.ops.matmul(a, b), expected):
                wrong.append("matmul")
            arena = _core.SharedArena(4096)
            view = np.frombuffer(arena, np.int64)
            view[:] = number
            if not (view == number).all():
                wrong.append("arena")
            if turn % 10 == number % 10:
                gr.set_num_threads(1 + number % 3)
                _core.trace_start()
            _core.trace_record("turn", turn, turn + 1)

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
    cores = gr.get_num_threads()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _core.trace_stop()
    gr.set_num_threads(cores)
    assert not wrong
