#!/usr/bin/env bash
# A mesh of real daemons on the kernel's ESP: all pairs up, nothing lost, nothing in the clear.
. "$(dirname "$0")/../lib.sh"

exec "$WARREN" lab demo --hosts "${1:-4}" --data-plane kernel
