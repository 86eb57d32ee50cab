"""Runs the tests of trainers, sessions and loaders on a CUDA device: with ``GRADRING_TEST_DEVICE=cuda`` (or ``cuda:1``) that
device is the default of ``gr.Trainer``, ``gr.Loader`` and sessions, wherever a test names none.

What this version has on the CPU alone raises ``NotBuilt`` with one of the sentences in ``NOT_BUILT``. Such a test is skipped
with that sentence as the reason, so the report of a run says what is missing; any other ``NotBuilt`` fails the test. Tests that
are about the CPU have the mark ``cpu``, which says why.
``GRADRING_TEST_SHARE=8`` runs one test in eight.

Tests compute with parameters and batches as NumPy's arrays. So, in these runs, operators, methods and functions of NumPy work
on a ``gr.cuda.Array`` by a copy to the host, for code of the tests alone: the package's own code still gets the ``TypeError``
that users get. A loss that ``step`` returns to a test has been read already. A loader's batch comes as a copy in the host's
memory that keeps its slot on the device in use as long as it lives, as a CuPy array would.
"""

import operator
import os
import re
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

VARIABLE = "GRADRING_TEST_DEVICE"
device = os.environ.get(VARIABLE, "cpu")
# What a device does not have yet: each pattern is the beginning of the error's text.
NOT_BUILT = (
    r"shards= on device ",
    r"parallel='\w+' on device ",
    r"replicas= and comm= on device ",
    r"replicas=, shards= and comm= with step= and params on a CUDA device ",
    r"\[Trainer\] (layer .*|the loss) calls a function of the user's on the host",
    r"\[Trainer\] device is '[\w:]+', and params are in the host's memory",
    r"\[Trainer\] products='\w+' on device ",
    r"arrays on a device are read in their order",
    r"\[\w+\] axis=.* on a device is planned",
    r"\[\w+\] stacks of matrices on a device are planned",
)
_status = 0


def install():
    """Make the device the default, if the variable names one. Must come before any test is imported."""
    if device == "cpu":
        return
    from gradring import Loader, Trainer, cuda_devices
    from gradring.session.state import SessionState

    found = cuda_devices.obstacle()
    if found is not None:
        raise pytest.UsageError(f"{VARIABLE}={device}: {found.what}; {found.fix}")
    for each in (Trainer, SessionState, Loader):
        each.__init__.__kwdefaults__["device"] = device
    _compute_in_tests()
    from gradring.loader import device_batches

    device_batches._shown = _copied
    from gradring.session import Session

    queue = Session._step_slowly

    def step(self, *given, **named):
        loss = queue(self, *given, **named)
        return float(loss) if _in_test() else loss

    Session._step_slowly = step


class Batch(np.ndarray):
    """A copy of a batch on the device, which it keeps alive."""

    of = None


def _copied(array):
    copy = array.numpy().view(Batch)
    copy.of = array
    return copy


def _in_test(depth=2):
    return Path(sys._getframe(depth).f_code.co_filename).is_relative_to(Path(__file__).parent)


def _host(value):
    from gradring import cuda

    return value.numpy() if isinstance(value, cuda.Array) else value


def _compute_in_tests():
    from gradring import cuda

    def of_tests(name, compute):
        refuse = getattr(cuda.Array, name)

        def method(self, *others):
            return compute(self, *others) if _in_test() else refuse(self, *others)

        setattr(cuda.Array, name, method)

    def reflected(function):
        return lambda self, other: function(_host(other), self.numpy())

    def in_place(function):
        def compute(self, other):
            self[...] = function(self.numpy(), _host(other))
            return self

        return compute

    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
        function = getattr(operator, {"and": "and_", "or": "or_"}.get(name, name))
        of_tests(f"__{name}__", lambda self, other, function=function: function(self.numpy(), _host(other)))
        of_tests(f"__r{name}__", reflected(function))
        of_tests(f"__i{name}__", in_place(function))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        function = getattr(operator, name)
        of_tests(f"__{name}__", lambda self, other, function=function: function(self.numpy(), _host(other)))
    for name in ("neg", "abs"):
        function = getattr(operator, name)
        of_tests(f"__{name}__", lambda self, function=function: function(self.numpy()))

    def ufunc(self, function, method, *inputs, **options):
        if not _in_test():
            return NotImplemented
        return getattr(function, method)(*map(_host, inputs), **options)

    def other(self, name):
        if name.startswith("_") or not hasattr(np.ndarray, name) or not _in_test():
            raise AttributeError(f"'Array' object has no attribute {name!r}")
        return getattr(self.numpy(), name)

    cuda.Array.__array_ufunc__, cuda.Array.__getattr__ = ufunc, other


def _what_is_built(call):
    from gradring.errors import NotBuilt

    try:
        return (yield from call)
    except NotBuilt as error:
        if device == "cpu" or re.match("|".join(NOT_BUILT), str(error)) is None:
            raise
        pytest.skip(f"on a device: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Skip a test that is about the CPU."""
    mark = item.get_closest_marker("cpu")
    if device != "cpu" and mark is not None:
        pytest.skip(f"it is about the CPU: {mark.args[0]}")
    return (yield from _what_is_built(_rest()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip a test for which this version refuses the device."""
    return (yield from _what_is_built(_rest()))


def _rest():
    return (yield)


def pytest_collection_modifyitems(config, items):
    """Keep a share of the tests: with ``GRADRING_TEST_SHARE=8`` an eighth of them, chosen by a seed that is printed."""
    share = int(os.environ.get("GRADRING_TEST_SHARE", "1"))
    if share == 1:
        return
    seed = os.environ.setdefault("GRADRING_TEST_SEED", str(int(time.time()) // 86400))
    print(f"one test in {share}: GRADRING_TEST_SHARE={share} GRADRING_TEST_SEED={seed}")
    kept = [item for item in items if zlib.crc32(f"{seed} {item.nodeid}".encode()) % share == 0]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_sessionfinish(exitstatus):
    """Remember how the run has ended."""
    global _status
    _status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """End the process now. What tests and hypothesis keep until the interpreter ends is no leak of the package, and the device
    made of software would report it as one."""
    if device != "cpu":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status)
