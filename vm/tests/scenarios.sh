#!/usr/bin/env bash
# Incidents on the kernel's ESP: `warren lab scenario`, the names given or a short selection.
. "$(dirname "$0")/../lib.sh"

[ $# -gt 0 ] || set -- mesh restart drift halfling rollout add-remove
failed=()
for name in "$@"; do
    "$WARREN" lab scenario "$name" --data-plane kernel ${HOSTS:+--hosts "$HOSTS"} --keep "$VM_OUT/$name" || failed+=("$name")
done
[ ${#failed[@]} = 0 ] || fail "${failed[*]}"
