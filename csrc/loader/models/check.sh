#!/bin/bash
# Checks the models of the ring with spin: in every interleaving no slot is lost, doubled or overwritten, and nobody waits
# for ever. Then plants one bug after the other and expects spin to find it, or the models could not find such a bug in
# the real thing. Needs spin and a C compiler; ends with 1 if anything is not as it should be.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

verify() {  # MODEL DEFINITIONS...: the number of errors that spin finds
  local model=$1
  shift
  spin "$@" -a "$here/$model.pml" >spin.log || { cat spin.log >&2; exit 1; }
  "${CC:-cc}" -O2 -w -DSAFETY -DCOLLAPSE -o pan pan.c
  ./pan -m1000000 -w26 >pan.log
  ! grep -q 'max search depth too small' pan.log || { echo "the search was cut off" >&2; exit 1; }
  grep -oE 'errors: [0-9]+' pan.log | grep -oE '[0-9]+'
}

while read -r model; do
  # shellcheck disable=SC2086
  errors=$(verify $model)
  echo "$model: $(grep -oE '[0-9]+ states, stored' pan.log), errors: $errors"
  [ "$errors" = 0 ] || { cat pan.log; exit 1; }
done <<'END'
ring
ring -DCLOSING -DPRODUCERS=2
ring -DHELPING -DPRODUCERS=2
ring -DHELPING -DCLOSING -DPRODUCERS=1
ring -DCELLS=3 -DTICKETS=7 -DPRODUCERS=2
ring -DVARYING -DPRODUCERS=2
ring -DVARYING -DCELLS=3 -DTICKETS=7 -DPRODUCERS=1
ring -DVARYING -DHELPING -DPRODUCERS=1
ring -DVARYING -DCLOSING -DPRODUCERS=1
lane
END

for model in ring lane; do
  for bug in $(grep -oE 'BUG_[A-Z_]*[A-Z]' "$here/$model.pml" | sort -u); do
    options=()
    [ "$model" = lane ] || options=(-DPRODUCERS=2 -DTICKETS=4)
    [ "$bug" != BUG_CLOSES_WITHOUT_WAKING ] || options+=(-DCLOSING)
    [[ $bug != BUG_CLAIMS_WHAT* && $bug != BUG_HELPS* ]] || options+=(-DHELPING)
    [ "$bug" != BUG_ALLOWS_ONE_TOO_MANY ] || options+=(-DVARYING)
    errors=$(verify "$model" "-D$bug" "${options[@]}")
    echo "$model with $bug: errors: $errors"
    [ "$errors" != 0 ] || { echo "the model does not find $bug" >&2; exit 1; }
  done
done
