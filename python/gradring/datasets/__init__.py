"""Real data sets, as NumPy arrays split into training and test samples.

Each function returns a :class:`Dataset`, which can be unpacked or read by name:

>>> train, test = digits()
>>> (x_train, y_train), (x_test, y_test) = digits()
>>> x_train.shape, y_train.shape, x_test.shape
((1442, 64), (1442,), (355, 64))
"""

from typing import TYPE_CHECKING

from gradring.datasets.digits import digits
from gradring.datasets.fashion_mnist import fashion_mnist
from gradring.datasets.idx import read_idx
from gradring.datasets.types import Dataset, Samples
from gradring.planned import getter

__all__ = ["Dataset", "Samples", "digits", "fashion_mnist", "read_idx"]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.datasets")
