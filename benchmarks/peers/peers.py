"""The peers in this folder, for ``gradring bench --peers-from benchmarks/peers``."""

STEP = {
    "torch": "step_torch:torch_eager",
    "torch.compile": "step_torch:torch_compiled",
    "torch.compile by hand": "step_torch:torch_step_compiled",
    "jax": "step_jax:jax_jit",
    "nn-engine-core": "nn_engine:step",
}
FIT = {
    "torch": "fit_torch:torch_eager",
    "torch.compile": "fit_torch:torch_compiled",
    "torch.compile by hand": "fit_torch:torch_epoch_compiled",
    "jax": "fit_jax:jax_jit",
    "jax scan": "fit_jax:jax_scan_epoch",
    "nn-engine-core": "nn_engine:epoch",
}
GEMM = {"jax": "gemm_jax:jax"}
DP = {
    "torch DDP": "dp_torch:ddp",
    "torch DDP, default": "dp_torch:ddp_default",
    "jax, 2 host devices": "dp_jax:sharded",
}
ALLREDUCE = "allreduce_mpi:entrants"
UNFAIR = {
    "oneCCL": "the wheel oneccl-cpu has a C++ library without headers, and no Python module: no call from NumPy arrays",
    "pypccl": "on Linux it has one wheel, for CPython 3.12, and it sends by TCP as gloo does",
}

_SAMPLES = {
    "torch samples, 0 workers": "loader_torch_others:samples workers=0",
    "torch samples, 1 worker": "loader_torch_others:samples workers=1",
    "torch samples, 2 workers": "loader_torch_others:samples workers=2",
}
_ONE_WORKER = {"torch batches, 1 worker": "gradring.bench.loader_torch:batches workers=1"}
_WINDOWS = {
    "torch windows, 0 workers": "loader_torch_others:windows workers=0",
    "torch windows, 0 workers, 1 thread": "loader_torch_others:windows workers=0 threads=1",
    "torch windows, 2 workers": "loader_torch_others:windows workers=2",
}
_OTHERS = {"spdl": "loader_others:spdl", "grain": "loader_others:grain"}
_ARRAYS = {**_OTHERS, "turboloader": "loader_turboloader:array_loader", **_SAMPLES, **_ONE_WORKER}
_SCALE = {**_ARRAYS, "tf.data": "loader_others:tf_data"}
_PROCESS = {
    **{name: factory for name, factory in _SAMPLES.items() if "0 workers" not in name},
    **_ONE_WORKER,
    **_OTHERS,
    "spdl, 1 ahead": "loader_others:spdl ahead=1",
}
LOADER = {
    "scale64": _SCALE,
    "scale512": _SCALE,
    "rows": _ARRAYS,
    "warm": _ARRAYS,
    "cold": {**_SAMPLES, **_ONE_WORKER, "turboloader": _ARRAYS["turboloader"]},
    "augment": {**_SAMPLES, **_ONE_WORKER, **_WINDOWS},
    "process2": _PROCESS,
    "process8": _PROCESS,
    "process32": _PROCESS,
    "first": {
        "torch samples, 2 spawned workers": "loader_torch_others:samples workers=2",
        "torch samples, 2 forked workers": "loader_torch_others:samples workers=2 start=fork",
        "spdl": "loader_others:spdl",
    },
    "handoff": {"spdl": "loader_latency_spdl:spdl_hand_off"},
}

DIFFERS = {"nn-engine-core": {"momentum": "its SGD has no momentum, so that it does less than the others"}}
