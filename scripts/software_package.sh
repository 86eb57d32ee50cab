#!/bin/bash
# software_package.sh BUILD FOLDER: puts the package with the modules of a build (GRADRING_PYTHON=ON, GRADRING_CUDA=SOFTWARE) into a
# folder, as links, so that PYTHONPATH=FOLDER finds it where no gradring is installed:
#
#   cmake --build build/soft --target _core _cuda
#   scripts/software_package.sh build/soft build/package && PYTHONPATH=build/package python -m pytest tests/cuda
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
rm -rf "$2/gradring"  # links, and the bytecode that an interpreter has left among them
mkdir -p "$2/gradring"
ln -sfn "$root"/python/gradring/* "$build"/csrc/bindings/*.so "$build"/csrc/libgradring.so "$2/gradring/"
