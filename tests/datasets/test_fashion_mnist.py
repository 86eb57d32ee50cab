import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

import gradring as gr


def write(folder, images=None, labels=None, part="train", suffix=".gz"):
    images = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28) if images is None else images
    labels = np.array([0, 9, 5], dtype=np.uint8) if labels is None else labels
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_ones_own(tmp_path, suffix):
    write(tmp_path, suffix=suffix)
    write(tmp_path, part="t10k", suffix=suffix)
    train, test = gr.datasets.fashion_mnist(tmp_path)
    assert train.x.shape == (3, 784) and train.x.dtype == np.float32 and train.y.tolist() == [0, 9, 5]
    raw = gr.datasets.fashion_mnist(str(tmp_path), dtype="uint8").test
    assert raw.x.dtype == np.uint8
    np.testing.assert_allclose(test.x, raw.x / 255, rtol=1e-6)


def test_the_machines_own_copy():
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    train, test = gr.datasets.fashion_mnist(dtype=np.uint8)
    assert train.x.shape == (60000, 784) and test.x.shape == (10000, 784)
    assert np.bincount(train.y).tolist() == [6000] * 10 and np.bincount(test.y).tolist() == [1000] * 10


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no train-images-idx3-ubyte.gz; install it with 'apt install"):
        gr.datasets.fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((3, 28, 27), np.uint8), None, r"train-images.* is \(3, 28, 27\) of uint8, expected \(N, 28, 28\)"),
        (np.zeros((2, 28, 28), np.uint8), None, r"train-labels.* is \(3,\) of uint8, expected \(2,\) of uint8"),
        (None, np.array([0, 10, 1], np.uint8), "train-labels.* has a label 10, expected 0 to 9"),
    ],
)
def test_files_that_do_not_fit(tmp_path, images, labels, words):
    write(tmp_path, images, labels)
    with pytest.raises(ValueError, match=words):
        gr.datasets.fashion_mnist(tmp_path)


def test_a_dtype_that_is_not_offered(tmp_path):
    with pytest.raises(ValueError, match="dtype must be float32, float64 or uint8, got int32"):
        gr.datasets.fashion_mnist(tmp_path, dtype=np.int32)
