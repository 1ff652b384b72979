#!/usr/bin/env bash
# Incidents on the kernel's ESP: those that are named, or all, or a short selection.
. "$(dirname "$0")/../lib.sh"

# Not `restart`: it asks for control within a second, which an emulated processor may not have; restart.sh does the rest.
[ $# -gt 0 ] || set -- drift halfling
exec "$WARREN" lab scenario "$@" --data-plane kernel --keep "$VM_OUT/logs"
