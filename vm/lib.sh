# shellcheck shell=bash disable=SC2016 # awk and inner shells expand theirs
# For scripts that run in the test machine: hosts as namespaces, peers on them, captures, and conditions to wait for.
# Source it: . "$(dirname "$0")/../lib.sh"
set -euo pipefail

WARREN=${WARREN:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/release/warren}
VM_LAN=${VM_LAN:-lan}          # the bridge that host_new connects to
VM_OUT=${VM_OUT:-/vm/out}      # logs and captures go here
VM_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VM_HOSTS=/vm/hosts             # one folder a host: its namespace and the upper layers of its overlays
CAPTURES=()
STREAMS=()

# Everything that may be on the wire of an IPsec subnet. The later fragments of a large IKE message show no ports.
ALLOWED_ON_WIRE='esp or udp port 500 or udp port 4500 or (ip proto 17 and ip[6:2] & 0x1fff != 0) or arp
    or (icmp6 and ip6[40] >= 133 and ip6[40] <= 137) or ip6 proto 0'

say() { printf '%s\n' "$*"; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# ---- waiting ----

[ -p /vm/never ] || mkfifo /vm/never
pause() { read -rt "${1:-0.1}" <>/vm/never || true; }

# try SECONDS COMMAND...: again and again until it succeeds.
try() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        pause
    done
}

# wait_for SECONDS WHAT COMMAND...: the same, and the end of the script where it does not.
wait_for() {
    local seconds=$1 what=$2
    shift 2
    try "$seconds" "$@" >/dev/null 2>&1 || fail "not within $seconds s: $what"
}

# ---- hosts ----

# lan_new [NAME]: a bridge in the machine's own namespace, on which captures see what all hosts say.
lan_new() {
    ip -batch - <<TXT
link add ${1:-$VM_LAN} type bridge forward_delay 0 mcast_snooping 0
link set ${1:-$VM_LAN} up
TXT
}

# host_new NAME ADDRESS/PREFIX...: a network namespace on the bridge (device eth0) and a mount namespace of its own,
# with an empty /run and its own version of /etc and /var.
host_new() {
    local name=$1 address batch
    shift
    mkdir -p "$VM_HOSTS/$name"/{run,etc.up,etc.work,var.up,var.work}
    ip netns add "$name"
    batch="link add v-$name type veth peer name eth0 netns $name"$'\n'
    batch+="link set v-$name master $VM_LAN up"
    ip -batch - <<<"$batch"
    batch="link set lo up"$'\n'
    for address; do
        batch+="address add $address dev eth0"
        [[ $address != *:* ]] || batch+=" nodad"
        batch+=$'\n'
    done
    batch+="link set eth0 up"
    ip -n "$name" -batch - <<<"$batch"
    touch "$VM_HOSTS/$name/ns"
    # The file that holds a mount namespace may not lie on a shared mount; here none is.
    nsenter "--net=/run/netns/$name" unshare --mount="$VM_HOSTS/$name/ns" /vm/busybox sh -euc '
        base=$1
        mount -t sysfs sysfs /sys
        for dir in etc var; do
            mount -t overlay -o "lowerdir=/$dir,upperdir=$base/$dir.up,workdir=$base/$dir.work" "$dir" "/$dir"
        done
        mount --bind "$base/run" /run
        mkdir -p /run/netns /run/lock
        echo "${base##*/}" >/etc/hostname
    ' sh "$VM_HOSTS/$name"
}

# on HOST COMMAND...: runs it in the host's namespaces.
on() {
    local name=$1
    shift
    nsenter "--net=/run/netns/$name" "--mount=$VM_HOSTS/$name/ns" -- "$@"
}

# host_end NAME: ends all that runs on it and removes it.
host_end() {
    local pids
    pids=$(ip netns pids "$1")
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -9 $pids
    umount "$VM_HOSTS/$1/ns"
    ip netns del "$1"
    rm -rf "${VM_HOSTS:?}/$1"
}

# ---- traffic ----

# ping_until SECONDS HOST DESTINATION: until one is answered. The first echo is lost where it triggers a trap.
ping_until() { wait_for "$1" "an answer from $3 to $2" on "$2" ping -n -q -c 1 -W 1 "$3"; }

