#!/bin/bash
# check_model.sh MODEL...: runs spin on models of protocols (*.pml). Lines of a model's opening comment say how:
#
#   holds: DEFINITIONS            no interleaving may have an error
#   finds: DEFINITIONS            with each BUG_ of the file planted, one of these lines must find it, or the model
#   finds BUG_NAME: DEFINITIONS   could not find such a bug in the real thing either; the second form is for that bug
#
# Needs spin and a C compiler; ends with 1 if anything is not as it should be.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

verify() {  # MODEL -O.. DEFINITIONS...: the number of errors that spin finds; its log is $work/pan.log
  local model=$1 optimize=$2
  shift 2
  (
    cd "$work"
    spin -a "$@" "$model" >spin.log || { cat spin.log >&2; exit 1; }
    "${CC:-cc}" "$optimize" -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c
    ./pan -m1000000 -w26 >pan.log
    ! grep -q 'max search depth too small' pan.log || { echo "the search was cut off" >&2; exit 1; }
    grep -oE 'errors: [0-9]+' pan.log | grep -oE '[0-9]+'
  )
}

lines() {  # MODEL KEY: the definitions that follow " * KEY:", a line each
  sed -n "s/^ \* $2: *//p" "$1"
}

for model in "$@"; do
  model=$(realpath "$model")
  name=$(basename "$model" .pml)
  [ -n "$(lines "$model" holds)" ] || { echo "$model says nothing of what holds" >&2; exit 1; }
  while read -r -a definitions; do
    errors=$(verify "$model" -O2 "${definitions[@]}")
    echo "$name ${definitions[*]}: $(grep -oE '[0-9]+ states, stored' "$work/pan.log"), $errors errors"
    [ "$errors" = 0 ] || { cat "$work/pan.log"; exit 1; }
  done < <(lines "$model" holds)
  for bug in $(grep -oE '#(if|ifdef|ifndef) .*BUG_[A-Z_]+' "$model" | grep -oE 'BUG_[A-Z_]+' | sort -u); do
    key="finds $bug"
    [ -n "$(lines "$model" "$key")" ] || key=finds
    errors=0
    while read -r -a definitions; do
      # An error is found soon, so compiling takes most of the time.
      errors=$(verify "$model" -O1 "-D$bug" "${definitions[@]}")
      [ "$errors" = 0 ] || break
    done < <(lines "$model" "$key")
    echo "$name with $bug: $errors errors"
    [ "$errors" != 0 ] || { echo "the model does not find $bug" >&2; exit 1; }
  done
done
