#!/usr/bin/env bash
# Meshes of real daemons on the kernel's ESP, IPv4, IPv6, and both at once: all pairs up, nothing lost, nothing in the clear.
. "$(dirname "$0")/../lib.sh"

for family in 4 6 both; do
    "$WARREN" lab demo --hosts "${1:-4}" --family $family --data-plane kernel
done
