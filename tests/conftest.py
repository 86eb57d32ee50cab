import os
import signal

import numpy as np
import pytest

import recorded
import whole_device

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # a few tests run where the package alone is installed
    pass
else:
    # On a busy machine it may take a second to make an input, which must not fail a test.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")

whole_device.install()
pytest_runtest_setup, pytest_runtest_call = whole_device.pytest_runtest_setup, whole_device.pytest_runtest_call
pytest_collection_modifyitems = whole_device.pytest_collection_modifyitems
pytest_configure = recorded.install
pytest_sessionfinish, pytest_unconfigure = whole_device.pytest_sessionfinish, whole_device.pytest_unconfigure

os.environ.setdefault("GRADRING_CHECK", "1")  # every graph is checked after every pass

# A shell starts background jobs with SIGINT and SIGQUIT ignored, and children inherit that. Tests send these signals.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture
def blobs():
    """300 points of three classes in eight dimensions, well apart: (x, y)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    centres = rng.standard_normal((3, 8)) * 2
    return (centres[y] + rng.standard_normal((300, 8))).astype(np.float32), y
