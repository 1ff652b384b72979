#!/usr/bin/env bash
# A stranger scans hosts of a mesh with ike-scan: each gets the answer that the RFC says, or none; nothing of it stays;
# tunnels do not notice. Ends 0 if so.
# usage: ike-scan.sh [WARREN]
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

warren=${1:-target/release/warren}
work=$(mktemp -d)
lab=
stream=
# Handshakes that nobody finishes are forgotten after 30 s (docs/rfc7296.md, 2.4).
FORGOTTEN=45
# First requests of one round.
MANY=400

die() { echo "ike-scan: $*" >&2; exit 1; }

cleanup() {
    local status=$?
    trap - EXIT
    [ -z "$stream" ] || kill "$stream" 2>/dev/null || true
    [ -z "$lab" ] || "$warren" lab down >/dev/null || status=1
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

on() { "$warren" lab exec "$@"; }

manifest() { # IKE-PROPOSALS
    cat >"$work/manifest.yml" <<YML
ipsec_subnets: [10.98.0.0/24]
psk: a pre-shared key for the scanned
ike_proposals: $1
YML
}

# scan WANTED OPTIONS…: what ike-scan is told; nothing if WANTED is empty.
scan() {
    local wanted=$1
    shift
    on h3 ike-scan --timeout=300 --retry=2 "$@" >"$work/told" 2>&1
    grep -P '\t' "$work/told" | sort | uniq -c | sed 's/CKY-R=[0-9a-f]*[1-9a-f][0-9a-f]*/CKY-R=…/' >"$work/lines" || true
    printf 'ike-scan %s: %s\n' "$*" "$(sed 's/^ *//' "$work/lines" | grep . || echo silence)"
    if [ -n "$wanted" ]; then
        grep -q "$wanted" "$work/told" || die "no $wanted: $(cat "$work/told")"
    elif [ -s "$work/lines" ]; then
        die "an answer where there must be none"
    fi
}

# number KEY: of h2's status.
number() {
    on h2 warren status --json | grep -oE "\"$1\": ?[0-9]+" | grep -oE '[0-9]+$' || echo 0
}

counted() { # KEY AT-LEAST
    local n
    n=$(number "$1")
    [ "$n" -ge "$2" ] || die "the status counts $n of \`$1\`, not $2"
    printf 'status: %s: %d\n' "$1" "$n"
}

spis() { on h1 warren status --json | grep -oE '"spi_[a-z]+": ?"[0-9a-fx]+"' | sort; }

# Of h2's daemon, in KiB.
memory() { awk '$1 == "VmRSS:" { print $2 }' "/proc/$pid/status"; }

many() { seq $MANY | sed "s/.*/$two/" | on h3 ike-scan --ikev2 --dhgroup=14 --retry=1 --interval=1 --file=- >"$work/told"; }

for tool in ike-scan ping; do
    command -v "$tool" >/dev/null || die "no $tool; ./x packages names the packages"
done
[ "$(id -u)" = 0 ] || die "network namespaces need root"
[ -x "$warren" ] || die "no $warren; ./x build makes it"

# ike-scan offers what was usual once: one of its suites is taken for the sake of what follows from it.
manifest aes128-sha1-modp2048
"$warren" --json lab up --hosts 3 -m "$work/manifest.yml" >"$work/lab.json"
lab=up
one=10.98.0.1 two=10.98.0.2
pid=$(grep -oE '"pids": ?\[[0-9, ]+\]' "$work/lab.json" | grep -oE '[0-9]+' | sed -n 2p)
# The third host leaves the mesh and scans.
on h3 warren stop --flush >/dev/null
on h1 ping -q -c 1 -W 5 $two >/dev/null || die "no answer from $two"
spis >"$work/before"
# Without a function in between, `$!` is ping itself.
"$warren" lab exec h1 ping -q -i 0.02 $two >"$work/ping" 2>&1 &
stream=$!

scan INVALID_KE_PAYLOAD --ikev2 $two
scan "Handshake returned" --ikev2 --dhgroup=14 $two
# From a place where no peer is.
scan "" --ikev2 --sourceip=10.97.0.9 $two
# IKEv1, which is too low a version for any answer (RFC 7296 2.5).
scan "" $two
scan "" --aggressive --id=scanner $two
manifest aes256-sha384-ecp384
on h1 warren reload >/dev/null
scan NO_PROPOSAL_CHOSEN --ikev2 $one
# Several handshakes of one address that are never finished.
# shellcheck disable=SC2046
scan COOKIE --ikev2 --dhgroup=14 $(seq 8 | sed "s/.*/$two/")

many
at_first=$(memory)
for _ in 1 2 3; do many; done
printf '%d first requests more: %d KiB before, %d KiB after\n' $((3 * MANY)) "$at_first" "$(memory)"
[ "$(memory)" -le $((at_first + 1024)) ] || die "memory grows with each scan"
half_open=$(number half_open)
[ "$half_open" -le 16 ] || die "$half_open half-open SAs for one address"
printf 'half-open: %d\n' "$half_open"

counted COOKIE $MANY
counted INVALID_KE_PAYLOAD 1
counted "half-open limit" $MANY
counted "not a peer" 1
counted "unsupported major version" 2

tries=$FORGOTTEN
until [ "$(number half_open)" = 0 ]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || die "$(number half_open) half-open SAs after $FORGOTTEN s"
    sleep 1
done
printf 'half-open: none after %d s more\n' $((FORGOTTEN - tries))

# A job in the background ignores an interrupt; a quit makes ping say what it has counted and go on.
kill -QUIT "$stream"
sleep 0.2
kill "$stream"
wait "$stream" || true
stream=
spis | cmp -s - "$work/before" || die "the tunnel is another one"
grep ' 0% loss' "$work/ping" || die "the tunnel lost packets: $(cat "$work/ping")"
on h2 warren status --json | grep -q "\"address\": ?\"10.98.0.3\"" && die "the scanner is among the peers"
echo "answered as the RFC says, nothing left over"
