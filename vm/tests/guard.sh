#!/usr/bin/env bash
# The leak guard with the kernel's data plane: nothing in the clear before the daemon, with it, after a crash and a stop.
. "$(dirname "$0")/../lib.sh"

A4=10.78.0.1 B4=10.78.0.2 A6=fd78::1 B6=fd78::2

cat >/vm/guard.yml <<TXT
psk: a key that only this test knows of
ipsec_subnets: [10.78.0.0/24, 'fd78::/64']
policies:
- {action: pass, proto: tcp, port: 22}
TXT

# Datagrams of both families, from sockets that are bound to the interface and from others.
cat >/vm/flood.py <<'TXT'
import socket, time
while True:
    for family, to in ((socket.AF_INET, "10.78.0.2"), (socket.AF_INET6, "fd78::2")):
        for device in (b"", b"eth0"):
            with socket.socket(family, socket.SOCK_DGRAM) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
                try:
                    s.sendto(b"leak", (to, 9999))
                except OSError:
                    pass
    time.sleep(0.01)
TXT

warren() {
    local host=$1
    shift
    on "$host" "$WARREN" --control /run/control.sock "$@"
}
guard_on() { warren "$1" guard on -m /vm/guard.yml --state-dir /run/lib >/dev/null; }
held_by() { [[ $(warren "$1" guard status --json) == *"\"held_by\":\"$2\""* ]]; }

# start HOST ADDRESS
start() {
    on "$1" "$WARREN" --control /run/control.sock run -m /vm/guard.yml --state-dir /run/warren --address "$2" \
        --data-plane kernel >>"$VM_OUT/$1.log" 2>&1 &
    echo $! >"/vm/$1.pid"
    wait_for 60 "the daemon of $1" warren "$1" status
    held_by "$1" data_plane || fail "the guard of $1 did not see the daemon"
}

# ssh: a connection to port 22 is at least refused by the other end, not by the guard.
ssh() { on b python3 -c "import socket, sys
try: socket.create_connection(('$1', 22), 5)
except ConnectionRefusedError: sys.exit(0)
except OSError as e: print(e)
sys.exit(1)"; }

lan_new
host_new a $A4/24
host_new b $B4/24 $B6/64
mkdir -p "$VM_HOSTS"/{a,b}/run
before=$(on a ip xfrm policy; on a ip rule; on a ip -6 rule)
on a ip link set eth0 down
guard_on a
held_by a guard || fail "the guard is not on"
on a python3 /vm/flood.py &
flood=$!
capture_start clear.pcap "$VM_LAN" "udp port 9999 and (src host $A4 or src host $A6)"
capture_start all.pcap
on a ip link set eth0 up
on a ip addr add $A6/64 dev eth0 nodad
pause 1
wait_for 20 "SSH past the guard, IPv4" ssh $A4
wait_for 20 "SSH past the guard, IPv6" ssh $A6

guard_on b
start a $A4
start b $B4
ping_until 60 a $B4
held_by a data_plane || fail "the daemon does not hold"
[ -z "$(on a ip xfrm policy | grep 0x80000000)" ] || fail "the guard's policies stayed beside the daemon's"
wait_for 20 "SSH past the daemon" ssh $A4

kill -9 "$(cat /vm/a.pid)"
pause 1
held_by a data_plane || fail "the daemon's policies went with it"
guard_on a
ping_all a $B4 5
start a $A4
ping_until 60 a $B4
warren a stop >/dev/null
held_by a data_plane || fail "the daemon's policies went with its end"
pause 1

capture_stop
[ "$(captured clear.pcap udp)" = 0 ] || fail "$(captured clear.pcap udp) packets in the clear"
[ "$(captured all.pcap esp)" -ge 10 ] || fail "no ESP"
warren a guard off >/dev/null
after=$(on a ip xfrm policy; on a ip rule; on a ip -6 rule)
[ "$after" = "$before" ] || fail "left behind: $(diff <(echo "$before") <(echo "$after"))"
capture_start after.pcap "$VM_LAN" 'udp port 9999'
pause 2
capture_stop
[ "$(captured after.pcap udp)" -gt 3 ] || fail "the flood was none"
kill $flood
say "leak guard: 0 packets in the clear from boot to stop, $(captured all.pcap esp) ESP packets, nothing left behind"
