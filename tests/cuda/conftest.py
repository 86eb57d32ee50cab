"""These tests need the module _cuda and a device: a card, or the software device in a build with GRADRING_CUDA=SOFTWARE."""

from pathlib import Path

import pytest

from gradring import cuda_devices

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    found = None
    for item in items:
        if HERE in item.path.parents:
            found = found or cuda_devices.obstacle() or "usable"
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.skipif(found != "usable", reason=f"no CUDA device: {found}"))
