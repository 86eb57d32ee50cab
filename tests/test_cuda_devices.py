"""The errors where a CUDA device cannot be used."""

import subprocess
import sys

import pytest

import gradring as gr
from gradring import cuda_devices
from gradring.cli.doctor import examine


def found(problem=None, devices=(), driver=13000):
    return {
        "problem": problem,
        "devices": list(devices),
        "driver_version": driver,
        "runtime_version": 13000,
        "software": False,
    }


def problem(code, name="cudaErrorX", text="what the runtime says"):
    return {"code": code, "call": "cudaGetDeviceCount", "name": name, "text": text}


DEVICE = {"name": "a card", "capability": (9, 0), "processors": 132, "bytes": 2**36}


def hear(monkeypatch, report, device="cuda"):
    monkeypatch.setattr(cuda_devices, "report", lambda: report)
    with pytest.raises(gr.DeviceUnavailable) as caught:
        cuda_devices.require(device, "Trainer")
    return str(caught.value)


def test_import_of_gradring_imports_no_cuda_module():
    code = "import sys, gradring; gradring.Trainer; assert 'gradring._cuda' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_build_without_cuda_says_how_to_build_it(monkeypatch):
    assert "built without CUDA" in hear(monkeypatch, None)
    assert "CUDACXX=nvcc pip install" in hear(monkeypatch, None)


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (35, "driver"),
        (100, "CUDA_VISIBLE_DEVICES"),
        (3, "forked"),
        (209, "CMAKE_CUDA_ARCHITECTURES"),
        (999, "nvidia-smi"),
        *((code, "start a new process") for code in (214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719)),
    ],
)
def test_every_problem_comes_with_its_cure(monkeypatch, code, cure):
    message = hear(monkeypatch, found(problem(code)))
    assert "cudaGetDeviceCount" in message and str(code) in message
    assert cure in message


def test_no_driver_is_told_from_an_old_one(monkeypatch):
    monkeypatch.setattr(cuda_devices, "_driver_library", lambda: False)
    assert "no NVIDIA driver" in hear(monkeypatch, found(problem(35), driver=0))
    assert "580" in hear(monkeypatch, found(problem(35), driver=11080))


def test_a_device_number_that_does_not_exist_names_those_that_do(monkeypatch):
    message = hear(monkeypatch, found(devices=[DEVICE, DEVICE]), "cuda:2")
    assert "no cuda:2" in message and "cuda:0, cuda:1" in message
    assert cuda_devices.require("cuda:1", "Trainer") == 1


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cudax", "gpu"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="write 'cpu', 'cuda' or 'cuda:0'"):
        cuda_devices.require(name, "Trainer")


@pytest.mark.parametrize(
    ("device", "error", "said"),
    [("tpu", ValueError, "write 'cpu'"), ("", ValueError, "write 'cpu'"), (None, TypeError, "text"), (1, TypeError, "text")],
)
def test_trainer_loader_and_to_agree_on_what_is_no_device(device, error, said):
    model = gr.nn.Linear(4, 3)
    for use in (
        lambda: gr.Trainer(model, device=device),
        lambda: gr.Loader([1.0, 2.0], 2, device=device),
        lambda: model.to(device),
    ):
        with pytest.raises(error, match=said) as caught:
            use()
        assert not isinstance(caught.value, gr.DeviceUnavailable)


def test_trainer_and_doctor_use_the_same_words(monkeypatch):
    monkeypatch.setattr(cuda_devices, "report", lambda: None)
    model = gr.nn.Sequential(gr.nn.Linear(4, 3))
    with pytest.raises(gr.DeviceUnavailable) as caught:
        gr.Trainer(model, device="cuda")
    line = next(finding for finding in examine() if finding.topic == "CUDA")
    assert line.value in str(caught.value) and line.advice in str(caught.value)


def test_the_module_of_this_installation_answers_or_is_absent():
    pytest.importorskip("gradring._cuda", reason="this installation was built without CUDA")
    from gradring import _cuda

    report = _cuda.devices()
    assert report["problem"] is None or report["problem"]["code"] > 0
    if report["devices"]:
        assert _cuda.try_device(0) is None


@pytest.mark.gpu
def test_every_card_runs_a_kernel_and_has_those_of_the_ops():
    _cuda = pytest.importorskip("gradring._cuda", reason="this installation was built without CUDA")
    count = len(_cuda.devices()["devices"])
    if count == 0:
        pytest.skip("there is no CUDA device")
    assert [_cuda.try_device(number) for number in range(count)] == [None] * count
    assert {"adam", "cross_entropy", "linear", "softmax"} <= set(_cuda.kernels())
