#!/usr/bin/env bash
# Incidents on the kernel's ESP: those that are named, or all, or a short selection.
. "$(dirname "$0")/../lib.sh"

[ $# -gt 0 ] || set -- restart drift halfling rollout
exec "$WARREN" lab scenario "$@" --data-plane kernel --keep "$VM_OUT/logs"
