#!/bin/bash
# software_package.sh BUILD FOLDER: puts the package with the modules of a build (GRADRING_PYTHON=ON, GRADRING_CUDA=SOFTWARE) into a
# folder, as links, so that PYTHONPATH=FOLDER finds it where no gradring is installed:
#
#   cmake --build build/soft --target _core _cuda
#   scripts/software_package.sh build/soft build/package && PYTHONPATH=build/package python -m pytest tests/cuda
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
if [ -e "$2/gradring" ] && [ -n "$(find "$2/gradring" -mindepth 1 -maxdepth 1 ! -type l ! -name __pycache__)" ]; then
  echo "software_package.sh: $2/gradring has entries that are no links: give a folder that this script made, or a new one" >&2
  exit 1
fi
rm -rf "$2/gradring"  # links, and the bytecode that an interpreter has left among them
mkdir -p "$2/gradring"
ln -sfn "$root"/python/gradring/* "$build"/csrc/bindings/*.so "$build"/csrc/libgradring.so "$2/gradring/"
