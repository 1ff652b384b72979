#!/usr/bin/env bash
# run.sh [--json] [--seconds N] [--only PEER]: the control plane beside the bare cryptography; the userspace data plane and its peers, one
# after the other on the same kind of wire; all in one run, with ratios and goals. Peers are Debian's packages, unpacked into a folder by
# interop/fetch.sh. With --only, that peer alone beside ours and no control plane: for work on one peer.
set -euo pipefail
cd "$(dirname "$0")/.."

# Each is a file in bench/peers, with a function of its name.
peers=(wireguard openvpn nebula tinc strongswan)

usage() {
    echo "usage: bench/run.sh [--json] [--seconds N] [--only PEER], with PEER one of ${peers[*]}" >&2
    exit 2
}

json=() seconds=3 only=
while [ $# -gt 0 ]; do
    case $1 in
        --json) json=(--json) ;;
        --seconds) seconds=${2:?}; shift ;;
        --only)
            only=${2:?}
            [[ " ${peers[*]} " = *" $only "* ]] || usage
            shift
            ;;
        *) usage ;;
    esac
    shift
done
[ -z "$only" ] || peers=("$only")
warren=${WARREN:-target/release/warren}
folders=${WARREN_PEERS:-target/peers}
suite=trixie

work=$(mktemp -d)
a=warren-peer-$$-a b=warren-peer-$$-b
pids=()

# Whoever is impatient and interrupts this too leaves nothing behind either.
down() {
    local pid ns
    trap '' INT TERM HUP
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        for _ in {1..50}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    for ns in "$a" "$b"; do ip netns del "$ns" 2>/dev/null || true; done
}
trap 'trap "" INT TERM HUP; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# Two namespaces with a wire between them: 10.97.0.1 and 10.97.0.2.
up() {
    ip netns add "$a"
    ip netns add "$b"
    ip -n "$a" link add eth0 type veth peer name eth0 netns "$b"
    ip -n "$a" addr add 10.97.0.1/24 dev eth0
    ip -n "$b" addr add 10.97.0.2/24 dev eth0
    ip -n "$a" link set eth0 up
    ip -n "$b" link set eth0 up
    ip -n "$a" link set lo up
    ip -n "$b" link set lo up
}

# inside NETNS ROOT HOME COMMAND...: the peer's own program, in its folder ROOT, with this machine's devices. The folders in HOME (which
# is in the temporary folder, as keys should be) take the place of those in ROOT, in a mount namespace that `ip` makes and that ends
# with the program.
inside() {
    # shellcheck disable=SC2016 # that shell's own
    exec ip netns exec "$1" sh -euc '
        root=$1 home=$2
        shift 2
        for name in dev proc; do mount --rbind "/$name" "$root/$name"; done
        for own in "$home"/*; do mount --bind "$own" "$root/${own##*/}"; done
        export TMPDIR=/tmp
        exec chroot "$root" "$@"' sh "${@:2}"
}

# folder PEER: where it is unpacked.
folder() {
    interop/fetch.sh "$suite-$1"
    realpath "$folders/$suite-$1"
}

# measure NAME TARGET: waits until a packet comes through, and writes NAME.json.
measure() {
    local pid processes=()
    for pid in "${pids[@]}"; do processes+=(--process "$pid"); done
    "$warren" bench path --json --seconds "$seconds" --from "$a" --to "$b" --target "$2" "${processes[@]}" >"$work/$1.figures" &
    # Not in front, so that an interrupt is heard at once.
    pids+=($!)
    wait $!
    # Where nothing came through there is nothing to compare.
    ! grep -q null "$work/$1.figures" || { echo "bench: nothing came through $1 for a while: $(<"$work/$1.figures")" >&2; return 1; }
    mv "$work/$1.figures" "$work/$1.json"
}

# await WHAT COMMAND...: until it succeeds, for 20 seconds.
await() {
    local what=$1
    shift
    for _ in {1..200}; do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "bench: $what did not come up" >&2
    return 1
}

device() { await "$2" ip -n "$1" link show "$2"; }

for peer in "${peers[@]}"; do
    # shellcheck source=/dev/null
    . "bench/peers/$peer.sh"
done

control=()
measured() { # NAME ARGUMENTS…
    "$warren" bench "$@" --json >"$work/$1.figures"
    control+=(--figures "$work/$1.figures")
}
if [ -z "$only" ]; then
    measured ike
    measured mesh
    measured manifest
fi

"$warren" bench esp --json --seconds "$seconds" >"$work/ours.json"
for peer in "${peers[@]}"; do
    # A peer that cannot be had is no reason to show nothing; the table says that it is missing. No condition around it: within one,
    # a command that fails would not end it.
    set +e
    (
        trap down EXIT
        trap 'exit 1' INT TERM HUP
        set -e
        up
        "$peer"
    )
    status=$?
    set -e
    [ $status = 0 ] || {
        echo "bench: no figures of $peer" >&2
        tail -n 5 "$work/$peer"*.log >&2 2>/dev/null || true
    }
done
compared=()
for file in "$work"/*.json; do
    [ "$file" = "$work/ours.json" ] || compared+=("$file")
done
"$warren" "${json[@]}" bench compare "$work/ours.json" "${compared[@]}" "${control[@]}"
