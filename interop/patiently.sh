#!/usr/bin/env bash
# patiently.sh SECONDS COMMAND…: runs what asks a mirror, each of three tries no longer than that: one that stands still costs
# minutes, not the whole run.
for try in 1 2 3; do
    timeout -k 5 "$@" </dev/null && exit
    echo "patiently: try $try of 3 failed: $2 ${*: -1}" >&2
done
exit 1
