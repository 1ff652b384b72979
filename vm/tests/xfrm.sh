#!/usr/bin/env bash
# Crate linux drives the kernel's ESP: SAs of every suite, traps, limits, moves, drift (crates/linux/examples/xfrm_selftest.rs).
. "$(dirname "$0")/../lib.sh"

target=$(cd "$(dirname "$0")/../.." && pwd)/target
# shellcheck disable=SC2012 # the newer build of the two
program=$(ls -t "$target"/{release,debug}/examples/xfrm_selftest 2>/dev/null | head -n 1 || true)
[ -n "$program" ] || fail "not built: cargo build --release -p warren-linux --example xfrm_selftest"
# Without them each first SA waits for its cipher.
modprobe -aq authenc echainiv seqiv gcm ctr cbc chacha20poly1305 sha1_generic sha256_generic sha512_generic || true
mkdir -p /run/netns
"$program" || fail "xfrm_selftest"
say "the kernel as a data plane"
