"""The tile unit's permission: workers and forks from before and after it, and what happens where the system refuses it."""

import warnings

import numpy as np
import pytest

import gradring as gr
from gradring import _core
from helpers import run_script

START = """
import ctypes, os, sys, warnings
import numpy as np, gradring as gr
from gradring import _core
rng = np.random.default_rng(3)
a, b = (rng.standard_normal(s).astype(np.float32) for s in ((200, 300), (300, 130)))
"""


def expected():
    """The product of START, as the scripts print it."""
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((200, 300), (300, 130)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no unit, pieces are slow
        return gr.ops.matmul(a, b, products="pieces3").tobytes().hex()


def output(code):
    done = run_script(START + code)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout.splitlines()


def test_workers_from_before_the_permission_use_the_unit():
    found = output("""
warnings.simplefilter("ignore")
gr.set_num_threads(3)
large = np.ones((500, 500), np.float32)
assert (gr.ops.matmul(large, large) == 500).all()      # starts the workers, and asks for nothing
for _ in range(3):
    print(gr.ops.matmul(a, b, products="pieces3").tobytes().hex())
""")
    assert found == [expected()] * 3


@pytest.mark.parametrize("before", [False, True])
def test_a_forked_child_uses_the_unit(before):
    found = output(f"""
warnings.simplefilter("ignore")
if {before}:
    gr.ops.matmul(a, b, products="pieces3")
sys.stdout.flush()
child = os.fork()
if child == 0:
    gr.set_num_threads(1)
    print(_core.tile_unit(), gr.ops.matmul(a, b, products="pieces3").tobytes().hex(), sep="\\n", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(_core.tile_unit(), gr.ops.matmul(a, b, products="pieces3").tobytes().hex(), sep="\\n")
""")
    assert found == [_core.tile_unit(), expected()] * 2


# A filter of system calls (seccomp(2)) answers arch_prctl(ARCH_REQ_XCOMP_PERM) with EPERM; a signal stack is too small for the
# tiles. The program sets `done` to whether the system allowed that.
REFUSALS = {
    "filter": """
class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.POINTER(Filter))]
filters = (Filter * 6)(
    Filter(0x20, 0, 0, 0), Filter(0x15, 0, 3, 158),       # is it arch_prctl
    Filter(0x20, 0, 0, 16), Filter(0x15, 0, 1, 0x1023),   # of ARCH_REQ_XCOMP_PERM
    Filter(0x06, 0, 0, 0x00050001), Filter(0x06, 0, 0, 0x7FFF0000),
)
libc = ctypes.CDLL(None, use_errno=True)
done = libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Program(6, filters)), 0, 0) == 0
""",
    "stack": """
class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)
stack = Stack(ctypes.addressof(memory), 0, 8192)
done = ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
""",
}


@pytest.mark.parametrize("way", REFUSALS)
def test_where_the_permission_is_refused_the_results_are_right(way):
    if _core.tile_unit() != "permitted":
        pytest.skip(f"the tile unit is {_core.tile_unit()}, so there is no permission to refuse")
    found = output(
        REFUSALS[way]
        + """
if not done:
    print("not possible")
    sys.exit()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        c = gr.ops.matmul(a, b, products="pieces3")
assert len(caught) == 1 and "tile unit (AMX) is refused" in str(caught[0].message), [str(w.message) for w in caught]
assert _core.tile_unit_advantage() == 0 and _core.measure_tile_flops() == 0
print(_core.tile_unit(), c.tobytes().hex(), sep="\\n")
"""
    )
    if found == ["not possible"]:
        pytest.skip(f"this system does not let a process set up the {way}")
    assert found == ["refused", expected()]
