#!/usr/bin/env bash
# Other people's states, policies, rules, routes and default policy beside Warren's: after start, reload, stop, kill -9,
# start, flush and the guard each is byte for byte what it was, and a foreign tunnel carries every packet.
. "$(dirname "$0")/../lib.sh"

A=10.78.0.1 B=10.78.0.2 MANIFEST=/vm/warren.yml
FA=10.79.0.1 FB=10.79.0.2 # addresses of a foreign tunnel between the same hosts
KEY=0x000102030405060708090a0b0c0d0e0f10111213

manifest() { printf 'ipsec_subnets: [10.78.0.0/24]\npsk: correct horse battery staple\n%s\n' "${1:-}" >$MANIFEST; }

# foreign_tunnel HOST OWN PEER INNER-OWN INNER-PEER SPI-IN SPI-OUT: as another daemon would install it, tunnel mode.
foreign_tunnel() {
    ip -n "$1" -batch - <<TXT
address add $4/32 dev lo
route add $5/32 via $3 src $4
xfrm state add src $3 dst $2 proto esp spi $6 mode tunnel reqid 16389 replay-window 64 aead rfc4106(gcm(aes)) $KEY 128
xfrm state add src $2 dst $3 proto esp spi $7 mode tunnel reqid 16389 replay-window 64 aead rfc4106(gcm(aes)) $KEY 128
xfrm policy add src $4/32 dst $5/32 dir out priority 300 tmpl src $2 dst $3 proto esp reqid 16389 mode tunnel
xfrm policy add src $5/32 dst $4/32 dir in priority 300 tmpl src $3 dst $2 proto esp reqid 16389 mode tunnel
xfrm policy add src $5/32 dst $4/32 dir fwd priority 300 tmpl src $3 dst $2 proto esp reqid 16389 mode tunnel
TXT
}

# Nothing of this carries packets: not a byte of it may change, counters included.
idle_entries() {
    # A set of states as Cilium has them: by mark and output mark, one reqid, tunnels to nodes.
    local node
    for node in 1 2 3 4; do
        ip -n a -batch - <<TXT
xfrm state add src 10.78.0.1 dst 192.168.0.$node proto esp spi 3 reqid 1 mode tunnel mark 0x${node}3e00 mask 0xffffff00 output-mark 0xe00 mask 0xf00 aead rfc4106(gcm(aes)) $KEY 128
xfrm state add src 192.168.0.$node dst 10.78.0.1 proto esp spi 3 reqid 1 mode tunnel mark 0x${node}3d00 mask 0xffffff00 output-mark 0xd00 mask 0xf00 aead rfc4106(gcm(aes)) $KEY 128
xfrm policy add src 0.0.0.0/0 dst 192.168.$node.0/24 dir out priority 0 mark 0x${node}3e00 mask 0xffffff00 tmpl src 10.78.0.1 dst 192.168.0.$node proto esp spi 3 reqid 1 mode tunnel
TXT
    done
    ip -n a -batch - <<TXT
xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir in priority 2147483000 mark 0xd00 mask 0xf00 tmpl proto esp reqid 1 mode tunnel level use
xfrm policy add src 0.0.0.0/0 dst 10.78.0.0/24 dir fwd priority 2975 tmpl proto esp reqid 1 mode tunnel level use
xfrm policy add src ::/0 dst fd00:9::/64 dir out priority 0 if_id 7 tmpl src fd78::1 dst fd78::9 proto esp reqid 1 mode tunnel
xfrm state add src fd78::1 dst fd78::9 proto esp spi 3 reqid 1 mode tunnel if_id 7 aead rfc4106(gcm(aes)) $KEY 128
xfrm state add src 10.78.0.1 dst 10.78.0.2 proto esp spi 0xabcdef01 mode transport reqid 1463877631 enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f auth-trunc hmac(sha256) 0x000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f 128 sel src 10.78.0.1/32 dst 10.78.0.2/32 proto tcp dport 9999
xfrm state add src 10.78.0.1 dst 10.78.0.9 proto ah spi 0x1001 mode transport auth-trunc hmac(sha256) 0x000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f 128
xfrm state add src 10.78.0.2 dst 10.78.0.1 proto esp spi 0xabcdef02 mode transport reqid 1463943168 replay-window 128 flag esn aead rfc4106(gcm(aes)) $KEY 128 limit packet-hard 77 limit time-hard 100000
xfrm policy add src 10.78.0.1/32 dst 203.0.113.0/24 proto tcp dport 25 dir out priority 9 action block
xfrm policy add src 10.78.0.0/24 dst 10.78.0.1/32 proto udp dport 111 dir in priority 3 action block
xfrm policy add src 10.78.0.1/32 dst 10.78.0.0/24 dir out priority 4294967000 mark 0x99 mask 0xff action block
rule add from 203.0.113.0/24 table 200 priority 5149
rule add fwmark 0x77/0xff table 5150 priority 5200
route add blackhole 10.200.0.0/16 table 200
route add 192.0.2.0/24 dev lo table 5150 proto 77
TXT
    ip -n a -6 rule add from 2001:db8::/32 table 200 priority 5150
    ip -n a -6 route add unreachable 2001:db8::/32 table 200
    ip -n a xfrm policy setdefault in accept fwd block out accept
}

