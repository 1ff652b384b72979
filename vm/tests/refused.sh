#!/usr/bin/env bash
# The kernel refuses the second of the operations that make a tunnel, for real: a foreign SA stands under the name of our
# outbound one (EEXIST) by the time that we install it. Rolled back, the peer told, and after all tries (40, or the first
# argument) nothing has piled up on either side; when nothing is in the way any more the tunnel comes up.
. "$(dirname "$0")/../lib.sh"

A=10.77.0.1 B=10.77.0.2 TRIES=${1:-40}
printf 'ipsec_subnets: [10.77.0.0/24]\npsk: correct horse battery staple\nike_proposals: aes128-sha256-x25519\n' >/vm/warren.yml

# of HOST EXPRESSION: of its status.
of() { warren "$1" status --json | python3 -c "import json, sys
s = json.load(sys.stdin)
p = s['peers'][0] if s['peers'] else {'ike_sas': [], 'child_sas': [], 'last_error': '', 'state': ''}
print($2)"; }
ours() { ip -n "$1" xfrm state list reqid 1463877632 | grep -c 'proto esp spi 0x[0-9a-f]*[1-9a-f]' || true; }
foreign() { ip -n a xfrm state list reqid 7 | grep -c 'proto esp'; }
memory() { awk '/VmRSS/ { print $2 }' "/proc/$(cat "$VM_HOSTS/$1/warren.pid")/status"; }
gone() { [ "$(ours a)" = 0 ] && [ "$(ours b)" = 0 ]; }

lan_new
host_new a $A/24
host_new b $B/24
# What b sends arrives late: by then its inbound SA, which is our outbound one, has a foreign namesake on a.
tc -n b qdisc add dev eth0 root netem delay 150ms
warren_start a /vm/warren.yml
warren_start b /vm/warren.yml
"$VM_LIB/plant.py" b a $B >"$VM_OUT/planted" 2>&1 &
planter=$!
wait_for 20 "the planter" grep -q ready "$VM_OUT/planted"

tries=0 round=0 early= said=
while [ "$tries" -lt "$TRIES" ]; do
    round=$((round + 1))
    [ $SECONDS -lt $((120 + TRIES * 10)) ] || fail "only $tries of $TRIES tries: $(tail -n 1 "$VM_OUT/planted")"
    # Both sides of the handshake are tried: who asks for the child SA, and who is asked.
    if [ $((round % 5)) = 0 ]; then warren b up $A >/dev/null; else warren a up $B >/dev/null; fi
    pause 0.2
    for host in a b; do
        [ "$(ours $host)" -le 6 ] || fail "after $tries tries $(ours $host) SAs on $host"
    done
    read -r tries most state told < <(of a "s['node']['refusals'], max(len(p['ike_sas']), len(p['child_sas'])), p['state'], p['last_error']")
    [[ $told != *"a foreign entry is in the way"* ]] || said=yes
    [ "$most" -le 3 ] || fail "after $tries tries $most SAs in a's status"
    most=$(of b "max(len(p['ike_sas']), len(p['child_sas']))")
    [ "$most" -le 3 ] || fail "after $tries tries $most SAs in b's status"
    # We came first for once: there is a tunnel.
    [ "$state" != up ] || warren a restart $B >/dev/null
    [ -n "$early" ] || [ "$tries" -lt $((TRIES / 5)) ] || early="$(memory a) $(memory b)"
done
kill $planter
wait $planter || true
planted=$(grep -c planted "$VM_OUT/planted")
[ "$planted" -ge "$tries" ] || fail "$planted foreign SAs for $tries tries: $(tail -n 3 "$VM_OUT/planted")"
[ "$(foreign)" = "$planted" ] || fail "$(foreign) foreign SAs are left of $planted"
[ -n "$said" ] || fail "the reason was never told: $(of a "p['last_error']")"
late="$(memory a) $(memory b)"
read -r a0 b0 a1 b1 <<<"$early $late"
[ $((a1 - a0)) -le 4096 ] && [ $((b1 - b0)) -le 4096 ] || fail "memory grew from $early to $late KiB"
say "$tries tries refused: at most a few SAs at any time, $planted foreign ones untouched, memory $early -> $late KiB"

# Nothing is in the way any more.
tc -n b qdisc del dev eth0 root
ping_until 90 a $B
ping_all a $B 10
ping_all b $A 10
one_each() { [ "$(ours a)" = 2 ] && [ "$(ours b)" = 2 ]; }
wait_for 60 "one pair of SAs, and nothing of the tries" one_each
[ "$(foreign)" = "$planted" ] || fail "$(foreign) foreign SAs are left of $planted"
warren a down $B >/dev/null
wait_for 30 "nothing left of ours" gone
say "then up with one pair of SAs, and down to none"
