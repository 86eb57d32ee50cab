#!/bin/sh
# Fuzz the parsers of file headers: scripts/fuzz.sh [seconds]. Needs clang with libFuzzer (CLANG names another one).
# Starts from the committed corpus, with AddressSanitizer and UndefinedBehaviorSanitizer; fails on the first finding and
# leaves it in build/fuzz.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build/fuzz/corpus
"${CLANG:-clang++}" -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
  -Icsrc -Icsrc/include tests/fuzz/headers.cc csrc/loader/sources/npy_header.cc csrc/runtime/status.cc \
  -o build/fuzz/headers
exec build/fuzz/headers -max_total_time="${1:-60}" -max_len=4096 -rss_limit_mb=512 -malloc_limit_mb=64 \
  -dict=tests/fuzz/npy.dict -artifact_prefix=build/fuzz/ -print_final_stats=1 build/fuzz/corpus tests/fuzz/corpus
