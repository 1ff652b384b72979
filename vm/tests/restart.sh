#!/usr/bin/env bash
# Daemons on the kernel's ESP are killed, stopped and started again: the same SAs serve on, no packet is lost, no
# handshake is sent, and afterwards the SAs can still be rekeyed.
. "$(dirname "$0")/../lib.sh"

A=10.77.0.1 B=10.77.0.2 MANIFEST=/vm/warren.yml
printf 'ipsec_subnets: [10.77.0.0/24]\npsk: correct horse battery staple\n' >$MANIFEST
declare -A PID

warren() { on "$1" "$WARREN" --control /run/control.sock "${@:2}"; }

daemon() {
    nsenter "--net=/run/netns/$1" "--mount=$VM_HOSTS/$1/ns" -- "$WARREN" --control /run/control.sock \
        run -m $MANIFEST --state-dir /run/warren --data-plane kernel >>"$VM_OUT/$1.log" 2>&1 &
    PID[$1]=$!
    wait_for 30 "the daemon of $1" warren "$1" status
}

# again HOST SIGNAL
again() {
    kill "-$2" "${PID[$1]}"
    wait "${PID[$1]}" 2>/dev/null || true
    daemon "$1"
}

spis() { on "$1" ip xfrm state | grep -o 'spi 0x[0-9a-f]*' | sort; }

same_spis() {
    [ "$(spis a)" = "$1" ] || fail "$2: other SAs: $(spis a) instead of $1"
    [ "$(spis b)" = "$1" ] || fail "$2: other SAs on the peer: $(spis b) instead of $1"
}

lan_new
host_new a $A/24
host_new b $B/24
daemon a
daemon b
ping_until 30 a $B
ping_all b $A 3
two_sas() { [ "$(spis a | wc -l)" = 2 ] && [ "$(spis a)" = "$(spis b)" ]; }
wait_for 20 "one pair of SAs" two_sas
before=$(spis a)
# First packets before there were SAs.
errors="$(xfrm_errors a) $(xfrm_errors b)"
capture_start restart.pcap
on a ping -n -q -i 0.05 -c 600 -W 2 $B >"$VM_OUT/ping" &
ping=$!
for round in 'a KILL' 'b KILL' 'a TERM' 'b TERM'; do
    # shellcheck disable=SC2086
    again $round
    pause 1
    same_spis "$before" "$round"
done
wait $ping || true
grep -q ' 0% packet loss' "$VM_OUT/ping" || fail "packets are lost: $(cat "$VM_OUT/ping")"
same_spis "$before" "in the end"
warren a rekey $B >/dev/null
rekeyed() { two_sas && [ "$(spis a)" != "$before" ]; }
wait_for 30 "a rekey" rekeyed
ping_all a $B 10
capture_stop
only_esp restart.pcap 1000
# RFC 7296 3.1: the exchange type is the 19th byte of the message.
[ "$(captured restart.pcap 'udp port 500 and udp[26] = 34')" = 0 ] || fail "a handshake was sent"
[ "$(xfrm_errors a) $(xfrm_errors b)" = "$errors" ] || fail "xfrm_stat: $(xfrm_errors a) $(xfrm_errors b), before $errors"
say "four restarts: the same SAs, no packet of 600 lost, no handshake"
