#!/bin/sh
# Checks the models of the ring with spin: no assertion fails and nobody waits for ever, in any interleaving.
# Needs spin and a C compiler. Prints one line per model and ends with 1 if any has an error.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
check() {
  name=$1
  shift
  spin "$@" -a "$here/$name.pml"
  ${CC:-cc} -O2 -w -DSAFETY -DCOLLAPSE -o pan pan.c
  ./pan -m1000000 > out
  grep -q "errors: 0" out && ! grep -q "search depth too small" out || { cat out; echo "$name $*: FAILED"; exit 1; }
  echo "$name $*: $(grep 'states, stored' out | tr -s ' ' | sed 's/^ //'), errors: 0"
}
check ring
check ring -DCLOSING -DPRODUCERS=2
check ring -DCELLS=3 -DTICKETS=7 -DPRODUCERS=2
check lane
