#!/usr/bin/env bash
# tshark reads what two real daemons say to each other, and decrypts it with `warren keys export`.
# Ends 0 if every exchange of wireshark/plays.sh was seen, no frame is malformed, every IKE and ESP packet is
# decrypted, and nothing is unknown but what wireshark/judge.sh names.
# usage: wireshark.sh [WARREN [PLAY...]]
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

warren=${1:-target/release/warren}
[ $# -gt 0 ] && shift
work=$(mktemp -d)

die() { echo "wireshark: $*" >&2; exit 1; }

. interop/wireshark/stage.sh
. interop/wireshark/judge.sh
. interop/wireshark/plays.sh

cleanup() {
    local status=$?
    trap - EXIT
    # A run that failed shows what was seen.
    if [ "$status" != 0 ] && [ -s "$work/frames" ]; then cat "$work/frames" >&2; fi
    stop_capture
    lab_down || status=1
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

for tool in tshark tcpdump nft ip ping; do
    command -v "$tool" >/dev/null || die "no $tool; ./x packages names the packages"
done
[ "$(id -u)" = 0 ] || die "network namespaces need root"
[ -x "$warren" ] || die "no $warren; ./x build makes it"
[ $# -gt 0 ] || set -- "${PLAYS[@]}"

tshark --version 2>/dev/null | head -n 1
for play in "$@"; do
    "play_$play"
done
echo "no frame malformed, nothing unknown but what is named, all decrypted"
