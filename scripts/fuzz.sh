#!/bin/sh
# Fuzz the parsers of file headers: scripts/fuzz.sh [seconds] [folder]. Needs clang with libFuzzer (CLANG names another
# one). Starts from the committed corpus, with AddressSanitizer and UndefinedBehaviorSanitizer, and first makes sure that
# a planted error is found; fails on the first finding and leaves it in the folder, by default build/fuzz.
set -eu
cd "$(dirname "$0")/.."
folder=${2:-build/fuzz}
mkdir -p "$folder/corpus"
build() {
  "${CLANG:-clang++}" -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined "$@" \
    -Icsrc -Icsrc/include tests/fuzz/headers.cc csrc/loader/sources/npy_header.cc csrc/runtime/status.cc
}
build -DPLANTED_ERROR -o "$folder/planted"
if "$folder/planted" -runs=1000 -artifact_prefix="$folder/planted-" tests/fuzz/corpus 2>"$folder/planted.log"; then
  echo "the fuzzer does not notice that a header lies about its bytes" >&2
  exit 1
fi
rm -f "$folder"/planted-crash-*
build -o "$folder/headers"
exec "$folder/headers" -max_total_time="${1:-60}" -max_len=4096 -rss_limit_mb=512 -malloc_limit_mb=64 \
  -dict=tests/fuzz/npy.dict -artifact_prefix="$folder/" -print_final_stats=1 "$folder/corpus" tests/fuzz/corpus
