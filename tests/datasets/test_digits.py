import hashlib

import numpy as np

import gradring as gr


def test_the_samples_are_those_of_the_original_file():
    train, test = gr.datasets.digits()
    rows = np.concatenate([np.column_stack([part.x * 16, part.y]).astype(np.uint8) for part in (train, test)])
    assert rows.shape == (1797, 65)
    # sha256 of the sorted rows of scikit-learn's digits.csv.gz, as bytes.
    rows = rows[np.lexsort(rows.T[::-1])]
    assert (
        hashlib.sha256(rows.tobytes()).hexdigest() == "f67d6a29d0e1f70e7f0cd9dcf25816b694881f4b8f27f5cc1db59551f0499fb8"
    )


def test_the_split_is_fixed_and_fair():
    train, test = gr.datasets.digits()
    assert train.x.dtype == np.float32 and train.y.dtype == np.int64 and train.x.flags.c_contiguous
    assert train.x.min() == 0.0 and train.x.max() == 1.0
    shares = np.bincount(test.y, minlength=10) / np.bincount(np.concatenate([train.y, test.y]))
    assert shares.min() > 0.18 and shares.max() <= 0.2
    again = gr.datasets.digits()
    assert all(np.array_equal(a, b) for a, b in zip((*train, *test), (*again.train, *again.test), strict=True))
