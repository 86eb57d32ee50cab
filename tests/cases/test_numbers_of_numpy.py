"""NumPy's numbers, flags and words are accepted wherever Python's are."""

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((48, 4)).astype(np.float32), RNG.integers(0, 3, 48)


def trainer():
    return gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 3)).init(1), optimizer=gr.optim.SGD(0.1))


@pytest.mark.parametrize("kind", [np.generic, np.ndarray])
def test_numbers_flags_and_words_of_numpy(kind, tmp_path):
    """NumPy's numbers, as indexing gives them, and arrays without an axis are accepted wherever Python's are."""

    def of(value):
        made = np.asarray(value)
        return made[()] if kind is np.generic else made

    model = gr.nn.Sequential(
        gr.nn.Linear(of(4), of(8), bias=of(True)),
        gr.nn.GELU(approximate=of("none")),
        gr.nn.LayerNorm(of(8), eps=of(1e-5)),
        gr.nn.Dropout(of(0.5)),
        gr.nn.Linear(of(8), of(3)),
    ).init(of(1))
    rule = gr.optim.Adam(
        of(0.1), betas=(of(0.9), of(0.99)), eps=of(1e-8), weight_decay=of(0.0), amsgrad=of(True),
        groups=[{"params": "*.bias", "lr": of(0.2)}],
    )  # fmt: skip
    assert repr(rule) == (
        "Adam(lr=0.1, betas=(0.9, 0.99), eps=1e-08, weight_decay=0.0, amsgrad=True, groups=[{'params': '*.bias', 'lr': 0.2}])"
    )
    assert repr(gr.optim.SGD(of(0.1), of(0.9), nesterov=of(True))).startswith("SGD(lr=0.1, momentum=0.9, nesterov=True")
    assert repr(gr.optim.RMSprop(centered=of(True))).count("centered=True")
    assert gr.optim.Adam(betas=np.array([0.9, 0.99])) == gr.optim.Adam(betas=(0.9, 0.99))
    one = gr.Trainer(
        model, optimizer=rule, tune=of(False), accumulate=of(1), clip_norm=of(1.0), shards=of(2), threads=of(1)
    )
    loader = gr.Loader((X, Y), of(8), shuffle=of(True), seed=of(1), drop_last=of(True), timeout=of(9.0))
    first, second = loader.split(of(0.5), seed=of(1), shuffle=of(True))
    for verbose in (of(0), of(False)):
        callbacks = [
            gr.callbacks.EarlyStop("val_loss", of(3), min_delta=of(0.0), restore_best=of(True)),
            gr.callbacks.Checkpoint(tmp_path / "{epoch}", every=of(1), keep=of(1)),
        ]
        one.fit(
            first,
            of(2),
            validate=second,
            callbacks=callbacks,
            steps_per_epoch=of(2),
            on_signal=of("raise"),
            verbose=verbose,
        )
    model.save(tmp_path / "m")
    assert np.array_equal(gr.load(tmp_path / "m")(X), model(X))


@pytest.mark.parametrize("value", [np.int64(1), np.True_, np.asarray(True), True, 1])
def test_a_report_that_numpy_asks_for(value, capsys):
    trainer().fit((X, Y), verbose=value)
    assert "epoch 1/1" in capsys.readouterr().err
    with pytest.raises(TypeError, match=r"verbose must be"):
        trainer().fit((X, Y), verbose=np.array([True]))
    with pytest.raises(ValueError, match=r"verbose must be"):
        trainer().fit((X, Y), verbose=np.int64(3))