# theirs WHAT: all entries but ours, which are known by their numbers; `-s` shows those of policies, and times.
theirs() {
    on a python3 - "$@" <<'TXT'
import re, subprocess
def blocks(what):
    text = subprocess.run(["ip", "-d", "-s", "xfrm", what, "list"], capture_output=True, text=True, check=True).stdout
    return re.split(r"(?m)^(?=src )", text)[1:]
ours_sa = lambda b: 0x57410000 <= int(re.search(r"reqid (\d+)", b).group(1)) <= 0x5741ffff
ours_policy = lambda b: 0x57000000 <= int((re.search(r"index (\d+)", b) or [0, "0"])[1]) <= 0x57ffffff
# Those of sockets are the daemon's own, and go with it.
socket = lambda b: "socket" in b.split("\n")[1] or "socket" in b.split("\n")[0]
guard = lambda b: "mark 0/0x80000000" in b or "mark 0x0/0x80000000" in b
def calm(b):
    """Of an entry that carries packets: all but what the packets change."""
    if "16389" not in b:
        return b
    moving = re.compile(r"\s*(seq-hi|oseq|lastused|stats|replay-window|replay \d|[0-9a-f]{8} [0-9a-f]{8}|add \d|\d+\(bytes\))")
    return "\n".join(line for line in b.split("\n") if not moving.match(line))
for b in blocks("state"):
    if not ours_sa(b):
        print(calm(b))
for b in blocks("policy"):
    if not (ours_policy(b) or socket(b) or guard(b)):
        print(calm(b))
TXT
    on a /vm/busybox sh -c '/usr/sbin/ip xfrm policy getdefault; for f in -4 -6; do /usr/sbin/ip $f rule
        for t in main local 200 5150; do /usr/sbin/ip $f route show table $t || true; done; done' 2>/dev/null
}

# same AFTER-WHAT
same() {
    theirs >"$VM_OUT/theirs.now"
    cmp -s "$VM_OUT/theirs.before" "$VM_OUT/theirs.now" ||
        fail "after $1: $(diff "$VM_OUT/theirs.before" "$VM_OUT/theirs.now" | head -n 20)"
    say "after $1: the same $(grep -c '^src' "$VM_OUT/theirs.now") entries"
}

ours_up() {
    ping_until 60 a $B
    ping_all b $A 3
}

lan_new
host_new a $A/24 10.77.0.1/24
host_new b $B/24 10.77.0.2/24
foreign_tunnel a 10.77.0.1 10.77.0.2 $FA $FB 0x2001 0x2002
foreign_tunnel b 10.77.0.2 10.77.0.1 $FB $FA 0x2002 0x2001
idle_entries
manifest
theirs >"$VM_OUT/theirs.before"
[ "$(grep -c '^src' "$VM_OUT/theirs.before")" -ge 27 ] || fail "too little is there: $(cat "$VM_OUT/theirs.before")"
ping_all a $FB 3 -I $FA
same "a ping through the foreign tunnel"
streams_start 20 a=$FA b=$FB

warren_start a $MANIFEST
warren_start b $MANIFEST
ours_up
same start
manifest 'no_ipsec_subnets: [10.78.0.128/25]
policies: [{action: pass, proto: tcp, port: 22}]'
warren a reload >/dev/null
ours_up
same reload
warren_end a TERM
same stop
warren_start a $MANIFEST
ours_up
same "a start after that"
warren_end a KILL
same "kill -9"
warren_start a $MANIFEST
ours_up
same "a start after that"
warren a rekey $B >/dev/null
warren a restart $B >/dev/null
ours_up
same "rekey and restart of a tunnel"

# Somebody else takes ours away, and changes what is left: put right, and nothing else is touched.
ip -n a xfrm state deleteall reqid 1463877632
ip -n a xfrm policy update src $A/32 dst 10.78.0.0/24 dir out priority 1 action block
on a ping -n -q -c 1 -W 1 $B >/dev/null || true
ours_up
drift() { warren a status --json | python3 -c 'import json, sys
d = json.load(sys.stdin)["node"]["drift"]
sys.exit(0 if d["policies_altered"] >= 1 and d["policies_extra"] == 0 and d["sas_extra"] == 0 else str(d))'; }
wait_for 10 "drift counted by kind: $(warren a status --json | grep -o '"drift":{[^}]*}')" drift
same drift

# An administrator's policy under the name of one of ours stays, and ours comes when it has gone.
CLASH="src $A/32 dst 10.78.0.128/25 dir out"
warren_flush a
same "stop --flush"
[ -z "$(ip -n a xfrm state list | grep 'reqid 1463877632')" ] || fail "SAs of ours stayed"
# shellcheck disable=SC2086
ip -n a xfrm policy add $CLASH priority 5 action block
theirs >"$VM_OUT/theirs.before"
manifest 'policies: [{action: pass, remote: 10.78.0.128/25}]'
warren_start a $MANIFEST
ours_up
same "a start beside a policy under the same name"
grep -q 'a foreign entry is in the way' "$VM_OUT/a.log" || fail "nobody was told of the policy in the way"
[ "$(grep -c 'a foreign entry is in the way' "$VM_OUT/a.log")" -le 2 ] || fail "told again and again"
# shellcheck disable=SC2086
ip -n a xfrm policy delete $CLASH
theirs >"$VM_OUT/theirs.before"
# shellcheck disable=SC2086
came() { ip -n a -s xfrm policy get $CLASH 2>/dev/null | grep -q 'index 1459'; }
wait_for 10 "our policy in the place of the foreign one" came
warren_end a KILL
warren a guard off >/dev/null
same "guard off"
on a "$WARREN" guard on -m $MANIFEST --state-dir /run/lib >/dev/null
same "guard on"
warren_start a $MANIFEST
ours_up
same "a start behind the guard"
warren_flush a
same "stop --flush"
streams_end
[ -z "$(ip -n a xfrm policy list | grep 0x80000000)" ] || fail "the guard's policies stayed"
say "foreign entries untouched; $STREAMED packets through a foreign tunnel meanwhile, 0 lost"
