#!/usr/bin/env bash
# Rekeys under traffic on the kernel's ESP, from both sides of every pair: no packet is lost, and no counter of
# /proc/net/xfrm_stat grows. The first argument is how many (default 60; `./x sweep` asks for 1000), the second the packets a
# second in each direction.
. "$(dirname "$0")/../lib.sh"

WANTED=${1:-60} RATE=${2:-25}
HOSTS=(a=10.77.0.1 b=10.77.0.2 c=10.77.0.3)

# All by command, not by lifetimes of seconds: on a busy machine an SA would be over before its successor is there.
cat >/vm/warren.yml <<'TXT'
ipsec_subnets: [10.77.0.0/24]
psk: correct horse battery staple
ike_proposals: aes128-sha256-x25519
TXT

ROUNDS=5 # of rekeys between two looks at what there is

# burst ROUNDS: every host asks for rekeys of both its peers; sets `count` to the child SAs replaced so far.
burst() {
    local pair host other jobs=() sum=0
    for pair in "${HOSTS[@]}"; do
        host=${pair%%=*} others=()
        for other in "${HOSTS[@]}"; do [ "$other" = "$pair" ] || others+=("${other#*=}"); done
        on "$host" "$VM_LIB/rekeyer.py" "$1" "${others[@]}" >"$VM_OUT/rekeys.$host" & jobs+=($!)
    done
    for pair in "${jobs[@]}"; do wait "$pair" || fail "a daemon does not answer"; done
    for pair in "${HOSTS[@]}"; do sum=$((sum + $(cat "$VM_OUT/rekeys.${pair%%=*}"))); done
    count=$((sum / 2)) # both ends count
}
states() { ip -n "$1" xfrm state | grep -c 'proto esp'; }
spis() { ip -n "$1" xfrm state | grep -o 'spi 0x[0-9a-f]*' | sort -u; }
errors() { for pair in "${HOSTS[@]}"; do echo "${pair%%=*}:" "$(xfrm_errors "${pair%%=*}")"; done; }

lan_new
for pair in "${HOSTS[@]}"; do host_new "${pair%%=*}" "${pair#*=}/24"; done
for pair in "${HOSTS[@]}"; do warren_start "${pair%%=*}" /vm/warren.yml; done
for from in a b c; do
    for pair in "${HOSTS[@]}"; do
        [ "${pair%%=*}" = "$from" ] || ping_until 60 "$from" "${pair#*=}"
    done
done
pause 3

burst 0
before=$(errors) start=$count begun=$SECONDS first=$(spis a)
capture_start rekeys.pcap "$VM_LAN" "not esp"
streams_start "$RATE" "${HOSTS[@]}"
done=0 most=0 round=0
while [ "$done" -lt "$WANTED" ]; do
    [ $((SECONDS - begun)) -lt $((300 + WANTED * 10)) ] || fail "only $done of $WANTED rekeys in $((SECONDS - begun)) s"
    burst $ROUNDS
    round=$((round + ROUNDS)) done=$((count - start))
    for host in a b c; do
        now=$(states $host)
        [ "$now" -le "$most" ] || most=$now
    done
done
errors >"$VM_OUT/errors"
streams_end
capture_stop
took=$((SECONDS - begun))
[ "$(errors)" = "$before" ] || fail "xfrm_stat: $(errors); before: $before"
[ -z "$(comm -12 <(spis a) <(echo "$first"))" ] || fail "SAs of the beginning are still there"
# Two pairs of SAs a host, and what lingers of each for late packets.
[ "$most" -le 40 ] || fail "$most SAs on one host"
clear=$(tcpdump -n -r "$VM_OUT/rekeys.pcap" "not ($ALLOWED_ON_WIRE)" 2>/dev/null)
[ -z "$clear" ] || fail "in the clear: $(head -n 5 <<<"$clear")"
# Once quiet, one pair of SAs for each pair of hosts again.
settled() { for host in a b c; do [ "$(on $host "$WARREN" --control /run/control.sock status --json | python3 -c '
import json, sys
print(sorted(len(p["ike_sas"]) for p in json.load(sys.stdin)["peers"]))')" = "[1, 1]" ] || return 1; done; }
wait_for 60 "one IKE SA for each pair" settled
say "$done rekeys in $took s, $round rounds: $STREAMED packets, 0 lost; xfrm_stat did not move; at most $most SAs a host"
