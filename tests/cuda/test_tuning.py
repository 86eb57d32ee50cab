"""The algorithms of matrix products that timing chooses on a CUDA device, in plans and checkpoints."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

import gradring as gr
from gradring import checkpoint, cuda_devices

# Without a test's help, both algorithms of the software device take the same time, and the heuristic's first is kept.
SLOW_FIRST = "sums_in_halves<T>:9"

TUNED = """
import sys
import numpy as np, gradring as gr
folder = sys.argv[1]
with np.load(f"{folder}/data.npz") as data:
    x, y = data["x"], data["y"]
for epochs in (1, 3):
    model = gr.nn.Sequential(gr.nn.Linear(8, 16), gr.nn.ReLU(), gr.nn.Linear(16, 3))
    trainer = gr.Trainer(model, optimizer=gr.optim.AdamW(1e-2), device="cuda", seed=3, tune=True)
    trainer.fit((x, y), epochs=epochs, batch_size=64, verbose=False)
    trainer.save(f"{folder}/{epochs}.safetensors")
"""


@pytest.fixture(scope="module", autouse=True)
def _software():
    found = cuda_devices.report()
    if found is None or not found["software"]:
        pytest.skip("only the software device lets a test say how long a kernel takes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The checkpoints of a tuned training after one and after three epochs, in which the first algorithm was the slow one."""
    folder = tmp_path_factory.mktemp("tuned")
    random = np.random.default_rng(1)
    y = random.integers(0, 3, 250)
    x = (random.normal(size=(250, 8)) + y[:, None]).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=y)
    environment = {**os.environ, "GRADRING_CUDA_TIMES": SLOW_FIRST}
    subprocess.run([sys.executable, "-c", TUNED, folder], env=environment, check=True)
    return folder


def data(folder):
    with np.load(folder / "data.npz") as arrays:
        return arrays["x"], arrays["y"]


def trainer(device="cuda", **options):
    model = gr.nn.Sequential(gr.nn.Linear(8, 16), gr.nn.ReLU(), gr.nn.Linear(16, 3))
    return gr.Trainer(model, optimizer=gr.optim.AdamW(1e-2), device=device, seed=3, **options)


def resumed(folder, path, **options):
    made = trainer(**options)
    made.fit(data(folder), epochs=3, batch_size=64, resume=path, verbose=False)
    return made


def changed(folder, change):
    """The checkpoint after one epoch, with another record of algorithms, or without one."""
    tensors, metadata = checkpoint.read(folder / "1.safetensors")
    text = change(metadata.pop("algorithms"))
    if text is not None:
        metadata["algorithms"] = text
    checkpoint.write(folder / "changed.safetensors", tensors, metadata)
    return folder / "changed.safetensors"


def bits(params):
    return {name: np.asarray(array).tobytes() for name, array in params.items()}


def whole(folder):
    tensors, metadata = checkpoint.read(folder / "3.safetensors")
    return bits({name: array for name, array in tensors.items() if "/" not in name}), metadata["algorithms"]


@pytest.mark.parametrize("tune", [True, False])
def test_a_resumed_training_has_the_bits_of_one_without_a_break(folder, tune):
    want, record = whole(folder)
    made = resumed(folder, folder / "1.safetensors", tune=tune)
    assert bits(made.params) == want
    made.save(folder / "again.safetensors")
    assert checkpoint.read(folder / "again.safetensors")[1]["algorithms"] == record
    assert made.plan().algorithms == record
    assert "algorithms of products recorded for cublasLt" in str(made.plan())


def test_a_record_counts_for_a_trainer_that_has_already_captured_its_graphs(folder):
    made = trainer(tune=True)
    made.fit(data(folder), epochs=1, batch_size=64, verbose=False)
    made.load(folder / "1.safetensors")
    made.fit(data(folder), epochs=3, batch_size=64, resume=folder / "1.safetensors", verbose=False)
    assert bits(made.params) == whole(folder)[0]


