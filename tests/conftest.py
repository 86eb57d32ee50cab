import os

import numpy as np
import pytest

os.environ.setdefault("GRADRING_CHECK", "1")  # every graph is checked after every pass


@pytest.fixture
def blobs():
    """300 points of three classes in eight dimensions, well apart: (x, y)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    centres = rng.standard_normal((3, 8)) * 2
    return (centres[y] + rng.standard_normal((300, 8))).astype(np.float32), y
