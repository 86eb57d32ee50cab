#!/bin/bash
# Everything to run on a machine with a card, in one command, offline and without build isolation:
#
#   scripts/gpu_check.sh quick            under 5 minutes: build, kernels' tests, pytest -m gpu, memcheck, racecheck
#   scripts/gpu_check.sh full             also initcheck and synccheck, and many more shapes
#   scripts/gpu_check.sh rehearse         the same steps on the software device, for a machine without a card
#
# Results go to $OUT (default: gpu-check) as they come: one log per part, and summary.txt. Each part has a time limit, and a part
# that fails or runs too long does not stop the others. Exit status 0 only if every part passed.
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

# part NAME SECONDS COMMAND...
part() {
  local name=$1 limit=$2 begin=$SECONDS result=passed
  shift 2
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

part configure 60 cmake -S . -B "$build" -G Ninja -DGRADRING_PYTHON=OFF -DGRADRING_TESTS=ON -DGRADRING_CUDA=$cuda \
  -DGRADRING_ONE_ISA=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 -DCMAKE_CUDA_ARCHITECTURES="${GPU_CHECK_ARCH:-native}"
targets=(cuda_ops_tests)
[ "$cuda" = SOFTWARE ] && targets+=(software_device_tests)
part build 170 cmake --build "$build" -j "$jobs" --target "${targets[@]}"

tests=$build/csrc/ops/cuda_ops_tests
shapes=24
[ "$mode" = full ] && shapes=200
part kernels 120 env GRADRING_CUDA_SHAPES=$shapes "$tests"
if [ "$cuda" = SOFTWARE ]; then
  part software-device 120 "$build/csrc/cuda/software_device_tests"
else
  checks=(memcheck racecheck)
  [ "$mode" = full ] && checks+=(initcheck synccheck)
  for check in "${checks[@]}"; do
    part "$check" 90 env GRADRING_CUDA_SHAPES=1 compute-sanitizer --tool "$check" --error-exitcode 9 "$tests"
  done
fi
if python -c 'import gradring._cuda' 2>/dev/null; then
  part pytest 120 python -m pytest -q -m gpu tests
else
  echo "  pytest: left out, gradring is not installed with CUDA here" | tee -a "$out/summary.txt"
fi
cat "$out/summary.txt"
exit $failed
