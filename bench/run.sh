#!/usr/bin/env bash
# run.sh [--json] [--seconds N]: the control plane beside the bare cryptography; the userspace data plane and its peers, one after the
# other on the same kind of wire; all in one run, with ratios and goals. Peers are Debian's packages, unpacked into a folder by interop/fetch.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

json=() seconds=3
while [ $# -gt 0 ]; do
    case $1 in
        --json) json=(--json) ;;
        --seconds) seconds=${2:?}; shift ;;
        *) echo "usage: bench/run.sh [--json] [--seconds N]" >&2; exit 2 ;;
    esac
    shift
done
warren=${WARREN:-target/release/warren}
peers=${WARREN_PEERS:-target/peers}
suite=trixie

work=$(mktemp -d)
a=warren-peer-$$-a b=warren-peer-$$-b
pids=()

down() {
    local pid ns
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    pids=()
    for ns in "$a" "$b"; do ip netns del "$ns" 2>/dev/null || true; done
}
trap 'down; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# Two namespaces with a wire between them: 10.97.0.1 and 10.97.0.2.
up() {
    ip netns add "$a" && ip netns add "$b"
    ip -n "$a" link add eth0 type veth peer name eth0 netns "$b"
    ip -n "$a" addr add 10.97.0.1/24 dev eth0
    ip -n "$b" addr add 10.97.0.2/24 dev eth0
    ip -n "$a" link set eth0 up
    ip -n "$b" link set eth0 up
    ip -n "$a" link set lo up
    ip -n "$b" link set lo up
}

# inside NETNS ROOT COMMAND...: the peer's own program, in its folder.
inside() {
    local ns=$1 root=$2
    shift 2
    exec ip netns exec "$ns" chroot "$root" "$@"
}

# A peer's folder, with the device that it needs.
home() {
    local root=$peers/$suite-$1
    interop/fetch.sh "$suite-$1"
    mkdir -p "$root/dev/net" "$root/run" "$root/tmp"
    [ -e "$root/dev/net/tun" ] || mknod "$root/dev/net/tun" c 10 200
    [ -e "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3
    [ -e "$root/dev/urandom" ] || mknod -m 666 "$root/dev/urandom" c 1 9
    realpath "$root"
}

# measure NAME TARGET: writes NAME.json.
measure() {
    local processes=()
    for pid in "${pids[@]}"; do processes+=(--process "$pid"); done
    "$warren" bench path --json --seconds "$seconds" --from "$a" --to "$b" --target "$2" "${processes[@]}" >"$work/$1.json"
}

device() {
    local ns=$1 name=$2 tries=0
    until ip -n "$ns" link show "$name" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { echo "$name did not come up" >&2; return 1; }
        sleep 0.1
    done
}

wireguard() {
    local root ns i n keys=() other
    root=$(home wireguard)
    for i in 0 1; do keys+=("$(chroot "$root" wg genkey)"); done
    # It ends when its socket goes.
    rm -rf "$root/var/run" && mkdir -p "$root/var/run/wireguard"
    n=0
    for ns in "$a" "$b"; do
        (inside "$ns" "$root" wireguard-go -f "wgb$n") >"$work/wireguard$n.log" 2>&1 &
        pids+=($!)
        device "$ns" "wgb$n"
        other=$((1 - n))
        until [ -S "$root/var/run/wireguard/wgb$n.sock" ]; do sleep 0.1; done
        printf '[Interface]\nPrivateKey=%s\nListenPort=51820\n[Peer]\nPublicKey=%s\nAllowedIPs=10.96.0.0/24\nEndpoint=10.97.0.%d:51820\n' \
            "${keys[$n]}" "$(chroot "$root" wg pubkey <<<"${keys[$other]}")" $((other + 1)) >"$root/tmp/wg.conf"
        ip netns exec "$ns" chroot "$root" wg setconf "wgb$n" /tmp/wg.conf
        ip -n "$ns" addr add "10.96.0.$((n + 1))/24" dev "wgb$n"
        ip -n "$ns" link set "wgb$n" mtu 1420 up
        n=$((n + 1))
    done
    measure wireguard-go 10.96.0.2
}

openvpn() {
    local root ns n other prints=()
    root=$(home openvpn)
    for n in 0 1; do
        chroot "$root" openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=bench$n" \
            -keyout "/tmp/$n.key" -out "/tmp/$n.pem" 2>"$work/openssl.log"
        prints+=("$(chroot "$root" openssl x509 -in "/tmp/$n.pem" -noout -fingerprint -sha256 | cut -d= -f2)")
    done
    n=0
    for ns in "$a" "$b"; do
        other=$((1 - n))
        local role=(--tls-server --dh none)
        [ $n = 0 ] || role=(--tls-client)
        ip -n "$ns" tuntap add dev ovpnb mode tun
        ip -n "$ns" addr add "10.96.0.$((n + 1))/24" dev ovpnb
        ip -n "$ns" link set ovpnb up
        (inside "$ns" "$root" openvpn --dev ovpnb --dev-type tun --ifconfig-noexec --proto udp --local "10.97.0.$((n + 1))" \
            --remote "10.97.0.$((other + 1))" --topology subnet --ifconfig "10.96.0.$((n + 1))" 255.255.255.0 "${role[@]}" \
            --cert "/tmp/$n.pem" --key "/tmp/$n.key" --peer-fingerprint "${prints[$other]}" \
            --data-ciphers AES-128-GCM --disable-dco) >"$work/openvpn$n.log" 2>&1 &
        pids+=($!)
        n=$((n + 1))
    done
    measure openvpn 10.96.0.2
}

control=()
measured() { # NAME ARGUMENTS…
    "$warren" bench "$@" --json >"$work/$1.figures"
    control+=(--control "$work/$1.figures")
}
measured ike
measured mesh
measured manifest

"$warren" bench esp --json --seconds "$seconds" >"$work/ours.json"
compared=()
for peer in wireguard openvpn; do
    # A peer that cannot be had is no reason to show nothing; the table says that it is missing.
    if up && "$peer"; then
        :
    else
        echo "bench: no figures of $peer" >&2
        tail -n 5 "$work/$peer"*.log >&2 || true
    fi
    down
done
for file in "$work"/*.json; do
    [ "$file" = "$work/ours.json" ] || [ ! -s "$file" ] || compared+=("$file")
done
"$warren" "${json[@]}" bench compare "$work/ours.json" "${compared[@]}" "${control[@]}"
