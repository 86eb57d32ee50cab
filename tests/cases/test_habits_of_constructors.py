"""Arguments that other libraries have: the error names the argument that takes their place."""

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((48, 4)).astype(np.float32), RNG.integers(0, 3, 48)


def trainer():
    return gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 3)).init(1), optimizer=gr.optim.SGD(0.1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: gr.callbacks.EarlyStop(monitor="val_loss"), r"\[EarlyStop\].*'monitor': did you mean 'metric'"),
        (lambda t: gr.callbacks.EarlyStop(restore_best_weights=True), r"did you mean 'restore_best'"),
        (lambda t: gr.callbacks.ReduceLROnPlateau(monitor="val_loss"), r"did you mean 'metric'"),
        (lambda t: gr.callbacks.ReduceLROnPlateau(t.optimizer), r"metric must be a name"),
        (lambda t: gr.callbacks.Checkpoint("m", save_best_only=True), r"monitor='val_loss'"),
        (lambda t: gr.callbacks.Checkpoint(filepath="m"), r"did you mean 'path'"),
        (lambda t: gr.callbacks.Checkpoint("m", save_top_k=3), r"did you mean 'keep'"),
        (lambda t: gr.callbacks.TensorBoard(log_dir="m"), r"did you mean 'folder'"),
        (lambda t: gr.callbacks.Csv("m", 1, 2, 3), r"its arguments are \(path"),
        (lambda t: gr.optim.Adam(learning_rate=1e-3), r"\[Adam\].*did you mean 'lr'"),
        (lambda t: gr.optim.AdamW(1e-3, beta_1=0.9), r"\[AdamW\].*did you mean 'betas'"),
        (lambda t: gr.optim.SGD(params=t.params, lr=0.1), r"gr\.Trainer\(model, optimizer=\.\.\.\) has them"),
        (lambda t: gr.optim.RMSprop(rho=0.9), r"did you mean 'alpha'"),
        (lambda t: gr.optim.schedule.cosine(0.1, T_max=10), r"\[schedule\.cosine\].*did you mean 'steps'"),
        (lambda t: gr.optim.schedule.plateau(0.1, metric="val_loss"), r"did you mean 'monitor'"),
        (lambda t: gr.losses.CrossEntropy(from_logits=True), r"always scores"),
        (lambda t: gr.losses.CrossEntropy(class_weight=[1.0]), r"\[CrossEntropy\].*did you mean 'weight'"),
        (lambda t: gr.losses.Huber(beta=1.0), r"did you mean 'delta'"),
        (lambda t: gr.metrics.TopK(top_k=5), r"\[TopK\].*did you mean 'k'"),
        (lambda t: gr.nn.LayerNorm(normalized_shape=4), r"did you mean 'features'"),
        (lambda t: gr.nn.ReLU(inplace=True), r"\[ReLU\].*takes no arguments"),
        (lambda t: gr.nn.Flatten(1), r"\[Flatten\].*takes no arguments"),
        (lambda t: gr.transforms.OneHot(num_classes=3), r"did you mean"),
        (lambda t: gr.sources.Callable(func=len, length=3), r"did you mean 'fn'"),
        (lambda t: t.predict(X, verbose=0), r"\[Trainer\.predict\].*its arguments are \(x, \*, batch_size=1024\)"),
        (lambda t: t.save(filename="m"), r"did you mean 'path'"),
        (lambda t: gr.Loader((X, Y), 8).folds(n_splits=3), r"its arguments are \(count"),
        (lambda t: t.history.to_csv(filename="m"), r"did you mean 'path'"),
        (lambda t: t.model.init(random_state=3), r"did you mean 'seed'"),
    ],
)
def test_arguments_of_other_libraries(call, words):
    with pytest.raises(TypeError, match=words):
        call(trainer())