def test_a_state_dict_carries_the_record(folder):
    first = trainer()
    first.load(folder / "1.safetensors")
    state = first.state_dict()
    second = trainer()
    second.load_state_dict(state)
    assert second.state_dict()["algorithms"] == state["algorithms"]
    for made in (first, second):
        made.fit(data(folder), epochs=1, batch_size=64, verbose=False)
    assert bits(first.params) == bits(second.params)
    with pytest.raises(ValueError, match="algorithms"):
        second.load_state_dict({**state, "algorithms": "no record"})


@pytest.mark.parametrize("tune", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: None,
        lambda text: text.replace("software device", "another card", 1),
        lambda text: text.replace("cublasLt 130000", "cublasLt 130100", 1),
    ],
    ids=("no record", "another device", "another library"),
)
def test_without_a_record_of_this_device_the_training_goes_on_with_other_bits(folder, change, tune):
    path = changed(folder, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = resumed(folder, path, tune=tune)
    want, record = whole(folder)
    assert bits(made.params) != want
    for name, array in made.params.items():
        other = np.frombuffer(want[name], array.dtype).reshape(array.shape)
        np.testing.assert_allclose(array.numpy(), other, atol=1e-4)
    if tune:
        chosen = made.session.algorithms()
        assert chosen.splitlines()[0] == record.splitlines()[0] and chosen != record
    else:
        assert made.session.algorithms() == ""


@pytest.mark.parametrize("change", [lambda text: None, lambda text: text.replace("software device", "another card", 1)])
def test_a_checkpoint_without_a_record_of_this_device_ends_the_use_of_an_earlier_one(folder, change):
    path = changed(folder, change)
    fresh = resumed(folder, path)
    made = trainer()
    made.fit(data(folder), epochs=2, batch_size=64, resume=folder / "1.safetensors", verbose=False)
    assert made.session.algorithms()
    made.fit(data(folder), epochs=3, batch_size=64, resume=path, verbose=False)
    assert made.session.algorithms() == "" and bits(made.params) == bits(fresh.params)


@pytest.mark.parametrize("change", [lambda text: "no record", lambda text: text[:-20], lambda text: text + "x"])
def test_a_record_that_is_damaged_is_named_and_changes_nothing(folder, change):
    path, made = changed(folder, change), trainer(tune=True)
    made.fit(data(folder), epochs=1, batch_size=64, verbose=False)
    before, record = bits(made.params), made.session.algorithms()
    with pytest.raises(gr.CheckpointCorrupt, match="algorithms of products"):
        made.load(path)
    assert bits(made.params) == before and made.session.algorithms() == record


def test_a_record_that_the_library_refuses_is_told(folder):
    def other_algorithm(text):
        head, first, *rest = text.splitlines()
        words = first.split(" ")
        words[11] = "7"  # after sizes, strides, flags, dtypes, alignment and the workspace comes the algorithm
        return "\n".join([head, " ".join(words), *rest, ""])

    made = trainer()
    with pytest.warns(UserWarning, match="refuses the algorithms"):
        made.load(changed(folder, other_algorithm))
    assert made.session.algorithms() == ""


def test_the_cpu_and_weights_alone_ignore_a_record(folder, tmp_path):
    cpu = trainer("cpu", tune=True)
    cpu.load(folder / "1.safetensors")
    cpu.save(tmp_path / "cpu.safetensors")
    assert "algorithms" not in checkpoint.read(tmp_path / "cpu.safetensors")[1]
    device = trainer()
    device.load(folder / "1.safetensors", weights_only=True)
    assert device.session.algorithms() == ""


def test_without_tune_no_algorithm_is_recorded(folder):
    made = trainer()
    made.fit(data(folder), epochs=1, batch_size=64, verbose=False)
    made.save(folder / "plain.safetensors")
    assert "algorithms" not in checkpoint.read(folder / "plain.safetensors")[1]
    assert "algorithms" not in made.state_dict() and made.plan().algorithms == ""
