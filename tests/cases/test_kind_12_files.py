"""Kind 12, of files and estimators: what a user plainly expects of them is there."""

import numpy as np
import pytest

import gradring as gr


def model(outputs=3):
    return gr.nn.Sequential(gr.nn.Linear(8, 6), gr.nn.ReLU(), gr.nn.Linear(6, outputs))


def test_the_best_file_alone_is_a_model(tmp_path, blobs):
    callbacks = [
        gr.callbacks.Checkpoint(tmp_path / "best.safetensors", monitor="val_loss"),
        gr.callbacks.EarlyStop("val_loss", 3),
    ]
    trainer = gr.Trainer(model(), optimizer=gr.optim.AdamW(0.05))
    history = trainer.fit(blobs, epochs=8, validate=blobs, callbacks=callbacks, verbose=False)
    loaded = gr.load(tmp_path / "best.safetensors")
    again = gr.Trainer(loaded)
    assert again.evaluate(blobs)["loss"] == pytest.approx(min(history.metrics["val_loss"]), rel=1e-5)


def test_another_head_takes_the_body(tmp_path, blobs):
    gr.Trainer(model(), seed=3).save(tmp_path / "m.safetensors")
    other = gr.Trainer(model(5), optimizer=gr.optim.SGD(0.1))
    for options in ({}, {"weights_only": True}):
        with pytest.raises(gr.CheckpointMismatch, match=r"m\.safetensors: .*strict=False"):
            other.load(tmp_path / "m.safetensors", **options)
    head = other.params["2.weight"].copy()
    assert sorted(other.load(tmp_path / "m.safetensors", strict=False)) == ["0.bias", "0.weight"]
    body = gr.load(tmp_path / "m.safetensors").params["0.weight"]
    np.testing.assert_array_equal(other.params["0.weight"], body)
    np.testing.assert_array_equal(other.params["2.weight"], head)


def test_estimators_of_scikit_learn(blobs):
    pytest.importorskip("sklearn")
    x, y = blobs
    clf = gr.sklearn.Classifier(hidden=(16,), epochs=20, random_state=0).fit(x, np.array(["a", "b", "c"])[y])
    assert set(clf.predict(x)) == {"a", "b", "c"} and clf.predict_proba(x).shape == (300, 3)
