"""Checkpoints of trainers with groups, frozen parameters and more state."""

import numpy as np
import pytest

import gradring as gr
from gradring.optim import SGD, Adam, AdamW

RNG = np.random.default_rng(2)
X = RNG.standard_normal((40, 3)).astype(np.float32)
Y = RNG.integers(0, 2, 40)
BIAS = [{"params": "*.bias", "weight_decay": 0.0}]


def trainer(optimizer=None, **options):
    model = gr.nn.Sequential(gr.nn.Linear(3, 4), gr.nn.Tanh(), gr.nn.Linear(4, 2))
    return gr.Trainer(model, optimizer=optimizer or AdamW(0.05, groups=BIAS), **options)


@pytest.mark.parametrize("frozen", [(), ("0.*",), ("0.weight", "2.bias")])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_resumed_training_has_the_same_bits(frozen, amsgrad, tmp_path):
    optimizer = AdamW(0.05, groups=[{"params": "2.weight", "lr": 0.5, "weight_decay": 0.0}], amsgrad=amsgrad)
    whole, first, second = (trainer(optimizer, frozen=frozen) for _ in range(3))
    whole.fit((X, Y), epochs=4, verbose=False)
    first.fit((X, Y), epochs=2, verbose=False)
    first.save(tmp_path / "m.safetensors")
    assert second.load(tmp_path / "m.safetensors") and second.epoch == 2
    second.fit((X, Y), epochs=2, verbose=False)
    for name, array in {**whole.params, **whole.session.state}.items():
        np.testing.assert_array_equal({**second.params, **second.session.state}[name], array)
    third = trainer(optimizer, frozen=frozen)
    third.load_state_dict(first.state_dict())
    third.fit((X, Y), epochs=2, verbose=False)
    np.testing.assert_array_equal(third.params["2.weight"], whole.params["2.weight"])


@pytest.mark.parametrize(
    ("saved", "loading", "words"),
    [
        (
            {},
            {"optimizer": AdamW(0.05)},
            r"'0.bias' is in another group than in the file, none instead of that of 0.bias",
        ),
        ({"optimizer": AdamW(0.05)}, {}, r"that of 0.bias, 2.bias instead of none"),
        (
            {},
            {"optimizer": AdamW(0.05, groups=[{"params": "2.bias", "lr": 1.0}])},
            r"'0.bias' is in another group than in the file.*groups=\[{'params': '\*.bias', 'weight_decay': 0.0}\]",
        ),
        (
            {"frozen": "0.*"},
            {},
            r"'0.bias' was frozen in the file and is trained here: give the trainer frozen=\['0.weight'",
        ),
        ({}, {"frozen": "0.weight"}, r"'0.weight' was trained in the file and is frozen here"),
        (
            {"optimizer": AdamW(0.05)},
            {"optimizer": AdamW(0.05, amsgrad=True)},
            r"'optimizer/vmax.0.weight' is missing: the file was saved with AdamW\(.*amsgrad=False\), and this trainer has",
        ),
        (
            {"optimizer": Adam(0.05, amsgrad=True)},
            {"optimizer": Adam(0.05)},
            r"'optimizer/vmax.\d.\w+' is not in this model and its optimizer.*saved with Adam\(.*amsgrad=True\)",
        ),
        ({"optimizer": SGD(0.1)}, {"optimizer": SGD(0.1, 0.9)}, r"saved with SGD\(lr=0.1, momentum=0.0"),
    ],
)
def test_another_grouping_is_named_and_changes_nothing(saved, loading, words, tmp_path):
    first = trainer(**saved)
    first.fit((X, Y), verbose=False)
    first.save(tmp_path / "m.safetensors")
    second = trainer(**loading)
    before = {name: array.copy() for name, array in second.params.items()}
    with pytest.raises(gr.CheckpointMismatch, match=words + r".*weights_only=True"):
        second.load(tmp_path / "m.safetensors")
    with pytest.raises(gr.CheckpointMismatch, match=words):
        second.fit((X, Y), resume=tmp_path / "m.safetensors", verbose=False)
    for name, array in before.items():
        np.testing.assert_array_equal(second.params[name], array)
    assert second.load(tmp_path / "m.safetensors", weights_only=True)
    np.testing.assert_array_equal(second.params["2.weight"], first.params["2.weight"])


def test_other_values_of_the_same_groups_are_fine(tmp_path):
    first = trainer()
    first.fit((X, Y), verbose=False)
    first.save(tmp_path / "m.safetensors")
    second = trainer(AdamW(0.01, groups=[{"params": ["0.bias", "2.bias"], "lr": 1e-3}]))
    assert "optimizer/m.0.bias" in second.load(tmp_path / "m.safetensors")


def test_a_file_from_before_there_were_groups(tmp_path):
    first = trainer(AdamW(0.05))
    first.fit((X, Y), verbose=False)
    first.save(tmp_path / "m.safetensors")
    tensors, metadata = gr.checkpoint.read(tmp_path / "m.safetensors")
    for key in ("groups", "frozen", "schedules"):
        del metadata[key]
    gr.checkpoint.write(tmp_path / "m.safetensors", tensors, metadata)
    second = trainer(AdamW(0.05))
    second.load(tmp_path / "m.safetensors")
    assert second.step_count == first.step_count