# ping_all HOST DESTINATION [COUNT] [OPTION]...: each one must be answered.
ping_all() {
    local host=$1 destination=$2 count=${3:-10} report
    shift $(($# < 3 ? $# : 3))
    report=$(on "$host" ping -n -q -c "$count" -i 0.05 -W 2 "$@" "$destination") || true
    grep -q ' 0% packet loss' <<<"$report" || fail "$host lost pings to $destination: $report"
}

# streams_start RATE HOST=ADDRESS...: numbered datagrams between all of them, so many a second each way, until streams_end.
streams_start() {
    local rate=$1 pair other peers
    shift
    for pair; do
        peers=()
        for other; do [ "$other" = "$pair" ] || peers+=("${other#*=}"); done
        nsenter "--net=/run/netns/${pair%%=*}" -- python3 "$VM_LIB/stream.py" "$rate" 86400 "${pair#*=}" "${peers[@]}" \
            >"$VM_OUT/stream.${pair#*=}" 2>&1 &
        STREAMS+=("$!=${pair#*=}")
    done
}

# Ends them: every datagram must have arrived. STREAMED is how many there were.
streams_end() {
    local stream address peer sent received arrived
    STREAMED=0
    for stream in "${STREAMS[@]}"; do kill "${stream%%=*}"; done
    for stream in "${STREAMS[@]}"; do wait "${stream%%=*}" || fail "a stream: $(cat "$VM_OUT/stream.${stream#*=}")"; done
    for stream in "${STREAMS[@]}"; do
        address=${stream#*=}
        while read -r peer sent _; do
            read -r _ _ arrived _ < <(grep "^$address " "$VM_OUT/stream.$peer")
            [ "$sent" -gt 0 ] && [ "$arrived" = "$sent" ] || fail "of $sent packets from $address to $peer came $arrived"
            STREAMED=$((STREAMED + sent))
        done <"$VM_OUT/stream.$address"
    done
    STREAMS=()
}

# capture_start FILE [DEVICE] [FILTER]: FILE is in $VM_OUT. Returns when the capture runs.
capture_start() {
    local file=$1 device=${2:-$VM_LAN}
    # Without immediate mode, what is still in its ring is lost at the end, and clear text with it.
    tcpdump --immediate-mode -U -n -Z root -i "$device" -w "$VM_OUT/$file" ${3:+"$3"} 2>"$VM_OUT/$file.log" &
    CAPTURES+=($!)
    wait_for 20 "a capture on $device" grep -q 'listening on' "$VM_OUT/$file.log"
}

# Ends all captures.
capture_stop() {
    local pid
    pause 0.3
    for pid in "${CAPTURES[@]}"; do kill -INT "$pid"; done
    for pid in "${CAPTURES[@]}"; do wait "$pid" || true; done
    CAPTURES=()
}

# captured FILE FILTER: how many packets of the capture match.
captured() { tcpdump -n -r "$VM_OUT/$1" "$2" 2>/dev/null | wc -l; }

# only_esp FILE [MINIMUM]: nothing in the clear, and at least so many ESP packets.
only_esp() {
    local clear esp
    clear=$(tcpdump -n -r "$VM_OUT/$1" "not ($ALLOWED_ON_WIRE)" 2>/dev/null)
    [ -z "$clear" ] || fail "in the clear: $(head -n 5 <<<"$clear")"
    esp=$(captured "$1" esp)
    [ "$esp" -ge "${2:-1}" ] || fail "$esp ESP packets on the wire, expected at least ${2:-1}"
}

# xfrm_errors HOST: the kernel's counters that are not zero.
xfrm_errors() { on "$1" awk '$2 != 0' /proc/net/xfrm_stat; }

# ---- Warren ----

# warren HOST ARG...: a command to the host's daemon.
warren() { on "$1" "$WARREN" --control /run/control.sock "${@:2}"; }

# warren_start HOST MANIFEST [OPTION]...: its daemon on the kernel's ESP, with its log in $VM_OUT.
warren_start() {
    nsenter "--net=/run/netns/$1" "--mount=$VM_HOSTS/$1/ns" -- "$WARREN" --control /run/control.sock \
        run -m "$2" --state-dir /run/warren --data-plane kernel "${@:3}" >>"$VM_OUT/$1.log" 2>&1 &
    echo $! >"$VM_HOSTS/$1/warren.pid"
    wait_for 60 "the daemon of $1" warren "$1" status
}

# warren_end HOST SIGNAL: ends the daemon so.
warren_end() {
    local pid
    pid=$(cat "$VM_HOSTS/$1/warren.pid")
    kill "-$2" "$pid"
    wait "$pid" 2>/dev/null || true
}

# warren_flush HOST: `stop --flush`, until the daemon is gone.
warren_flush() {
    warren "$1" stop --flush >/dev/null
    wait "$(cat "$VM_HOSTS/$1/warren.pid")" 2>/dev/null || true
}

# ---- certificates ----

# pki_ca DIR: a CA (P-256, quick to make).
pki_ca() {
    mkdir -p "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1/ca.key" -out "$1/ca.pem" \
        -days 30 -subj "/CN=test CA" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
}

# pki_leaf DIR NAME ADDRESS...: NAME.key and NAME.pem, the addresses and the name as subjectAltName.
pki_leaf() {
    local dir=$1 name=$2 names="DNS:$2" address
    shift 2
    for address; do names+=",IP:$address"; done
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/$name.key" -subj "/CN=$name" 2>/dev/null |
        openssl x509 -req -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -days 30 -out "$dir/$name.pem" \
            -extfile <(printf 'subjectAltName=%s\nkeyUsage=digitalSignature\n' "$names") 2>/dev/null
}

# ---- strongSwan ----

# Few plugins: af-alg alone costs 11 s, since the kernel loads every cipher that it has for it.
CHARON_PLUGINS="nonce random openssl pem pkcs1 pkcs8 x509 pubkey constraints gmp hmac kdf kernel-netlink
    socket-default vici"

# strongswan_start HOST [CHARON-OPTIONS]: charon-systemd with its log in $VM_OUT. The options go into its section of
# strongswan.conf. Put swanctl.conf and certificates into the host's /etc/swanctl, then call strongswan_load.
strongswan_start() {
    local host=$1
    on "$host" /vm/busybox sh -c 'cat >/etc/strongswan.conf' <<TXT
charon-systemd {
    load = $(tr -s ' \n' '  ' <<<"$CHARON_PLUGINS")
    filelog {
        log {
            path = $VM_OUT/$host.charon.log
            time_format = %H:%M:%S
            default = 1
            flush_line = yes
        }
    }
    ${2:-}
}
swanctl { load = pem pkcs1 pkcs8 x509 pubkey openssl random }
TXT
    nsenter "--net=/run/netns/$host" "--mount=$VM_HOSTS/$host/ns" -- /usr/sbin/charon-systemd >"$VM_OUT/$host.charon.err" 2>&1 &
    echo $! >"$VM_HOSTS/$host/charon.pid"
    wait_for 60 "charon on $host" test -S "$VM_HOSTS/$host/run/charon.vici"
}

# strongswan_certificates HOST DIR NAME: what pki_ca and pki_leaf made.
strongswan_certificates() {
    on "$1" /vm/busybox sh -ec '
        mkdir -p /etc/swanctl/x509 /etc/swanctl/x509ca /etc/swanctl/private
        cp "$1/$2.pem" /etc/swanctl/x509/host.pem
        cp "$1/$2.key" /etc/swanctl/private/host.key
        cp "$1/ca.pem" /etc/swanctl/x509ca/ca.pem' sh "$2" "$3"
}

# strongswan_load HOST <swanctl.conf
strongswan_load() {
    on "$1" /vm/busybox sh -c 'cat >/etc/swanctl/swanctl.conf'
    on "$1" swanctl --load-all >"$VM_OUT/$1.swanctl" 2>&1 || fail "swanctl on $1: $(cat "$VM_OUT/$1.swanctl")"
}

strongswan_stop() {
    local pid
    pid=$(cat "$VM_HOSTS/$1/charon.pid")
    kill "$pid"
    wait "$pid" || true
}
