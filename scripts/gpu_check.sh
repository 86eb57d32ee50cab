#!/bin/bash
# Everything to run on a machine with a card, in one command, offline and without build isolation:
#
#   scripts/gpu_check.sh quick            under 5 minutes: build, kernels' tests, pytest -m gpu, benchmarks, memcheck, racecheck
#   scripts/gpu_check.sh full             also initcheck and synccheck, many more shapes, larger benchmarks, PyTorch's kernels
#                                         beside ours, and a profile of ours
#   scripts/gpu_check.sh rehearse         the same steps on the software device, for a machine without a card
#
# Results go to $OUT (default: gpu-check) as they come: one log per part, and summary.txt. Each part has a time limit, and a part
# that fails or runs too long does not stop the others. A part whose program is not on the machine is left out, and the summary says
# so. Exit status 0 only if every other part passed.
set -u -o pipefail
cd "$(dirname "$0")/.."
mode=${1:-quick}
case $mode in quick | full | rehearse) ;; *) echo "usage: $0 quick|full|rehearse" && exit 2 ;; esac
out=${OUT:-gpu-check}
build=${GPU_CHECK_BUILD:-build/gpu-check}
jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
mkdir -p "$out"
: >"$out/summary.txt"
failed=0

# What does not run, and why: left_out NAME WHY.
left_out() {
  echo "  $1: left out, $2" | tee -a "$out/summary.txt"
}

# part NAME SECONDS COMMAND...  In quick mode, all parts together have five minutes.
part() {
  local name=$1 limit=$2 begin=$SECONDS result=passed
  shift 2
  if [ "$mode" = quick ] && [ $limit -gt $((295 - SECONDS)) ]; then
    limit=$((295 - SECONDS))
    [ $limit -ge 5 ] || { left_out "$name" "the five minutes are over"; failed=1; return; }
  fi
  echo "=== $name" | tee -a "$out/summary.txt"
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  local code=$?
  [ $code = 0 ] || { result="FAILED ($code)" failed=1; tail -n 20 "$out/$name.log"; }
  [ $code = 124 ] && result="FAILED (longer than $limit s)"
  echo "  $name: $result, $((SECONDS - begin)) s" | tee -a "$out/summary.txt"
}

if [ "$mode" = rehearse ]; then
  cuda=SOFTWARE
  card="the software device"
else
  cuda=ON
  card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1) || { echo "nvidia-smi finds no card"; exit 1; }
fi
echo "$card, $(date -u +%Y-%m-%d)" | tee -a "$out/summary.txt"

# cuBLAS may be in the Python environment alone.
blas=$(python -c 'from cuda import pathfinder; print(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path)' 2>/dev/null) &&
  export LD_LIBRARY_PATH=${blas%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

targets=(cuda_ops_tests cuda_ops_bench)
[ "$cuda" = SOFTWARE ] && targets+=(software_device_tests)
# The tests in Python use a gradring that is installed for this device, or the modules of this build.
can_train() {
  python -c "from gradring import _cuda; raise SystemExit(_cuda.devices()['software'] != ('$cuda' == 'SOFTWARE'))" 2>/dev/null
}
python=(-DGRADRING_PYTHON=OFF)
if ! can_train && folder=$(python -m pybind11 --cmakedir 2>/dev/null); then
  python=(-DGRADRING_PYTHON=ON -DPython_EXECUTABLE="$(command -v python)" -Dpybind11_DIR="$folder")
  targets+=(_core _cuda)
fi
part configure 60 cmake -S . -B "$build" -G Ninja "${python[@]}" -DGRADRING_TESTS=ON -DGRADRING_CUDA=$cuda \
  -DGRADRING_ONE_ISA=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 -DCMAKE_CUDA_ARCHITECTURES="${GPU_CHECK_ARCH:-native}"
part build 170 cmake --build "$build" -j "$jobs" --target "${targets[@]}"

tests=$build/csrc/ops/cuda_ops_tests
shapes=24
# A rehearsal is of this script: the tests of every kernel have run before it.
[ "$mode" = rehearse ] && shapes=2
[ "$mode" = full ] && shapes=200
part kernels 120 env GRADRING_CUDA_SHAPES=$shapes "$tests"
if [ "$cuda" = SOFTWARE ]; then
  part software-device 120 "$build/csrc/cuda/software_device_tests"
fi
if [[ " ${targets[*]} " = *" _cuda "* ]] && scripts/software_package.sh "$build" "$out/package"; then
  PYTHONPATH=$(cd "$out/package" && pwd)
  export PYTHONPATH
fi
if ! can_train; then
  left_out pytest "gradring is not installed for this device, nor pybind11, or it is installed without CUDA"
elif [ "$mode" = rehearse ]; then
  part pytest 300 python -m pytest -q -p no:cacheprovider -m gpu tests/cuda  # the other tests need more packages
else
  part pytest 60 python -m pytest -q -p no:cacheprovider -m gpu tests
fi

# Ceilings first, then our kernels, then those of others.
bench=$build/csrc/ops/cuda_ops_bench
case $mode in
  quick) part benchmarks 60 "$bench" quick ;;
  full) part benchmarks 300 "$bench" full ;;
  rehearse) part benchmarks 60 "$bench" small ;;
esac
size=$mode
[ "$mode" = rehearse ] && size=small
if [ "$mode" = quick ]; then
  :
elif python -c 'import torch' 2>/dev/null; then
  part peers 300 python scripts/gpu_peers.py "$size"
else
  left_out peers "there is no PyTorch here"
fi
if [ "$mode" = full ] && command -v nsys >/dev/null; then
  part profile 120 nsys profile --force-overwrite true -o "$out/profile" --stats=true "$bench" quick
elif [ "$mode" != quick ]; then
  left_out profile "it needs a card and nsys"
fi

if [ "$cuda" != SOFTWARE ]; then
  checks=(memcheck racecheck)
  [ "$mode" = full ] && checks+=(initcheck synccheck)
  for check in "${checks[@]}"; do
    command -v compute-sanitizer >/dev/null || { left_out "$check" "there is no compute-sanitizer here"; continue; }
    part "$check" 90 env GRADRING_CUDA_SHAPES=1 compute-sanitizer --tool "$check" --error-exitcode 9 "$tests"
  done
fi
cat "$out/summary.txt"
exit $failed
